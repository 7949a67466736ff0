"""The training loop on torch.

One optimiser step: the whole batch, cut into micro-batches; for each the forward pass, then the
head and the objective at the supervised positions only, chunk by chunk; one division; clip; AdamW.
The chunks' gradients meet in the hidden states, so logits of more than a chunk never exist.

Example:
    >>> trained = run(job, print, torch.device("cpu"))  # doctest: +SKIP
    >>> trained.history[-1].loss                        # doctest: +SKIP
    1.93
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipelang import memory
from recipelang.backend import Progress, Trained, TrainingJob
from recipelang.data.batch import Batch
from recipelang.diagnostics import fault
from recipelang.objectives import Positions, Term, resolve
from recipelang.store.training_state import read_state, write_state
from recipelang.types import TensorInfo
from recipelang_torch import adapters, decode, models, shard
from recipelang_torch.arrays import XP, from_numpy, to_numpy, wide
from recipelang_torch.models import Decoder
from recipelang_torch.optimizer import AdamW

__all__ = ["run"]


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same over the steps."""

    job: TrainingJob
    model: Decoder
    teachers: tuple[Decoder, ...]
    terms: tuple[Term, ...]
    dropout: adapters.Dropout
    optimizer: AdamW
    weights: dict[str, torch.nn.Parameter]
    """The trained parameters inside the model; a master may be one of them or its float32
    original."""


@dataclass(frozen=True, eq=False)
class _Micro:
    """A micro-batch on the device. ``index`` (n,): the places of the supervised positions in its
    flattened hidden states; ``positions`` describes their targets."""

    given: models.Inputs
    index: torch.Tensor
    positions: Positions


def run(job: TrainingJob, report: Callable[[Progress], None], device: torch.device) -> Trained:
    """Carry the job out, from its checkpoint if there is one.

    Raises RecipeError E0803, E0804, E0806, E0851, E0852, E07.
    """
    try:
        with shard.repeatable(device):
            return _train(job, report, device)
    except torch.OutOfMemoryError as reason:
        raise fault(
            "E0806", "the device ran out of memory in training",
            help="shorten `length`, or set `micro_batch` or `recompute`",
        ) from reason  # fmt: skip
    finally:
        memory.give_back()


def _train(job: TrainingJob, report: Callable[[Progress], None], device: torch.device) -> Trained:
    """The steps that are left to do. A step is evaluated before it is saved, so that a run killed
    between the two evaluates it again rather than never."""
    prepared = _prepare(job, device)
    history = _resume(prepared)
    written = time.monotonic()
    for step in range(len(history), job.steps):
        batch = job.batch(step)
        loss, divisor = _accumulate(prepared, batch, step)
        norm = prepared.optimizer.step(job.lr[step], divisor)
        _publish_masters(prepared)
        tokens = (history[-1].tokens if history else 0) + int((batch.segments > 0).sum())
        history.append(Progress(step + 1, job.steps, loss, norm, job.lr[step], tokens))
        report(history[-1])
        if job.evaluate is not None and step + 1 in job.evaluate_at:
            job.evaluate(
                step + 1, lambda part: decode.score(prepared.model, part).astype(np.float32)
            )
        if job.checkpoint is not None and time.monotonic() - written >= job.checkpoint_seconds:
            saved = {name: to_numpy(t) for name, t in prepared.optimizer.tensors().items()}
            write_state(job.checkpoint, "torch", saved, history)
            written = time.monotonic()
    masters = prepared.optimizer.masters
    return Trained({name: to_numpy(master) for name, master in masters.items()}, tuple(history))


