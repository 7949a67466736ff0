"""The training loop: accumulate sums, divide once, clip, AdamW, schedule, checkpoint, resume.

A step's gradient is the gradient of the sum over its micro-batches of each term's numerator, with
the terms brought to one denominator first, divided once by the whole step's count; so a split of
the batch never changes it beyond rounding. Masters, moments and sums are float32 (float64 at F64).
Everything that is random comes with the job; the loop is a pure function of it, and its checkpoint
holds all of its state, so a resumed run has the bits of an undisturbed one.

Example:
    >>> trained = run(Placement.all_devices(), job, report=print)
    >>> trained.history[-1].loss
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from recipelang.backend import OptimizerPlan, Progress, Trained, TrainingJob
from recipelang.data.batch import Batch
from recipelang.objectives import Objective, Term, resolve
from recipelang.store.training_state import read_state, write_state
from recipelang.types import TensorInfo
from recipelang.values import Attr
from recipelang_jax import adapters, state
from recipelang_jax.arrays import Arithmetic, Array, Tree, scoped
from recipelang_jax.decode import score_batch
from recipelang_jax.losses import (
    Data,
    Layout,
    Scorer,
    chunk_size,
    gradients,
    length_bucket,
    prepare,
    totals,
)
from recipelang_jax.models import EMBEDDING, HEAD, Decoder, read_params, unstack_params
from recipelang_jax.shard import Placement
from recipelang_jax.spec import expected_tensors, make_spec

__all__ = ["run"]


@dataclass(frozen=True, eq=False)
class _Parts:
    """A job on its devices: the student's frozen half, the teachers, and the terms of the
    objective."""

    placement: Placement
    job: TrainingJob
    terms: tuple[Term, ...]
    shape: _Shape
    frozen: Tree
    teachers: list[Tree]
    chosen: Tree
    """Per leaf of the trained tree: True, or which of its stacked layers are trained (L, 1,
    ...)."""

    def layout(self, batch: Batch) -> Layout:
        """The micro-batch sizes for a batch."""
        rows = min(self.job.micro_batch or batch.rows, batch.rows)
        rows = math.ceil(rows / self.placement.devices) * self.placement.devices
        length = length_bucket(batch.tokens.shape[1])
        places = rows * max(length - 1, 1)
        whole = any(term.objective.unit == "sequence" for term in self.terms)
        return Layout(
            rows,
            length,
            places if whole else chunk_size(self.shape.decoder.spec.vocabulary, places),
        )


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the programs of a job are compiled for; equal jobs but for data and rates share them."""

    decoder: Decoder
    teachers: tuple[Decoder, ...]
    terms: tuple[tuple[Objective, tuple[tuple[str, Attr], ...]], ...]
    optimizer: OptimizerPlan
    adapted: bool
    head_trained: bool

    def student(self, trained: Tree, frozen: Tree, keys: Tree = None) -> Scorer:
        """The model with these trained values."""
        if self.adapted:
            return Scorer(self.decoder, frozen, trained, keys)
        return Scorer(self.decoder, _merge(frozen, trained))


class _Programs(NamedTuple):
    """The compiled functions of a job."""

    accumulate: Callable[..., tuple[Tree, Array]]
    totals: Callable[..., list[Tree]]
    update: Callable[..., tuple[Tree, Tree, Tree, Array]]


@dataclass(slots=True)
class _Run:
    """The state of a run after ``step`` steps: what a checkpoint holds."""

    trained: Tree
    first: Tree
    second: Tree
    step: int = 0
    tokens: int = 0
    history: list[Progress] = field(default_factory=list[Progress])


def run(placement: Placement, job: TrainingJob, report: Callable[[Progress], None]) -> Trained:
    """Carry out a job; see :class:`recipelang.backend.TrainingJob`. Calls ``report`` after each
    step."""
    with scoped(job.precision):
        parts, trained = _build(placement, job)
        programs = _compile(parts.shape)
        now = _Run(trained, _zeros(placement, trained), _zeros(placement, trained))
        if job.checkpoint is not None:
            _restore(now, placement, job)
        saved = time.monotonic()
        while now.step < job.steps:
            progress = _step(now, parts, programs)
            if job.checkpoint is not None and time.monotonic() - saved >= job.checkpoint_seconds:
                _save(now, job)
                saved = time.monotonic()
            report(progress)
            if job.evaluate is not None and progress.step in job.evaluate_at:
                job.evaluate(progress.step, partial(_score, parts, now.trained))
        return Trained(_result(job, now.trained), tuple(now.history))


