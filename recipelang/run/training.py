"""A training step: from a node and its inputs to a job for a backend, and from the result to an
artifact.

Everything that has meaning is decided here, once for all backends: the tokens and their order, the
rates, what is trained, the initial adapters. The backend does the arithmetic.

Example:
    >>> manifest = train(node, inputs, draws="00", backend=backend, checkpoint_folder=None,
    ...                  report=print, store=store)  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipelang.backend import AdapterPlan, Backend, OptimizerPlan, TrainingJob
from recipelang.data import draws as host_draws
from recipelang.data.batch import Batch
from recipelang.data.encoder import Encoder, encoder_of, token_bytes
from recipelang.data.order import rows_at, rows_in, steps_of
from recipelang.data.packing import Packed, pack
from recipelang.diagnostics.diagnostic import fault
from recipelang.ir.graph import Node
from recipelang.objectives import resolve
from recipelang.ops.train._rules import supervised_by
from recipelang.ops.train._select import adapted, trained
from recipelang.run.data import Rows
from recipelang.run.outcome import adapted_model, number, scale_of, whole_model
from recipelang.run.reports import (
    Evaluated,
    Facts,
    Report,
    Summary,
    read_evaluations,
    sample_of,
    write_evaluations,
)
from recipelang.run.schedules import learning_rates, settings
from recipelang.run.scoring import windows_of
from recipelang.run.values import ModelValue, RuntimeValue
from recipelang.store.artifact import Manifest
from recipelang.store.store import Store
from recipelang.types import DTYPE_NAMES
from recipelang.values import Attr, Form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["make_job", "row_length", "train"]

LENGTH = 1024
"""Tokens of a row where neither the step nor the dataset names a length."""
RATES = {False: 2e-5, True: 2e-4}
"""The default peak rate, without and with an adapter."""


def train(
    node: Node,
    inputs: Mapping[str, tuple[RuntimeValue, ...]],
    *,
    draws: str | None,
    backend: Backend,
    checkpoint_folder: Path | None,
    report: Report,
    store: Store,
) -> Manifest:
    """Carry out `finetune` or `distill`; the tensors are in the store when it returns.

    ``draws`` is the step's draw key. ``report`` gets first the :class:`Facts` of the data, then a
    :class:`~recipelang.backend.Progress` a step and an :class:`Evaluated` an evaluation, last the
    :class:`Summary`. Raises RecipeError of the bands E06 to E08.
    """
    student = _model(inputs, "into" if node.op == "distill" else "model")
    job, facts, packed = make_job(node, inputs, draws or "", backend, checkpoint_folder)
    report(facts)
    evaluations: dict[int, Evaluated] = {}
    job = _with_evaluation(node, inputs, job, packed[1], evaluations, report, draws or "")
    found = backend.train(job, report)
    report(Summary(facts, found.history, tuple(evaluations[s] for s in sorted(evaluations))))
    form = node.attr("adapter")
    if isinstance(form, Form):
        return adapted_model(store, student, found, form)
    return whole_model(store, student, found, job.trainable)


def make_job(
    node: Node,
    inputs: Mapping[str, tuple[RuntimeValue, ...]],
    draws: str,
    backend: Backend,
    checkpoint: Path | None = None,
) -> tuple[TrainingJob, Facts, tuple[Packed, Encoder]]:
    """The job of a node; pure, but for reading the data. See :func:`train`."""
    student = _model(inputs, "into" if node.op == "distill" else "model")
    data = _data(inputs, "data")
    encoder = encoder_of(student.checkpoint.files, student.checkpoint.config, data.template)
    packed = _packed(node, data, encoder, student, backend)
    steps, total = _steps(node, packed.rows)
    batch, form = _int(node, "batch"), node.attr("adapter")
    peak = node.attr("lr")
    schedule = node.attr("schedule")
    assert isinstance(schedule, Form)
    rate = float(peak) if isinstance(peak, int | float) else RATES[isinstance(form, Form)]

    def batch_at(step: int) -> Batch:
        return packed.batch(rows_at(draws, rows=packed.rows, batch=batch, step=step, total=total))

    precision = node.attr("precision")
    seconds = _setting(node, "checkpoint")
    micro, recompute = _setting(node, "micro_batch"), _setting(node, "recompute")
    job = TrainingJob(
        model=student.checkpoint,
        objective=_objective(node),
        batch=batch_at,
        steps=steps,
        lr=learning_rates(schedule, rate, steps),
        optimizer=_optimizer(node),
        precision=precision_of(precision, student),
        trainable=_trainable(node, student),
        adapter=_adapter(form, student, draws) if isinstance(form, Form) else None,
        teachers=tuple(
            v.checkpoint for v in inputs.get("teachers", ()) if isinstance(v, ModelValue)
        ),
        micro_batch=micro if isinstance(micro, int) else None,
        recompute=recompute if isinstance(recompute, bool) else None,
        checkpoint=checkpoint,
        checkpoint_seconds=float(seconds) if isinstance(seconds, int | float) else 600.0,
        draws=draws,
    )
    facts = Facts(packed.documents.rows, packed.counts, steps, sample_of(batch_at(0), encoder))
    return job, facts, (packed, encoder)


# ---------------------------------------------------------------- what goes in


def _model(inputs: Mapping[str, tuple[RuntimeValue, ...]], role: str) -> ModelValue:
    found = inputs[role][0]
    assert isinstance(found, ModelValue)
    return found


def _data(inputs: Mapping[str, tuple[RuntimeValue, ...]], role: str) -> Rows:
    found = inputs[role][0]
    assert isinstance(found, Rows)
    return found


def _setting(node: Node, name: str) -> Attr:
    """A field that does not change the meaning, wherever it is kept."""
    found = node.hint(name)
    return node.attr(name) if found is None else found


def _int(node: Node, name: str) -> int:
    value = node.attr(name)
    assert isinstance(value, int)
    return value


def precision_of(field: Attr, model: ModelValue) -> Any:
    """The safetensors name of the precision: the field's, else that of most parameters."""
    if isinstance(field, str):
        return DTYPE_NAMES[field]
    sizes: dict[str, int] = {}
    for info in model.checkpoint.tensors.values():
        if info.dtype in DTYPE_NAMES.values():
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.elements
    return max(sorted(sizes), key=lambda name: sizes[name])


