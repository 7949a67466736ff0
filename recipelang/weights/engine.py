"""Runs a region: every tensor of its results, in parallel, under a memory budget.

Tensors are the unit of work. A worker reads, computes and writes its tensor block by block while
the others do the same, so reading, computing and writing overlap. What a tensor needs in memory is
taken from the budget before it starts; one that needs more than the whole budget is read block by
block, and where its decompositions alone need more, nothing else runs beside it. With the arrays of
a device a tensor is computed there as a whole, its memory is the budget, and reading, transfers,
computing and writing overlap in the same way; the rest is computed on the host.

Example:
    >>> stats = run_region([(soup, writer)])      # doctest: +SKIP
    >>> stats.passes                              # doctest: +SKIP
    (1.0, 1.0)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from recipelang import memory
from recipelang.processors import processors
from recipelang.weights.arrays import BUDGET_BYTES, Arrays
from recipelang.weights.blocks import blocks_of
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.device import device_bytes, runs_on_device
from recipelang.weights.evaluate import Evaluation
from recipelang.weights.kernel import Block, Kth, MatrixKernel
from recipelang.weights.model_statistics import asks_for_model, thresholds
from recipelang.weights.needs import held_bytes, needs_statistics, walk, working_bytes
from recipelang.weights.proving import Proof, held_to
from recipelang.weights.region import Combine, Leaf, Memo, Operand, Source, Step, source_of
from recipelang.weights.strips.arrays import host
from recipelang.weights.writer import ModelWriter

if TYPE_CHECKING:
    from recipelang.weights.report import Watcher

__all__ = ["BUDGET_BYTES", "RegionProgress", "RegionStats", "run_region"]

DEVICE_WORKERS = 4
"""Threads that feed a device, at least: of four tensors one is read, one transferred, one computed
and one written."""


@dataclass(frozen=True, slots=True)
class RegionProgress:
    """``tensors`` of ``of`` are written; ``bytes_written`` so far, of ``bytes_total``."""

    tensors: int
    of: int
    bytes_written: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class RegionStats:
    """``inputs`` are the checkpoints read; ``read_bytes[i]`` is what was read of the i-th, and
    ``passes[i]`` that in multiples of the tensors of it that were needed. ``facts`` is what matrix
    kernels told, by the first tensor that each gave."""

    inputs: tuple[Checkpoint, ...]
    read_bytes: tuple[int, ...]
    passes: tuple[float, ...]
    bytes_written: int
    facts: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, "Mapping[str, float]"]
    )

    @property
    def bytes_read(self) -> int:
        """Over all inputs."""
        return sum(self.read_bytes)


def run_region(
    outputs: Sequence[tuple[Operand, ModelWriter]], *, budget_bytes: int | None = None,
    threads: int | None = None, report: Callable[[RegionProgress], None] | None = None,
    watchers: Mapping[ModelWriter, Watcher] | None = None, arrays: Arrays | None = None,
) -> RegionStats:  # fmt: skip
    """Compute every tensor of every output (a step, or a checkpoint that is copied) into its
    writer.

    Results do not depend on ``budget_bytes`` or ``threads`` (as many as processors when None).
    With the ``arrays`` of a device the budget is of its memory (``arrays.budget_bytes`` when None);
    results are within a few units of float32 of the host's before they are rounded, and masks are
    equal.
    Tensors that a writer has already are left; a writer's watcher sees the blocks of the others.
    The caller finishes the writers. Raises RecipeError: E0620 (infinities or NaN), E0621, E0735 (an
    input changed), E0851, E0852 (the disk); WrongNumbers where the device's are.
    """
    memory.keep()
    memo: Memo = {}
    jobs = [job for operand, writer in outputs for job in _jobs(operand, writer, memo)]
    watchers, arrays = watchers or {}, arrays or host()
    for watcher in watchers.values():
        watcher.begin(memo)
    budget = arrays.budget_bytes if budget_bytes is None else budget_bytes
    run = _Run(jobs, budget, report, watchers, arrays)
    workers = threads or max(processors(), DEVICE_WORKERS if arrays.whole else 1)
    run.take_model_statistics(memo, workers)
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="weights") as pool:
            for future in [pool.submit(run.work) for _ in range(workers)]:
                future.result()
    finally:
        memory.give_back()
    return run.stats()


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Tensors that one worker computes: one, or all the results of one matrix kernel."""

    tensors: tuple[tuple[str, Source], ...]
    writer: ModelWriter

    @property
    def source(self) -> Source:
        """The first of them; the others are read from the same tensors."""
        return self.tensors[0][1]

    @property
    def bytes(self) -> int:
        return sum(source.info.bytes for _, source in self.tensors)


def _jobs(operand: Operand, writer: ModelWriter, memo: Memo) -> Iterator[_Job]:
    """What the writer has not yet, in its order."""
    missing = [
        (name, source_of(operand, name, memo))
        for name in writer.tensors
        if not writer.finished(name)
    ]
    for _, tensors in groupby(missing, key=lambda item: _shared(*item)):
        yield _Job(tuple(tensors), writer)


def _shared(name: str, source: Source) -> object:
    """What tells the tensors of one job from those of another."""
    if isinstance(source, Combine) and isinstance(source.kernel, MatrixKernel):
        return id(source.kernel)
    return name


