"""Runs a region of weight operations: one streaming pass over the tensors, its results stored.

What a killed pass has written stays in the store's ``work`` folder under the outputs' identity, and
the next run goes on from it.

Example: ``merge(session, region)`` gives the artifacts of the region's outputs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from recipelang.diagnostics import RecipeError, fault
from recipelang.ir.graph import Node
from recipelang.lineage.keys import digest
from recipelang.passes.state import Region
from recipelang.run.events import Note, StepProgress
from recipelang.run.extraction_reports import keep_left_out
from recipelang.run.merge_reports import keep_report
from recipelang.run.opening import open_value
from recipelang.run.session import Session, place_of
from recipelang.run.values import AdapterValue, ModelValue
from recipelang.store.artifact import Manifest
from recipelang.types import AdapterType, is_partial, type_name
from recipelang.weights.arrays import Arrays
from recipelang.weights.engine import RegionProgress, run_region
from recipelang.weights.proving import WrongNumbers
from recipelang.weights.region import Operand, Step, make_step
from recipelang.weights.report import Watcher, watched_step
from recipelang.weights.strips.arrays import host
from recipelang.weights.writer import ModelWriter

__all__ = ["external_inputs", "inner_id", "merge", "store_checkpoint"]


def inner_id(key: str) -> str:
    """The content id of a step that exists a block at a time only: weight operations are exact, so
    their key says what they give."""
    return digest("recipelang/inner/1", {"key": key})


def external_inputs(session: Session, region: Region) -> tuple[Node, ...]:
    """What a region reads, in order, each once. Deltas and layers are never stored for another
    region to read: they are computed again from their own inputs."""
    found: dict[Node, None] = {}
    stack = list(reversed(region.nodes))
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in region.nodes or is_partial(node.type):
            stack.extend(reversed(node.inputs))
        else:
            found[node] = None
    return tuple(found)


def merge(session: Session, region: Region, outputs: Sequence[Node]) -> dict[Node, str]:
    """Compute these outputs of a region, whose inputs are there; returns their artifacts. Where a
    device gives wrong numbers they are computed on the host, as all that follows is.

    Raises RecipeError.
    """
    arrays, made_by = _place(session)
    if arrays.proven:
        return _merge(session, region, outputs, arrays, made_by)
    try:
        return _merge(session, region, outputs, arrays, made_by)
    except RecipeError as error:
        found = error.diagnostics[0]
        if found.code != "E0620":  # infinities and NaN may be the device's own
            raise
        seen = f"gives wrong numbers: {found.message}"
    except WrongNumbers as wrong:
        seen = f"gives wrong numbers: {wrong}"
    except Exception as error:  # what became of wrong numbers, or a fault of the device's own
        seen = f"fails in a merge: {error or type(error).__name__}"
    _, folder = _work(session, region, outputs, made_by)
    shutil.rmtree(folder, ignore_errors=True)
    session.distrusted = outputs[-1], seen
    try:
        return _merge(session, region, outputs, host(), None)
    except RecipeError as error:
        if error.diagnostics[0].code == "E0620":  # it was the input's
            session.distrusted = None
        raise


def _work(
    session: Session, region: Region, outputs: Sequence[Node], made_by: tuple[str, str, int] | None
) -> tuple[str, Path]:
    """The identity of a region's outputs, made there, and the folder in which they come to be."""
    identity = digest(
        "recipelang/work/1",
        {
            "steps": [session.step(n).step_id for n in outputs],
            "in": [session.ids[n] for n in external_inputs(session, region)],
            **({"on": list(made_by)} if made_by else {}),
        },
    )
    return identity, session.store.root / "work" / identity


def _merge(
    session: Session, region: Region, outputs: Sequence[Node], arrays: Arrays,
    made_by: tuple[str, str, int] | None,
) -> dict[Node, str]:  # fmt: skip
    memo: dict[Node, Operand] = {}
    steps = {node: _operand(session, node, region, memo) for node in outputs}
    identity, folder = _work(session, region, outputs, made_by)
    place = place_of(session.step(outputs[-1]))

    def report(told: RegionProgress) -> None:
        session.listener(StepProgress(place, told.tensors, told.of, told.bytes_written, "bytes"))

    made: dict[Node, str] = {}
    with ExitStack() as stack:
        writers: dict[Node, ModelWriter] = {}
        watchers: dict[ModelWriter, Watcher] = {}
        for i, node in enumerate(outputs):
            writer = ModelWriter(folder / str(i), steps[node].tensors, identity=identity)
            stack.callback(writer.close)
            writers[node] = writer
            watched = watched_step(steps[node])
            if watched is not None:
                watchers[writer] = Watcher(watched, writer.folder / "report.jsonl")
        for step in steps.values():
            _ = step.files  # a tokenizer that cannot be written stops the merge before it starts
        jobs = [(steps[node], writers[node]) for node in outputs]
        stats = run_region(jobs, report=report, watchers=watchers, arrays=arrays)
        _check_inputs(session, region, folder)
        for node in outputs:
            if made_by:
                session.made_by[node] = made_by
            step = steps[node]
            kind = type_name(step.type).lower() if isinstance(step, Step) else "model"
            made[node] = _keep(session, writers[node], step, kind)
            if kind == "adapter" and isinstance(step, Step):
                _tell_energy(session, node, [stats.facts.get(name, {}) for name in step.tensors])
                keep_left_out(session, node, made[node], step)
            session.work[node] = folder
            watcher = watchers.get(writers[node])
            if watcher is not None:
                merge = next(n for n, operand in memo.items() if operand is watcher.step)
                keep_report(session, (node, made[node]), merge, watcher)
    return made


