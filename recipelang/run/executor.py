"""Carries a plan out: steps in order, hits skipped, results recorded, the lock kept.

For each missing step: the inputs are made sure of, the action key is looked up again (another run
may have been faster), and only then it is computed. The result is durable, then its record, then
the lock. A step that fails stops what depends on it and nothing else.

Example: ``execute(session, keeper)``.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from recipelang.diagnostics import Diagnostic, RecipeError
from recipelang.ir.graph import Node
from recipelang.lineage.keys import is_input
from recipelang.passes.state import Region
from recipelang.plan.schedule import PlanStep
from recipelang.run.compute import compute, total_of
from recipelang.run.events import StepFinished, StepStarted, Waiting
from recipelang.run.keeping import Keeper
from recipelang.run.record import StepRecord
from recipelang.run.session import Blocked, Session, place_of, placed
from recipelang.store.locks import key_locks
from recipelang.store.records import ActionRecord
from recipelang.store.view import Found
from recipelang.types import is_partial

__all__ = ["execute"]


def execute(session: Session, keeper: Keeper) -> tuple[Diagnostic, ...]:
    """Carry out every step that the plan says runs; returns what went wrong, an error a failed
    step.

    Raises KeyboardInterrupt (and what a signal handler raises) with everything finished kept.
    """
    wrong: list[Diagnostic] = []
    for step in session.plan.steps:
        if step.artifact is not None:
            session.ids[step.node] = step.artifact
        if step.key is not None:
            session.keys[step.node] = step.key
    for step in session.plan.steps:
        if step.action == "cached":
            keeper.cached(step)
        if step.action != "run" or not _is_own(session, step):
            keeper.known(step)
            continue
        started = time.monotonic()
        try:
            _materialise(session, keeper, step.node)
        except Blocked:
            session.failed[step.node] = session.failed[_culprit(session, step)]
            keeper.failed(step, "blocked", 0.0)
        except RecipeError as error:
            if session.stopped():
                raise KeyboardInterrupt from error
            found = placed(session, step, error)
            wrong += found
            session.failed[step.node] = found[0]
            keeper.failed(step, "failed", time.monotonic() - started)
        except Exception as error:
            if session.stopped():  # a library turned the interrupt into an error of its own
                raise KeyboardInterrupt from error
            found = (_internal(session, step, error),)
            wrong += found
            session.failed[step.node] = found[0]
            keeper.failed(step, "failed", time.monotonic() - started)
    return tuple(wrong)


def _is_own(session: Session, step: PlanStep) -> bool:
    """Whether the step is computed for itself, not only inside a region."""
    return step.region is None or step.stored


def _culprit(session: Session, step: PlanStep) -> Node:
    """The failed step below this one."""
    stack = list(step.node.inputs)
    while stack:
        node = stack.pop()
        if node in session.failed:
            return node
        stack.extend(node.inputs)
    raise AssertionError("a blocked step has a failed one below it")


def _internal(session: Session, step: PlanStep, error: Exception) -> Diagnostic:
    """A failure that nothing foresaw: of a backend, of the machine, or of recipelang."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split()) or type(error).__name__
    note = f"{type(error).__name__} in {last.name}, line {last.lineno} of {last.filename}"
    trace = "".join(traceback.format_exception(error))
    keeper_note = session.keep_trace(place_of(step), trace)
    made = Diagnostic(
        "E0903", "error", f"`{place_of(step)}` failed: {text[:300]}", None, (),
        (note, *([keeper_note] if keeper_note else [])),
        help="everything finished is kept; the next run goes on from here",
    )  # fmt: skip
    return placed(session, step, RecipeError(made))[0]


# ---------------------------------------------------------------- one step


def _is_present(session: Session, node: Node) -> bool:
    """Whether the step's result can be opened now."""
    operation = session.plan.state.lookup(node.op)
    if is_input(operation) or (operation is not None and operation.kind == "data"):
        return node in session.ids
    return node in session.ids and session.store.is_whole(session.ids[node])


def _materialise(session: Session, keeper: Keeper, node: Node) -> None:
    """Make sure that the step's result is there.

    Raises :class:`Blocked` where a step below has failed, RecipeError.
    """
    if node in session.failed:
        raise Blocked
    if node in session.ran or (node in session.ids and _is_present(session, node)):
        return
    operation = session.plan.state.lookup(node.op)
    if is_input(operation):
        return _source(session, node)
    if operation is not None and operation.kind == "data":
        for below in node.inputs:
            _materialise(session, keeper, below)
        session.ids[node] = session.make_key(node).digest
        return None
    region = _region(session, node)
    if region is not None:
        return _run_region(session, keeper, region, node)
    for below in node.inputs:
        _materialise(session, keeper, below)
    _run_one(session, keeper, node)
    return None


def _source(session: Session, node: Node) -> None:
    """A source whose content is not on this machine; the plan knows it otherwise."""
    from recipelang.diagnostics import fault

    if node not in session.ids:
        raise fault(
            "E0723",
            f"`{node.attr('uri')}` is not on this machine",
            help="fetch it: `recipe fetch FILE`",
        )