def _build(placement: Placement, job: TrainingJob) -> tuple[_Parts, Tree]:
    """Bring the models to the devices; gives the parts and the initial trained tree."""
    arithmetic = Arithmetic(job.precision, jax.default_backend())
    master = np.dtype(arithmetic.dtype)
    adapter = job.adapter
    spec = make_spec(job.model.config)
    decoder = Decoder(
        spec, arithmetic, recompute=job.recompute,
        lora_scale=adapter.scale if adapter else 1.0, dropout=adapter.dropout if adapter else 0.0,
        constrain=placement.constrain if placement.mesh is not None else None,
    )  # fmt: skip
    params = read_params(job.model, spec)
    if adapter is not None:
        adapters.check(adapter.initial, expected_tensors(spec))
        trained, frozen = adapters.stack(adapter.initial, spec.layers, master), params
        chosen: Tree = jax.tree.map(lambda _: np.True_, trained)
    else:
        trained, frozen = _split(params, job.trainable)
        trained = jax.tree.map(lambda leaf: leaf.astype(master), trained)
        chosen = _chosen(trained, job.trainable)
    terms = resolve(job.objective)
    shape = _Shape(
        decoder, tuple(Decoder(make_spec(model.config), arithmetic) for model in job.teachers),
        tuple((term.objective, tuple(sorted(term.parameters.items()))) for term in terms),
        job.optimizer, adapter is not None,
        adapter is None and (EMBEDDING if spec.tied else HEAD) in job.trainable,
    )  # fmt: skip
    teachers = [
        placement.weights(read_params(model, decoder.spec))
        for model, decoder in zip(job.teachers, shape.teachers, strict=True)
    ]
    parts = _Parts(placement, job, terms, shape, placement.weights(frozen), teachers, chosen)
    return parts, placement.weights(trained)


def _split(params: Tree, trainable: frozenset[str]) -> tuple[Tree, Tree]:
    """The trained and the frozen half; a stack with any trained layer is in the trained half
    whole."""
    inner = {adapters.split_name(name)[1] for name in trainable}
    taken = {k: v for k, v in params.items() if k != "layers" and k in trainable}
    taken["layers"] = {k: v for k, v in params["layers"].items() if k in inner}
    rest = {k: v for k, v in params.items() if k != "layers" and k not in trainable}
    rest["layers"] = {k: v for k, v in params["layers"].items() if k not in inner}
    return taken, rest


def _chosen(trained: Tree, trainable: frozenset[str]) -> Tree:
    chosen: dict[str, Any] = {name: np.True_ for name in trained if name != "layers"}
    chosen["layers"] = {}
    for inner, stack in trained["layers"].items():
        layers = [f"model.layers.{i}.{inner}" in trainable for i in range(stack.shape[0])]
        shape = (-1,) + (1,) * (stack.ndim - 1)
        chosen["layers"][inner] = np.array(layers).reshape(shape)
    return chosen


def _merge(first: Tree, second: Tree) -> Tree:
    return {**first, **second, "layers": {**first["layers"], **second["layers"]}}


def _zeros(placement: Placement, tree: Tree) -> Tree:
    """Zeros like a tree; made on the host, because each shape's ``jnp.zeros`` is a compilation of
    its own."""
    return placement.weights(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree))


@lru_cache(maxsize=8)
def _compile(shape: _Shape) -> _Programs:
    """The three programs of a job; weights are arguments, so that they are not constants."""
    terms = [Term(1.0, objective, dict(parameters)) for objective, parameters in shape.terms]

    def teachers(taught: Sequence[Tree]) -> list[Scorer]:
        return [Scorer(*pair) for pair in zip(shape.teachers, taught, strict=True)]

    @partial(jax.jit, donate_argnums=0)
    def accumulate(
        sums: Tree, trained: Tree, frozen: Tree, taught: Sequence[Tree], data: Data, keys: Tree,
        statistics: list[Tree], weights: Array,
    ) -> tuple[Tree, Array]:  # fmt: skip
        gradient, values = gradients(
            lambda trained: shape.student(trained, frozen, keys), trained, teachers(taught), data,
            terms, statistics, weights, shape.head_trained,
        )  # fmt: skip
        return jax.tree.map(jnp.add, sums, gradient), values

    @jax.jit
    def statistics(
        trained: Tree, frozen: Tree, taught: Sequence[Tree], data: Data, keys: Tree
    ) -> list[Tree]:
        return totals(shape.student(trained, frozen, keys), teachers(taught), data, terms)

    update = jax.jit(partial(_update, shape.optimizer, shape.adapted), donate_argnums=(1, 2, 3))
    return _Programs(accumulate, statistics, update)