def row_length(node: Node, data: Rows) -> int:
    """Tokens of a row: the step's, else the dataset's, else 1,024."""
    length = node.attr("length")
    return length if isinstance(length, int) else (data.length or LENGTH)


def _packed(
    node: Node, data: Rows, encoder: Encoder, student: ModelValue, backend: Backend
) -> Packed:
    packing = bool(node.attr("packing", True))
    config = student.checkpoint.config
    if packing and not backend.isolates_documents(config):
        raise fault(
            "E0841",
            f"`{config.get('model_type')}` does not keep packed documents apart",
            help="train one document a row: `packing = false`",
        )
    supervise = supervised_by(data.format, node.attr("supervise"))
    documents = data.documents(encoder, supervise)
    overflow = str(node.attr("overflow", "cut"))
    return pack(documents, row_length(node, data), packing=packing, overflow=overflow)


def _steps(node: Node, rows: int) -> tuple[int, int | None]:
    """Optimiser steps, and the rows seen in all where passes were asked for."""
    steps, epochs = node.attr("steps"), node.attr("epochs")
    if isinstance(steps, int):
        return steps, None
    passes = float(epochs) if isinstance(epochs, int | float) else 1.0
    return steps_of(rows, _int(node, "batch"), passes), rows_in(rows, passes)


def _objective(node: Node) -> Form:
    """The objective with the step's temperature in every term that has one and sets none."""
    form, temperature = node.attr("objective"), node.attr("temperature")
    if not isinstance(form, Form):
        return Form("cross_entropy")
    return _tempered(form, temperature) if isinstance(temperature, int | float) else form


