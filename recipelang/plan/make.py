"""Makes the schedule of a program: what runs, what is cached, and why.

Forwards, content ids are followed from the sources as far as results are known; backwards, what the
targets need and the store lacks is marked to run. A cached step needs none of its inputs.

Example: ``make_plan(program, (), view, backend="torch")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from recipelang.ir.graph import Node, walk
from recipelang.lineage.keys import ActionKey, Lookup, StepIds, action_key, is_input
from recipelang.ops import registry
from recipelang.ops.spec import Cost, Operation
from recipelang.passes import run_passes, start
from recipelang.passes.state import GraphState
from recipelang.plan.cost import (
    Speed,
    calibrated,
    cost_of,
    cpu_speed,
    estimate_region,
    estimate_step,
    stored_bytes,
)
from recipelang.plan.limits import Machine, check_limits, free_bytes, prepare_backend, uses_backend
from recipelang.plan.reasons import Reasons
from recipelang.plan.schedule import Action, Estimate, Plan, PlanStep, Record, StoreView
from recipelang.program import GateRoot, Program, PublishRoot, nodes_of

__all__ = ["key_of", "make_plan", "uses_backend"]


def make_plan(
    program: Program, targets: tuple[str, ...], view: StoreView, *, backend: str | None = None,
    preferred: str | None = None, skip: frozenset[str] = frozenset(), verify: bool = False,
    lookup: Lookup = registry.lookup, speed: Speed | None = None,
    machine: Callable[[str | None], Machine] | None = None,
) -> Plan:  # fmt: skip
    """The plan for these targets (all that the file asks for without).

    ``backend`` is the one of ``--backend``: results of another are then misses. ``preferred`` is
    the lock's, used where something must run. ``skip`` names passes that are switched off. A
    backend is imported only when a step that needs one runs. ``speed`` and ``machine`` measure this
    machine.
    """
    ids = StepIds(lambda node: view.content(node) or f"not here: {node.attr('uri')}", lookup)
    chosen = _targets(program, targets)
    view.hash_sources(node for node in walk(chosen.nodes) if is_input(lookup(node.op)))
    begin = start(
        program, chosen.nodes, ids, everything=True, gates=chosen.gates, lookup=lookup
    )  # fmt: skip
    state = run_passes(begin, skip=skip, check=verify)
    known = _follow(state, view, backend)
    actions = _decide(state, known)
    running = {node for node, action in actions.items() if action == "run"}
    device = Machine()
    if any(uses_backend(node, lookup(node.op)) for node in running):
        device = (machine or prepare_backend)(backend or preferred)
    assumed = speed or (cpu_speed() if device.kind in ("", "cpu") else Speed())
    estimates = _estimates(state, running, calibrated(assumed, _samples(state, known)))
    steps = _steps(state, view, known, actions, estimates, backend)
    to_run = [step for step in steps if step.action == "run"]
    published = sum(stored_bytes(root.what.type) for root in chosen.publishes)
    plan = Plan(
        state=state, steps=steps, gates=state.gates, publishes=chosen.publishes,
        backend=device.backend, device=device.name,
        seconds=sum(step.estimate.seconds for step in to_run),
        memory_bytes=max((step.estimate.memory_bytes for step in to_run), default=0),
        disk_bytes=sum(step.estimate.disk_bytes for step in to_run) + (published if to_run else 0),
        disk_free=free_bytes(view.root), diagnostics=(),
        by_node={step.node: step for step in steps},
    )  # fmt: skip
    return check_limits(plan, device)


@dataclass(frozen=True, slots=True)
class _Chosen:
    nodes: tuple[Node, ...]
    gates: tuple[GateRoot, ...]
    publishes: tuple[PublishRoot, ...]


def _targets(program: Program, targets: tuple[str, ...]) -> _Chosen:
    """What a run of the targets builds, with the gates that measure them and the publishes of
    them."""
    roots = program.roots(targets)
    if not targets:
        return _Chosen(roots, program.gates, program.publishes)
    of = set(roots)
    gates = tuple(
        gate
        for gate in program.gates
        if any(n in of or of.intersection(n.inputs) for n in _measures(gate))
    )
    publishes = tuple(root for root in program.publishes if root.what in of)
    measures = [n for gate in gates for n in _measures(gate)]
    return _Chosen(tuple(dict.fromkeys([*roots, *measures])), gates, publishes)


def _measures(gate: GateRoot) -> tuple[Node, ...]:
    return (*nodes_of(gate.left), *nodes_of(gate.right))


# ---------------------------------------------------------------- what is known


@dataclass(slots=True)
class _Known:
    """What is known of each node before the run: its key, the store's record, its content id."""

    keys: dict[Node, ActionKey] = field(default_factory=dict[Node, ActionKey])
    records: dict[Node, Record] = field(default_factory=dict[Node, Record])
    contents: dict[Node, str] = field(default_factory=dict[Node, str])


