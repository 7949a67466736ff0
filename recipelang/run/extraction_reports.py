"""What the extractions of a run left out of their adapters, kept in the store beside them.

Example: ``extraction_warnings(session)`` is empty where all that was tuned is in the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipelang.diagnostics import Diagnostic, Label
from recipelang.ir.graph import Node
from recipelang.run.session import Session, place_of

if TYPE_CHECKING:
    from recipelang.weights.region import Step

__all__ = ["extraction_warnings", "keep_left_out"]

SCHEMA = "recipelang/extraction-report/1"
NAMED = 20
"""Tensors that a report names; it counts all of them."""
SHOWN = 3


def keep_left_out(session: Session, node: Node, artifact: str, step: Step) -> None:
    """Look for what an adapter that was just made leaves out, and store it with the adapter."""
    from recipelang.weights.left_out import left_out

    names = left_out(step)
    report = {"schema": SCHEMA, "left_out": len(names), "names": list(names[:NAMED])}
    session.store.put_report(artifact, session.keys[node].digest, report)


def extraction_warnings(session: Session) -> tuple[Diagnostic, ...]:
    """W0655 for each extraction that this run computed or took from the store, and that left
    changes out, at its step in the recipe."""
    spans = session.plan.state.program.spans
    found: list[Diagnostic] = []
    for step in session.plan.steps:
        if step.node.op != "extract-adapter" or step.node not in session.ids:
            continue
        key = session.keys[step.node].digest
        count, names = _read(session.store.report(session.ids[step.node], key))
        if count:
            span, place = spans.get(step.lowered), place_of(step)
            found.append(
                Diagnostic(
                    "W0655", "warning", _message(place, count, names),
                    Label(span, f"`{place}` was extracted here") if span else None,
                    help="the base with the adapter is not the whole fine-tune: publish that "
                    "itself, or, where it is a matrix, name it in `targets`",
                )
            )  # fmt: skip
    return tuple(found)


def _message(place: str, count: int, names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    tensors = "a tensor" if count == 1 else f"{count} tensors"
    return f"`{place}` leaves out what was tuned in {tensors}: {shown}{more}"


def _read(document: object) -> tuple[int, list[str]]:
    """Count and names of a report; nothing of anything else."""
    try:
        body: Any = dict(document)  # type: ignore[call-overload]
        if body["schema"] == SCHEMA:
            return int(body["left_out"]), [str(name) for name in body["names"]]
    except (KeyError, TypeError, ValueError):
        pass
    return 0, []
