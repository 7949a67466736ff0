"""What speaks against a run before it starts: no backend, a model it cannot run, too little memory,
disk or time.

Example: ``check_limits(plan, machine)`` gives the plan with its diagnostics.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import Diagnostic, Label, RecipeError, Span
from recipelang.ir.graph import Node
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Operation
from recipelang.plan.schedule import Plan, PlanStep
from recipelang.plan.units import bytes_text, seconds_text
from recipelang.types import ModelType

if TYPE_CHECKING:
    from recipelang.backend import Backend

__all__ = ["Machine", "check_limits", "free_bytes", "prepare_backend", "uses_backend"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where steps that need a backend run. ``memory_bytes`` 0 is not known; ``fault`` says why
    there is none; ``refuse`` asks the backend about a model."""

    backend: str | None = None
    kind: str = ""
    name: str = ""
    memory_bytes: int = 0
    refuse: Callable[[ModelType], str | None] | None = None
    others: tuple[str, ...] = ()
    faults: tuple[Diagnostic, ...] = ()
    count: int = 0


def prepare_backend(name: str | None) -> Machine:
    """Import the backend and ask what it runs on. A missing one is a fault of the machine,
    E0801."""
    from recipelang.backend import available, find

    try:
        backend = find(name)
    except RecipeError as error:
        return Machine(faults=error.diagnostics)
    devices = backend.devices()
    first = devices[0] if devices else None
    others = tuple(other for other in available() if other != backend.name)
    return Machine(
        backend.name, first.kind if first else "", first.name if first else "",
        first.memory_bytes if first else 0,
        lambda model: _refusal(backend, model), others,
        count=sum(device.kind == first.kind for device in devices) if first else 0,
    )  # fmt: skip


def _refusal(backend: Backend, model: ModelType) -> str | None:
    if model.config is None or model.tensors is None:
        return None
    return backend.refuse(model.config, model.tensors)


def uses_backend(node: Node, operation: Operation | None) -> bool:
    """Whether the step needs torch or jax: it trains, measures on data, or searches by such a
    measure."""
    if operation is not None and operation.kind == "search":
        return any(uses_backend(measure, lookup(measure.op)) for measure in node.role("by"))
    if operation is None or operation.kind not in ("train", "measure", "evaluate", "choose"):
        return False
    return any("Dataset" in o.type.split("|") for o in operation.operands if node.role(o.name))


def free_bytes(folder: Path) -> int:
    """The free space of the disk that a folder (which need not exist yet) is on, in bytes."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize


def check_limits(plan: Plan, machine: Machine) -> Plan:
    """The plan with its diagnostics: E0801, E0803, and E0810 to E0812."""
    if not plan.to_run:
        return plan
    found = [
        *machine.faults,
        *_refused(plan, machine),
        *_wrong_device(plan, machine),
        *_over_budget(plan),
        *_no_space(plan),
        *_no_memory(plan, machine),
    ]
    return replace(plan, diagnostics=tuple(found))


def _span(plan: Plan, step: PlanStep) -> Label | None:
    span = plan.state.program.spans.get(step.lowered)
    return Label(span, f"`{step.place}`" if step.place else "") if span else None


def _refused(plan: Plan, machine: Machine) -> list[Diagnostic]:
    """E0803 for each step whose model the backend does not know."""
    found: list[Diagnostic] = []
    asked: dict[int, str | None] = {}
    for step in plan.to_run:
        if machine.refuse is None or not uses_backend(step.node, plan.state.lookup(step.node.op)):
            continue
        for model in {id(n.type): n.type for n in step.node.inputs}.values():
            if not isinstance(model, ModelType):
                continue
            if id(model) not in asked:
                asked[id(model)] = machine.refuse(model)
            why = asked[id(model)]
            if why:
                other = f"--backend {machine.others[0]}" if machine.others else ""
                help = f"run it with `{other}`" if other else ""
                text = f"the {machine.backend} backend cannot run `{step.place}`: {why}"
                found.append(Diagnostic("E0803", "error", text, _span(plan, step), help=help))
                break
    return found


def _wrong_device(plan: Plan, machine: Machine) -> list[Diagnostic]:
    """E0813 where the budget names devices that the backend does not have. A CPU is one device,
    whatever its cores."""
    wanted = plan.state.program.budget.device
    if wanted is None or not machine.backend:
        return []
    count, kind = wanted
    if machine.kind == kind and (kind == "cpu" or machine.count >= count):
        return []
    has = f"{machine.count} {machine.kind}" if machine.kind not in ("", "cpu") else "the CPU"
    text = f"the budget plans for {count} {kind}, and the {machine.backend} backend has {has}"
    help = "run it on such a machine, or change `device` in the budget"
    label = _budget_label(plan.state.program.budget.spans.get("device"))
    return [Diagnostic("E0813", "error", text, label, help=help)]


def _over_budget(plan: Plan) -> list[Diagnostic]:
    """E0810 for each limit of the recipe's budget that the estimate exceeds."""
    budget = plan.state.program.budget
    found: list[Diagnostic] = []
    rows: tuple[
        tuple[str, float | None, float, Callable[[PlanStep], float], Callable[[float], str]], ...
    ]
    rows = (
        ("wall", budget.wall, plan.seconds, lambda s: s.estimate.seconds, seconds_text),
        ("memory", budget.memory, plan.memory_bytes, lambda s: s.estimate.memory_bytes, bytes_text),
        ("disk", budget.disk, plan.disk_bytes, lambda s: s.estimate.disk_bytes, bytes_text),
    )
    for name, limit, total, share, show in rows:
        if limit is None or total <= limit:
            continue
        largest = max(plan.to_run, key=share)
        text = f"about {show(total)} of {name} against a budget of {show(limit)}"
        note = (
            f"the largest part is `{largest.place or largest.node.op}` with {show(share(largest))}"
        )
        found.append(
            Diagnostic(
                "E0810", "error", text, _budget_label(budget.spans.get(name)), (), (note,),
                help=f"raise `{name}` in the budget, or make that step smaller",
            )
        )  # fmt: skip
    return found


def _budget_label(span: Span | None) -> Label | None:
    return Label(span, "the budget") if span else None


def _no_space(plan: Plan) -> list[Diagnostic]:
    """E0811 where the store's disk has less room than the run adds."""
    if plan.disk_bytes <= plan.disk_free:
        return []
    text = (
        f"the run writes about {bytes_text(plan.disk_bytes)}, {bytes_text(plan.disk_free)} are free"
    )
    help = "free some space, or point `RECIPE_STORE` at a larger disk"
    return [Diagnostic("E0811", "error", text, help=help)]


def _no_memory(plan: Plan, machine: Machine) -> list[Diagnostic]:
    """E0812 for the largest step that needs more memory than the device has."""
    if not machine.memory_bytes or plan.memory_bytes <= machine.memory_bytes:
        return []
    step = max(plan.to_run, key=lambda s: s.estimate.memory_bytes)
    text = (
        f"`{step.place or step.node.op}` needs about {bytes_text(plan.memory_bytes)} of memory, "
        f"{machine.name or 'the device'} has {bytes_text(machine.memory_bytes)}"
    )
    help = "train an adapter (`adapter = lora(rank = 16)`), or lower `micro_batch` or `length`"
    return [Diagnostic("E0812", "error", text, _span(plan, step), help=help)]