def _check_inputs(session: Session, region: Region, folder: Path) -> None:
    """Raise RecipeError E0735 where an input is not what was hashed any more, and take away what
    was written: a later run must not go on from it."""
    try:
        for node in external_inputs(session, region):
            session.view.check_unchanged(node)
    except RecipeError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _place(session: Session) -> tuple[Arrays, tuple[str, str, int] | None]:
    """Where a region is computed, with its backend, kind and number of devices: on the CPU numpy,
    whatever the backend, so that its bits are the same."""
    backend = session.accelerator
    if backend is None:
        return host(), None
    return backend.arrays(), (backend.name, backend.devices()[0].kind, 1)


def store_checkpoint(session: Session, node: Node, checkpoint: Operand, identity: str = "") -> str:
    """Store an open checkpoint, or what a step gives, whole, resuming what a killed run has
    written. ``identity`` tells its content from other content that the node may come to have."""
    place, identity = place_of(session.step(node)), identity or session.keys[node].digest
    folder = session.store.root / "work" / identity
    writer = ModelWriter(folder, checkpoint.tensors, identity=identity)
    try:
        run_region(
            [(checkpoint, writer)],
            report=lambda told: session.listener(
                StepProgress(place, told.tensors, told.of, told.bytes_written, "bytes")
            ),
        )
        session.work[node] = folder
        return _keep(session, writer, checkpoint, "model")
    finally:
        writer.close()


def _keep(session: Session, writer: ModelWriter, result: Operand, kind: str) -> str:
    """Take the finished shards into the store, then files, then the manifest."""
    written = writer.finish()
    store = session.store
    for shard in written.shards:
        store.adopt(shard.path, shard.digest)
    files = {name: _put(session, content) for name, content in result.files.items()}
    config = json.dumps(dict(result.config), indent=2, sort_keys=True, ensure_ascii=False)
    name = "adapter_config.json" if kind == "adapter" else "config.json"
    files[name] = store.put_bytes(config.encode())
    return store.put_manifest(Manifest(kind, written.tensors, files))


def _tell_energy(session: Session, node: Node, facts: Sequence[Mapping[str, float]]) -> None:
    """Say how much of the change an adapter keeps, of the weights that this run decomposed."""
    energy, kept = (sum(told.get(word, 0.0) for told in facts) for word in ("energy", "kept"))
    if energy:
        place, share = place_of(session.step(node)), kept / energy
        text = f"keeps {share:.1%} of the energy of what changed in the weights"
        session.listener(Note(f"{place:<12} {text}"))


def _put(session: Session, content: Path | bytes) -> str:
    store = session.store
    return store.put_bytes(content) if isinstance(content, bytes) else store.put_file(content)


def _draws(session: Session, node: Node) -> tuple[str, ...]:
    """What the masks of each input are keyed by: the step's draw key and the input's step id. The
    draws of an operation without such inputs are keyed by the step's alone."""
    state = session.plan.state
    drawn = state.draws(node)
    if drawn is None:
        return ()
    written = list(state.stands_for[node].role("inputs"))
    found: list[str] = []
    for now in node.role("inputs"):  # passes may have put them into another order
        one = next((w for w in written if state.current.get(w, w) is now), None)
        if one is not None:
            written.remove(one)
        found.append(f"{drawn} {state.ids[one] if one is not None else state.step_id(now)}")
    return tuple(found) or (drawn,)


def _operand(session: Session, node: Node, region: Region, memo: dict[Node, Operand]) -> Operand:
    """A step of the region, or the open checkpoint of what comes from outside."""
    if node in memo:
        return memo[node]
    if node in region.nodes or is_partial(node.type):
        operation = session.plan.state.lookup(node.op)
        assert operation is not None
        operands: Mapping[str, list[Operand]] = {
            role: [_operand(session, n, region, memo) for n in nodes]
            for role, nodes in node.operands
        }
        draws = _draws(session, node)
        memo[node] = made = make_step(operation, operands, dict(node.attrs), draws)
        return made
    value = open_value(session, node)
    if not isinstance(value, ModelValue | AdapterValue):
        raise fault("E0901", f"`{node.op}` cannot be read as weights")
    if isinstance(node.type, AdapterType) and "peft_type" not in value.checkpoint.config:
        raise fault("E0733", f"`{session.plan.state.place(node)}` is not a LoRA adapter")
    memo[node] = value.checkpoint
    return value.checkpoint