def _update(
    plan: OptimizerPlan, adapted: bool, chosen: Tree, trained: Tree, first: Tree, second: Tree,
    sums: Tree, count: Array, lr: Array, corrections: Array,
) -> tuple[Tree, Tree, Tree, Array]:  # fmt: skip
    """Divide, clip, AdamW (see OptimizerPlan). ``corrections``: 1 - beta1^t and 1 - beta2^t."""
    gradient = jax.tree.map(lambda g, on: jnp.where(on, g / count, 0), sums, chosen)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient)))
    if plan.clip is not None:
        factor = jnp.minimum(1.0, plan.clip / (norm + 1e-6))
        gradient = jax.tree.map(lambda g: g * factor, gradient)
    first = jax.tree.map(lambda m, g: plan.beta1 * m + (1 - plan.beta1) * g, first, gradient)
    second = jax.tree.map(lambda v, g: plan.beta2 * v + (1 - plan.beta2) * g * g, second, gradient)

    def move(path: tuple[Any, ...], w: Array, m: Array, v: Array, on: Array) -> Array:
        change = (m / corrections[0]) / (jnp.sqrt(v / corrections[1]) + plan.eps)
        matrix = w.ndim >= (3 if path[0].key == "layers" else 2)  # stacking added an axis
        if plan.weight_decay and (adapted or matrix):
            change = change + plan.weight_decay * w
        return jnp.where(on, w - lr * change, w)

    moved = jax.tree_util.tree_map_with_path(move, trained, first, second, chosen)
    return moved, first, second, norm


def _step(now: _Run, parts: _Parts, programs: _Programs) -> Progress:
    """One optimiser step; advances ``now``."""
    job, step, terms = parts.job, now.step, parts.terms
    batch = job.batch(step)
    layout = parts.layout(batch)
    dtype = np.dtype(parts.shape.decoder.arithmetic.dtype)
    keys = None
    if job.adapter is not None and job.adapter.dropout:
        keys = adapters.keys(now.trained, job.draws, step)
    micro = [prepare(batch, start, layout, dtype) for start in range(0, batch.rows, layout.rows)]
    data = [parts.placement.rows(one) for one in micro]

    statistics: list[Tree] = [{} for _ in terms]
    if any(term.objective.statistics is not None for term in terms):
        found = [
            programs.totals(now.trained, parts.frozen, parts.teachers, one, keys) for one in data
        ]
        statistics = jax.tree.map(lambda *sums: sum(sums), *found)

    counts = [term.objective.count(batch) for term in terms]
    common = max(counts[0], 1.0)
    weights = np.array(
        [term.weight * (common / n if n else 0.0) for term, n in zip(terms, counts, strict=True)],
        dtype,
    )
    sums, numerator = _zeros(parts.placement, now.trained), np.zeros(len(terms))
    for one in data:
        sums, values = programs.accumulate(
            sums, now.trained, parts.frozen, parts.teachers, one, keys, statistics, weights
        )
        numerator = numerator + np.asarray(values, np.float64)

    plan, lr = job.optimizer, float(job.lr[step])
    corrections = np.array([1 - plan.beta1 ** (step + 1), 1 - plan.beta2 ** (step + 1)], dtype)
    now.trained, now.first, now.second, norm = programs.update(
        parts.chosen,
        now.trained,
        now.first,
        now.second,
        sums,
        dtype.type(common),
        dtype.type(lr),
        corrections,
    )
    now.step, now.tokens = step + 1, now.tokens + int((batch.segments > 0).sum())
    loss = sum(
        t.weight * v / n for t, v, n in zip(terms, numerator.tolist(), counts, strict=True) if n
    )
    progress = Progress(now.step, job.steps, float(loss), float(norm), lr, now.tokens)
    now.history.append(progress)
    return progress


def _score(parts: _Parts, trained: Tree, batch: Batch) -> NDArray[Any]:
    """Scores with the current weights, as LoadedModel.score gives them."""
    scorer = parts.shape.student(trained, parts.frozen)
    return score_batch(parts.placement, scorer.decoder, scorer.params, scorer.lora, batch)


def _result(job: TrainingJob, trained: Tree) -> Mapping[str, NDArray[Any]]:
    if job.adapter is not None:
        return adapters.unstack(trained, job.adapter.initial)
    return unstack_params(trained, job.trainable)


def _save(now: _Run, job: TrainingJob) -> None:
    assert job.checkpoint is not None
    write_state(job.checkpoint, "jax", state.named(_trees(now)), now.history)


def _trees(now: _Run) -> dict[str, Tree]:
    return {"trained": now.trained, "first": now.first, "second": now.second}


def _restore(now: _Run, placement: Placement, job: TrainingJob) -> None:
    """Go on from the folder's state, if it holds one."""
    assert job.checkpoint is not None
    expected = {
        name: TensorInfo("F64" if leaf.dtype == np.float64 else "F32", leaf.shape)
        for name, leaf in state.named(_trees(now)).items()
    }
    found = read_state(job.checkpoint, "jax", expected)
    if found is None:
        return
    trees = state.shaped(_trees(now), found[0])
    now.trained, now.first, now.second = (
        placement.weights(trees[name]) for name in ("trained", "first", "second")
    )
    now.history = list(found[1])
    now.step, now.tokens = len(now.history), now.history[-1].tokens