def _prepare(job: TrainingJob, device: torch.device) -> _Run:
    """Models in memory, adapters or masters in place."""
    model = models.load(job.model, job.precision, device)
    teachers = tuple(models.load(teacher, job.precision, device) for teacher in job.teachers)
    dropout = adapters.Dropout()
    if job.adapter is not None:
        dropout.probability, dropout.draws = job.adapter.dropout, job.draws
        weights = adapters.attach(model.module, job.adapter, dropout)
        masters: dict[str, torch.Tensor] = dict(weights)
    else:
        weights, masters = _full(job, model)
    if job.recompute:
        _enable_recompute(model.module)
    for teacher in teachers:
        teacher.module.requires_grad_(False)
    terms = resolve(job.objective)
    return _Run(job, model, teachers, terms, dropout, AdamW(masters, job.optimizer), weights)


def _enable_recompute(module: Any) -> None:
    """Keep only the layers' inputs and compute the rest again in the backward pass."""
    enable = getattr(module, "activation_checkpointing_enable", None)
    if enable is None:  # before transformers 5.23
        enable = module.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    module.train()  # transformers asks for it; every dropout of the configuration is off


def _full(
    job: TrainingJob, model: Decoder
) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.Tensor]]:
    """The trained parameters and their masters: themselves in float32 or float64, else float32
    originals."""
    model.module.requires_grad_(False)
    named = model.named_weights()
    weights: dict[str, torch.nn.Parameter] = {}
    masters: dict[str, torch.Tensor] = {}
    for name in sorted(job.trainable):
        if name not in named:
            raise models.refused(f"how to train `{name}`, which its class holds under another name")
        weight = named[name]
        weight.requires_grad_(True)
        weights[name] = weight
        if weight.dtype == wide(weight.dtype):
            masters[name] = weight
            continue
        original = from_numpy(job.model.read(name).reshape(tuple(weight.shape)), weight.device)
        masters[name] = original.to(wide(weight.dtype))
        weight.register_post_accumulate_grad_hook(_collector(masters[name]))
    return weights, masters