def _region(session: Session, node: Node) -> Region | None:
    index = session.step(node).region
    return None if index is None else session.plan.state.regions[index]


@contextmanager
def _locked(session: Session, nodes: Sequence[Node]) -> Generator[None, None, None]:
    """The locks of these steps' keys; of their step ids where a key is known only afterwards."""
    names = [
        session.keys[n].digest if n in session.keys else session.step(n).step_id for n in nodes
    ]
    last = session.step(nodes[-1])
    with key_locks(
        session.store.root, names, lambda: session.listener(Waiting(place_of(last), last.node.op))
    ):
        yield


def _run_one(session: Session, keeper: Keeper, node: Node) -> None:
    step, key = session.step(node), session.make_key(node)
    with _locked(session, [node]):
        if _take_hit(session, keeper, step, session.view.lookup(key.digest, session.wanted)):
            return
        started = time.monotonic()
        total, unit = total_of(node)
        session.listener(StepStarted(place_of(step), node.op, total, unit))
        artifact = compute(session, node)
        _record(session, keeper, step, artifact, time.monotonic() - started)


def _take_hit(session: Session, keeper: Keeper, step: PlanStep, found: Found | None) -> bool:
    """Take a result that is there already (an input came out as before, or another run made it)."""
    if found is None or not found.present:
        return False
    session.ids[step.node] = found.artifact
    session.found[step.node] = found
    session.values.pop(step.node, None)
    keeper.cached(step)
    keeper.known(step)
    return True


def _record(
    session: Session,
    keeper: Keeper,
    step: PlanStep,
    artifact: str,
    seconds: float,
    *,
    inner: bool = False,
) -> None:
    """The artifact is durable: write its record, then the lock, then drop what served its
    making.
    """
    node = step.node
    backend, device, devices = session.made_on(node)
    key = session.keys[node]
    record = ActionRecord(
        key.document, artifact, backend, device, devices, session.run_id, seconds
    )  # fmt: skip
    session.store.record_action(key.digest, record)
    session.ids[node], session.backends[node] = artifact, backend
    session.values.pop(node, None)
    if inner:
        keeper.known(step)
        return
    session.ran[node] = seconds
    row = StepRecord(
        place_of(step), node.op, "ran", round(seconds, 3), key.digest, artifact, backend,
        session.details.get(node, ""),
    )  # fmt: skip
    keeper.ran(step, row)
    folder = session.work.pop(node, None)
    if folder is not None and folder not in session.work.values():
        session.store.drop_work(folder)
    session.listener(StepFinished(row.place, row.op, "ran", seconds))


# ---------------------------------------------------------------- a region


def _run_region(session: Session, keeper: Keeper, region: Region, wanted: Node) -> None:
    """Compute the missing outputs of a region in one pass."""
    from recipelang.run.merging import external_inputs

    for below in external_inputs(session, region):
        _materialise(session, keeper, below)
    outputs = [
        n for n in region.outputs
        if n is wanted or (session.step(n).action == "run" and n not in session.ran)
    ]  # fmt: skip
    with _locked(session, outputs):
        missing = [n for n in outputs if not _hit_in_region(session, keeper, region, n)]
        if not missing:
            return
        from recipelang.run.merging import merge

        last = session.step(missing[-1])
        started = time.monotonic()
        session.listener(StepStarted(place_of(last), last.node.op, 0, "tensors"))
        made = merge(session, region, missing)
        spent = time.monotonic() - started
        _record_region(session, keeper, region, made, spent)


def _hit_in_region(session: Session, keeper: Keeper, region: Region, node: Node) -> bool:
    """Whether the store has an output by now; keys of a region follow from its inputs."""
    for inner in _members(region, node):
        _inner_ids(session, inner)
        key = session.make_key(inner)
        if inner is node:
            break
        known = session.view.lookup(key.digest, None)
        session.ids.setdefault(inner, known.artifact if known else _inner(key.digest))
    return _take_hit(
        session, keeper, session.step(node), session.view.lookup(session.keys[node].digest, None)
    )


def _inner_ids(session: Session, node: Node) -> None:
    """Give ids to deltas and layers of other regions, which are computed again here."""
    for below in node.inputs:
        if below not in session.ids and is_partial(below.type):
            _inner_ids(session, below)
            session.ids[below] = _inner(session.make_key(below).digest)


def _inner(key: str) -> str:
    from recipelang.run.merging import inner_id

    return inner_id(key)


def _members(region: Region, node: Node) -> list[Node]:
    """The region's steps below an output, and the output, in run order."""
    below: set[Node] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if one in region.nodes and one not in below:
            below.add(one)
            stack.extend(one.inputs)
    return [n for n in region.nodes if n in below]


def _record_region(
    session: Session, keeper: Keeper, region: Region, made: dict[Node, str], spent: float
) -> None:
    """Records of the steps inside first, then of the outputs."""
    for node in region.nodes:
        if not any(node in _members(region, output) for output in made):
            continue
        session.make_key(node)
        if node in made:
            _record(session, keeper, session.step(node), made[node], spent / len(made))
        elif node not in region.outputs:
            _record(session, keeper, session.step(node), session.ids[node], 0.0, inner=True)