def key_of(state: GraphState, node: Node, contents: Mapping[Node, str]) -> ActionKey | None:
    """The action key of a current node; None while the content id of an operand is not known.

    ``contents`` has the content ids of nodes: of a source its step id, of derived data the digest
    of its key, of all else the artifact's id.
    """
    if any(n not in contents for n in node.inputs):
        return None
    inputs = {role: [contents[n] for n in nodes] for role, nodes in node.operands}
    return action_key(node, inputs, state.draws(node), lookup=state.lookup)


def _follow(state: GraphState, view: StoreView, backend: str | None) -> _Known:
    known = _Known()
    for node in state.nodes():
        operation = state.lookup(node.op)
        if is_input(operation):
            if view.content(state.stands_for[node]) is not None:
                known.contents[node] = state.step_id(node)
            continue
        key = key_of(state, node, known.contents)
        if key is None:
            continue
        known.keys[node] = key
        if _is_derived(operation):
            known.contents[node] = key.digest
            continue
        record = view.lookup(key.digest, backend)
        if record is not None:
            known.records[node] = record
            known.contents[node] = record.artifact
    return known


def _is_derived(operation: Operation | None) -> bool:
    """Whether the step is data made from data alone: cut, mixed and split when it is read."""
    if operation is None or operation.kind != "data":
        return False
    return all("Dataset" in o.type for o in operation.operands)


# ---------------------------------------------------------------- what runs


def _decide(state: GraphState, known: _Known) -> dict[Node, Action]:
    """Users before operands: what is needed and not in the store runs, and needs its operands."""
    needed = set(state.roots)
    actions: dict[Node, Action] = {}
    for node in reversed(state.nodes()):
        operation = state.lookup(node.op)
        record = known.records.get(node)
        if is_input(operation):
            actions[node] = "source" if node in needed else "skip"
        elif _is_derived(operation):
            actions[node] = "derived" if node in needed else "skip"
        elif record is not None and record.present:
            actions[node] = "cached"
            continue
        else:
            actions[node] = "run" if node in needed else "skip"
        if node in needed:
            needed.update(node.inputs)
    return actions


def _samples(state: GraphState, known: _Known) -> list[tuple[Cost, float]]:
    """The costs of the steps whose results are known, with the seconds that they took."""
    return [
        (cost_of(node, state.lookup(node.op)), record.seconds)
        for node, record in known.records.items()
    ]


def _estimates(state: GraphState, running: set[Node], speed: Speed) -> dict[Node, Estimate]:
    found: dict[Node, Estimate] = {}
    for region in state.regions:
        found |= estimate_region(state, region, running, speed)
    for node in running - found.keys():
        found[node] = estimate_step(node, state.lookup(node.op), speed)
    return found


def _steps(
    state: GraphState, view: StoreView, known: _Known, actions: Mapping[Node, Action],
    estimates: Mapping[Node, Estimate], backend: str | None,
) -> tuple[PlanStep, ...]:  # fmt: skip
    reasons = Reasons(state, view, actions, known.keys, known.records, backend)
    regions = {n: i for i, region in enumerate(state.regions) for n in region.nodes}
    outputs = {n for region in state.regions for n in region.outputs}
    steps: list[PlanStep] = []
    for node in _order(state, actions):
        operation = state.lookup(node.op)
        action = actions[node]
        stored = action in ("run", "cached") and (node not in regions or node in outputs)
        steps.append(
            PlanStep(
                node=node, lowered=state.stands_for[node], step_id=state.step_id(node),
                place=state.place(node), kind=operation.kind if operation else "", action=action,
                reason=reasons.of(node) if action == "run" else "", key=known.keys.get(node),
                draws=state.draws(node), artifact=known.contents.get(node),
                record=known.records.get(node), region=regions.get(node), stored=stored,
                estimate=estimates.get(node, Estimate()),
            )
        )  # fmt: skip
    return tuple(steps)


def _order(state: GraphState, actions: Mapping[Node, Action]) -> Sequence[Node]:
    """Run order: operands before users, and the steps of a region in one stretch, at its last
    one. What is cached waits for nothing: it may lie inside a region that runs."""
    region_of = {n: region for region in state.regions for n in region.nodes if actions[n] == "run"}
    done: dict[Node, None] = {}

    def place(node: Node) -> None:
        stack = [(node, False)]
        while stack:
            one, ready = stack.pop()
            if one in done:
                continue
            region = region_of.get(one)
            group = [n for n in region.nodes if actions[n] == "run"] if region else [one]
            if ready:
                done.update(dict.fromkeys(group))
                continue
            stack.append((one, True))
            waiting = [member for member in group if actions[member] != "cached"]
            below = [n for member in waiting for n in member.inputs if n not in group]
            stack.extend((n, False) for n in reversed(below) if n not in done)

    for node in state.nodes():
        place(node)
    return tuple(done)