def _tempered(form: Form, temperature: float) -> Form:
    if form.name in ("sum", "term"):
        return Form(
            form.name,
            tuple(
                (name, _tempered(arg, temperature) if isinstance(arg, Form) else arg)
                for name, arg in form.args
            ),
        )
    accepted = inspect.signature(resolve(form)[0].objective.terms).parameters
    if "temperature" not in accepted or form.get("temperature") is not None:
        return form
    return Form(form.name, (*form.args, ("temperature", temperature)))


def _optimizer(node: Node) -> OptimizerPlan:
    form = node.attr("optimizer")
    assert isinstance(form, Form)
    given = settings(form)
    decay, clip = node.attr("weight_decay", 0.0), node.attr("clip", 1.0)
    numbers = {k: float(v) for k, v in given.items() if isinstance(v, int | float)}
    return OptimizerPlan(
        **numbers,
        weight_decay=float(decay) if isinstance(decay, int | float) else 0.0,
        clip=float(clip) if isinstance(clip, int | float) else None,
    )


def _texts(value: Attr) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


def _trainable(node: Node, student: ModelValue) -> frozenset[str]:
    if isinstance(node.attr("adapter"), Form):
        return frozenset()
    train, freeze = _texts(node.attr("train", ("all",))), _texts(node.attr("freeze", ()))
    found = frozenset(trained(student.checkpoint.tensors, train, freeze))
    if not found:
        raise fault("E0563", "nothing is left to train", help="freeze less, or train more")
    return found


def _adapter(form: Form, student: ModelValue, draws: str) -> AdapterPlan:
    """A ~ U(-1/sqrt(in), 1/sqrt(in)), keyed by the draws and the tensor's name; B = 0 (arXiv
    2106.09685).
    """
    import numpy as np

    given, tensors = settings(form), student.checkpoint.tensors
    rank, dropout = int(number(given, "rank")), number(given, "dropout")
    names = adapted(tensors, _texts(given["targets"]))
    if not names:
        raise fault(
            "E0562",
            "no linear layer of the model matches the adapter's targets",
            help="write `targets = all-linear`",
        )
    initial: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for name in names:
        out, inner = tensors[name].shape
        drawn = host_draws.uniform(draws, f"lora {name}", 0, rank * inner)
        a = ((2 * drawn - 1) / sqrt(inner)).astype(np.float32).reshape(rank, inner)
        initial[name] = (a, np.zeros((out, rank), np.float32))
    return AdapterPlan(initial, scale_of(given), dropout)


def _with_evaluation(
    node: Node,
    inputs: Mapping[str, tuple[RuntimeValue, ...]],
    job: TrainingJob,
    encoder: Encoder,
    found: dict[int, Evaluated],
    report: Report,
    draws: str,
) -> TrainingJob:
    """The job with its evaluations on `over`; those of an interrupted run are read back."""
    if not inputs.get("over"):
        return job
    data, every = _data(inputs, "over"), node.attr("every")
    wide = data.length or (node.attr("length") or LENGTH)
    assert isinstance(wide, int)
    scored = windows_of(
        replace_template(encoder, data),
        data,
        wide,
        supervised_by(data.format, node.attr("supervise")),
    )
    sizes = token_bytes(encoder.tokenizer)
    log = job.checkpoint / "evaluations.jsonl" if job.checkpoint else None
    found |= read_evaluations(log) if log else {}

    def evaluate(step: int, score: Callable[[Batch], NDArray[np.float32]]) -> None:
        scores = scored.score(score, sizes)
        row = found[step] = Evaluated(step, scores.loss, scores.bits_per_byte)
        report(row)
        if log:
            write_evaluations(log, found)

    steps = {job.steps, *(range(every, job.steps, every) if isinstance(every, int) else ())}
    return replace(job, evaluate=evaluate, evaluate_at=frozenset(steps))


def replace_template(encoder: Encoder, data: Rows) -> Encoder:
    """The encoder with the dataset's own chat template, where it has one."""
    return replace(encoder, template=data.template) if data.template is not None else encoder