def _collector(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    """Moves a rounded parameter's gradient to its master, so that micro-batches add up in
    float32."""

    def collect(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        if master.grad is None:
            master.grad = weight.grad.to(master.dtype)
        else:
            master.grad.add_(weight.grad)
        weight.grad = None

    return collect


@torch.no_grad()
def _publish_masters(run: _Run) -> None:
    """Round the updated masters into the model."""
    for name, master in run.optimizer.masters.items():
        if run.weights[name] is not master:
            run.weights[name].copy_(master)


def _resume(run: _Run) -> list[Progress]:
    """Restore the state of the job's folder if there is one; gives the history up to it."""
    if run.job.checkpoint is None:
        return []
    expected = {
        name: TensorInfo("F64" if t.dtype == torch.float64 else "F32", tuple(t.shape))
        for name, t in run.optimizer.tensors().items()
    }
    found = read_state(run.job.checkpoint, "torch", expected)
    if found is None:
        return []
    tensors, history = found
    run.optimizer.restore({n: torch.from_numpy(t) for n, t in tensors.items()}, len(history))
    _publish_masters(run)
    return list(history)


def _accumulate(run: _Run, batch: Batch, step: int) -> tuple[float, float]:
    """Fill the masters' gradients for a whole step; gives the loss, and what the gradients are to
    be divided by (they belong to ``loss * divisor``: large sums survive narrow types, means do
    not)."""
    counts = [term.objective.count(batch) for term in run.terms]
    divisor = max([1.0, *counts])
    scales = [t.weight * divisor / n if n else 0.0 for t, n in zip(run.terms, counts, strict=True)]
    statistics = _statistics(run, batch, step)
    total = torch.zeros((), dtype=torch.float64, device=run.model.device)
    for micro in _micro_batches(run, batch, step):
        hidden = run.model.hidden(micro.given)
        chosen = hidden.reshape(-1, hidden.shape[-1])[micro.index]
        leaf = chosen.detach().requires_grad_(True)
        taught = _teach(run, micro)
        for part in _chunks(run, micro):
            positions = Positions(*(x[part] for x in micro.positions))
            logits = run.model.logits(leaf[part])
            given = tuple(
                _teacher_logits(t, h, part) for t, h in zip(run.teachers, taught, strict=True)
            )
            summed = torch.zeros((), dtype=logits.dtype, device=logits.device)
            for term, scale, known in zip(run.terms, scales, statistics, strict=True):
                summed = summed + scale * _call(term, positions, logits, given, known)
            total += summed.detach()
            summed.backward()
        if leaf.grad is not None and chosen.requires_grad:
            chosen.backward(leaf.grad)
    run.dropout.rows = None
    return float(total) / divisor, divisor


def _call(term: Term, positions: Positions, logits: Any, teachers: Any, statistics: Any) -> Any:
    given = teachers if term.objective.needs_teacher else ()
    return term.objective.terms(XP, positions, logits, given, statistics, **term.parameters)


@torch.no_grad()
def _statistics(run: _Run, batch: Batch, step: int) -> list[dict[str, Any] | None]:
    """The sums over the whole step that some objectives ask for, one entry a term."""
    totals: list[dict[str, Any] | None] = [None] * len(run.terms)
    wanted = [i for i, term in enumerate(run.terms) if term.objective.statistics is not None]
    for micro in _micro_batches(run, batch, step) if wanted else ():
        hidden = run.model.hidden(micro.given)
        chosen = hidden.reshape(-1, hidden.shape[-1])[micro.index]
        taught = _teach(run, micro)
        for part in _chunks(run, micro):
            positions = Positions(*(x[part] for x in micro.positions))
            given = tuple(
                _teacher_logits(t, h, part) for t, h in zip(run.teachers, taught, strict=True)
            )
            for i in wanted:
                term = run.terms[i]
                assert term.objective.statistics is not None
                sums = term.objective.statistics(
                    XP, positions, run.model.logits(chosen[part]), given, **term.parameters
                )
                before = totals[i] or {}
                totals[i] = {key: before.get(key, 0.0) + value for key, value in sums.items()}
    return totals


@torch.no_grad()
def _teach(run: _Run, micro: _Micro) -> list[torch.Tensor]:
    """The teachers' hidden states at the supervised positions."""
    states = [teacher.hidden(micro.given) for teacher in run.teachers]
    return [hidden.reshape(-1, hidden.shape[-1])[micro.index] for hidden in states]


@torch.no_grad()
def _teacher_logits(teacher: Decoder, hidden: torch.Tensor, part: slice) -> torch.Tensor:
    return teacher.logits(hidden[part])


def _micro_batches(run: _Run, batch: Batch, step: int) -> Iterator[_Micro]:
    """The step's rows, some at a time; micro-batches without a supervised position are left out."""
    size = run.job.micro_batch or shard.rows_at_once(
        run.model, batch.tokens.shape[1], bool(run.job.recompute)
    )
    for start in range(0, batch.rows, size):
        part = batch.take(start, start + size)
        rows, columns = np.nonzero(part.supervised)
        if len(rows) == 0:
            continue
        run.dropout.step = step
        run.dropout.rows = _tensor(np.arange(start, start + part.rows), run.model)
        positions = Positions(
            _tensor(part.tokens[rows, columns], run.model),
            torch.ones(len(rows), dtype=wide(run.model.dtype), device=run.model.device),
            _tensor(rows + start, run.model),
        )
        index = _tensor(rows * part.tokens.shape[1] + columns - 1, run.model)
        yield _Micro(models.inputs(part, run.model.device), index, positions)


def _tensor(values: NDArray[Any], model: Decoder) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(model.device)


def _chunks(run: _Run, micro: _Micro) -> list[slice]:
    """Slices of the supervised positions whose logits are made at once."""
    count = len(micro.index)
    whole = any(term.objective.unit == "sequence" for term in run.terms)
    size = count if whole else shard.positions_at_once(run.model)
    return [slice(start, start + size) for start in range(0, count, size)]
