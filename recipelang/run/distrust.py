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
    message = f"the device, with {session.backend.version}, {seen}"
    before = ", ".join(f"`{place_of(session.step(made))}`" for made in session.made_by)
    help = "merges are computed on the host from here on; " + (
        f"{before} came from the device before that was seen: compare with a run into an empty "
        "store without `--backend`"
        if before
        else f"try another version of {session.backend.name}, or leave out `--backend`"
    )
    return (Diagnostic("W0805", "warning", message, label, help=help),)