class _Run:
    """The shared state of the workers."""

    def __init__(
        self, jobs: list[_Job], budget: int, report: Callable[[RegionProgress], None] | None,
        watchers: Mapping[ModelWriter, Watcher], arrays: Arrays,
    ) -> None:  # fmt: skip
        self._arrays = arrays
        self._jobs, self._next, self._report, self._watchers = jobs, 0, report, watchers
        self._budget = self._free = budget
        self._condition = threading.Condition()
        self._proof = Proof()
        self._failed = False
        self._done = self._written = 0
        self._total = sum(job.bytes for job in jobs)
        self._tensors = sum(len(job.tensors) for job in jobs)
        self._facts: dict[str, Mapping[str, float]] = {}
        self._read: dict[int, int] = {}
        self._needed: dict[int, dict[str, int]] = {}
        self._inputs: dict[int, Checkpoint] = {}
        self._known: dict[int, Mapping[str, tuple[Kth, ...]]] = {}
        for job in jobs:
            for leaf in _leaves(job.source):
                self._inputs[id(leaf.checkpoint)] = leaf.checkpoint
                self._needed.setdefault(id(leaf.checkpoint), {})[leaf.name] = leaf.info.bytes

    def work(self) -> None:
        """Take jobs until there are none or one has failed."""
        while (job := self._take()) is not None:
            try:
                self._carry_out(job)
            except BaseException:
                with self._condition:
                    self._failed = True
                    self._condition.notify_all()
                raise

    def take_model_statistics(self, memo: Memo, workers: int) -> None:
        """Take the statistics over whole models that kernels ask for, of inner steps first."""
        asking: dict[int, Step] = {}
        for job in self._jobs:
            for node in walk(job.source):
                if isinstance(node, Combine) and asks_for_model(node) and node.step is not None:
                    asking[id(node.step)] = node.step
        for step in sorted(asking.values(), key=_depth):
            nodes = {name: source_of(step, name, memo) for name in step.tensors}
            wanted = {
                n: s for n, s in nodes.items() if isinstance(s, Combine) and asks_for_model(s)
            }
            self._known[id(step)] = thresholds(
                wanted, self._read_leaf, self._known, workers=workers
            )

    def stats(self) -> RegionStats:
        keys = list(self._inputs)
        read = tuple(self._read.get(key, 0) for key in keys)
        needed = [max(1, sum(self._needed[key].values())) for key in keys]
        passes = tuple(r / n for r, n in zip(read, needed, strict=True))
        return RegionStats(tuple(self._inputs.values()), read, passes, self._written, self._facts)

    def _take(self) -> _Job | None:
        with self._condition:
            if self._failed or self._next == len(self._jobs):
                return None
            self._next += 1
            return self._jobs[self._next - 1]

    def _carry_out(self, job: _Job) -> None:
        arrays, need, working = self._place(job.source)
        host_beside = self._arrays.whole and not arrays.whole
        hold = 0 < need <= min(self._budget, BUDGET_BYTES if host_beside else need)
        reserved = self._reserve(need if hold else min(working, self._budget))
        try:
            sources = [source for _, source in job.tensors]
            evaluate = partial(Evaluation, sources, self._read_leaf, hold=hold, known=self._known)
            # tensors are brought within: in the thread's stream and its types
            with arrays.computing(), closing(evaluate(arrays=arrays)) as evaluation:
                for name, source in job.tensors:
                    watcher = self._watchers.get(job.writer)
                    watch = watcher.tensor(name, source) if watcher else None
                    made = evaluation.blocks(source, watch)
                    if not arrays.proven and self._proof.asks(source):
                        made = held_to(name, made, self._on_host(source))
                    for block, values in made:
                        job.writer.write(name, block.start, values)
                        if self._failed:
                            return
        finally:
            self._reserve(-reserved)
        for leaf in _leaves(job.source):
            leaf.checkpoint.release(leaf.name)
        with self._condition:
            self._done += len(job.tensors)
            self._written += job.bytes
            if evaluation.facts:
                self._facts[job.tensors[0][0]] = evaluation.facts
            progress = RegionProgress(self._done, self._tensors, self._written, self._total)
        if self._report is not None:
            self._report(progress)

    def _on_host(self, source: Source) -> Iterator[tuple[Block, NDArray[Any]]]:
        """The same tensor from the host, block by block, so that it needs no budget."""
        evaluation = Evaluation([source], _read, hold=False, known=self._known)
        with closing(evaluation):
            for block, values in evaluation.blocks(source):
                for part in blocks_of(source.info, block.start, block.stop):
                    yield part, values[part.start - block.start : part.stop - block.start]

    def _place(self, source: Source) -> tuple[Arrays, int, int]:
        """Where a tensor is computed, what it needs of the budget to be read once, and what in any
        case."""
        if self._arrays.whole and runs_on_device(source):
            need = device_bytes(source)
            if need <= self._budget:
                return self._arrays, need, need
        working = working_bytes(source)
        arrays = host() if self._arrays.whole else self._arrays
        return arrays, held_bytes(source) + working if needs_statistics(source) else 0, working

    def _reserve(self, count: int) -> int:
        """Take memory from the budget, waiting for it (a negative count gives it back)."""
        with self._condition:
            while count > self._free and not self._failed:
                self._condition.wait()
            self._free -= count
            self._condition.notify_all()
        return count

    def _read_leaf(self, leaf: Leaf, start: int, stop: int) -> NDArray[Any]:
        values = leaf.checkpoint.read(leaf.name, start, stop)
        key = id(leaf.checkpoint)
        with self._condition:
            self._read[key] = self._read.get(key, 0) + values.nbytes
        return values


def _read(leaf: Leaf, start: int, stop: int) -> NDArray[Any]:
    return leaf.checkpoint.read(leaf.name, start, stop)


def _depth(step: Step) -> int:
    """How many steps stand below one another under this one."""
    below = [o for operands in step.operands.values() for o in operands if isinstance(o, Step)]
    return 1 + max((_depth(one) for one in below), default=0)


def _leaves(source: Source) -> Iterator[Leaf]:
    for node in walk(source):
        if isinstance(node, Leaf):
            yield node
