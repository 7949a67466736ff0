"""What a run has to say of a device that gave wrong numbers.

Example: ``device_warnings(session)`` is empty where all devices did as the host does.
"""

from __future__ import annotations

from recipelang.diagnostics import Diagnostic, Label
from recipelang.run.session import Session, place_of

__all__ = ["device_warnings"]


def device_warnings(session: Session) -> tuple[Diagnostic, ...]:
    """W0805 where the device gave wrong numbers, at the first merge that it was asked for."""
    if session.distrusted is None:
        return ()
    node, seen = session.distrusted
    step = session.plan.by_node[node]
    span, place = session.plan.state.program.spans.get(step.lowered), place_of(step)
    label = Label(span, f"`{place}` was to be merged on it") if span else None
    message = f"the device gives wrong numbers to {session.backend.version}: {seen}"
    return (
        Diagnostic(
            "W0805", "warning", message, label,
            help="nothing is lost: merges were computed on the host; try another version of "
            f"{session.backend.name}, or leave out `--backend`",
        ),
    )  # fmt: skip
