"""What a training step is estimated to take: floating-point operations, memory, bytes.

The figures are estimates from shapes alone; the planner prints them and compares them with what the
machine has. Matrix products cost 2 N operations a token forwards, twice that backwards, so 6 N for
full training and 4 N where the base's weights get no gradient (Kaplan et al. 2020, arXiv
2001.08361).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from recipelang.ops.spec import Cost, Typed
from recipelang.ops.train._select import adapted, trained
from recipelang.types import DTYPE_BYTES, DTYPE_NAMES, DatasetType, ModelType
from recipelang.values import Form

__all__ = ["row_length", "tokens_of", "training_cost"]

BYTES_PER_TOKEN = 4
"""Bytes of text that a token of a usual vocabulary stands for, about."""


def row_length(step: Typed, data: DatasetType) -> int:
    """Tokens of a row: the field, else the dataset's, else 1024."""
    length = step.fields.get("length")
    return length if isinstance(length, int) else (data.length or 1024)


def tokens_of(step: Typed, data: DatasetType) -> int:
    """Tokens (padding included) that the step sees, about."""
    length, batch = row_length(step, data), step.fields.get("batch", 8)
    assert isinstance(batch, int)
    steps, epochs = step.fields.get("steps"), step.fields.get("epochs")
    if isinstance(steps, int):
        return steps * batch * length
    once = data.take_tokens or (data.bytes or 0) // BYTES_PER_TOKEN
    if not once:
        once = (data.rows or 0) * length
    passes = epochs if isinstance(epochs, int | float) else 1.0
    return ceil(once * passes / (batch * length)) * batch * length


def training_cost(
    step: Typed, student: ModelType, data: DatasetType | None, teachers: tuple[ModelType, ...] = ()
) -> Cost:
    """The cost of a training step; zero figures where the model is not known yet."""
    tensors, config = student.tensors, student.config or {}
    if tensors is None or data is None:
        return Cost()
    n, tokens = student.parameters or 0, tokens_of(step, data)
    adapter = step.fields.get("adapter")
    taught = sum(t.parameters or 0 for t in teachers)
    flops = float((4 if adapter else 6) * n + 2 * taught) * tokens
    changed = _trained_elements(step, student)
    stored = student.bytes or 0
    state = changed * 16
    read = stored + sum(t.bytes or 0 for t in teachers)
    written = changed * 4 if adapter else stored
    return Cost(
        flops,
        read,
        written,
        read + state + _activations(step, config, data, 1 + len(teachers)),
        tokens,
    )


def _trained_elements(step: Typed, student: ModelType) -> int:
    """The number of trained numbers: masters, gradients and two moments are 16 bytes each."""
    tensors, adapter = student.tensors or {}, step.fields.get("adapter")
    if isinstance(adapter, Form):
        rank, targets = adapter.get("rank", 16), adapter.get("targets", ("all-linear",))
        assert isinstance(rank, int)
        assert isinstance(targets, tuple)
        names = adapted(tensors, [str(t) for t in targets])
        return sum(rank * sum(tensors[name].shape) for name in names)
    train, freeze = step.fields.get("train", ("all",)), step.fields.get("freeze", ())
    assert isinstance(train, tuple)
    assert isinstance(freeze, tuple)
    names = trained(tensors, [str(t) for t in train], [str(f) for f in freeze])
    return sum(tensors[name].elements for name in names)


def _activations(step: Typed, config: Mapping[str, object], data: DatasetType, models: int) -> int:
    """Bytes of activations and logits of one micro-batch, about: 18 hidden vectors and three
    feed-forward ones a token and layer in the compute dtype, and three copies of the logits in
    float32 a model."""

    def number(name: str, default: int) -> int:
        value = config.get(name)
        return value if isinstance(value, int) else default

    hidden, layers = number("hidden_size", 0), number("num_hidden_layers", 0)
    wide, words = number("intermediate_size", 4 * hidden), number("vocab_size", 0)
    batch, micro = step.fields.get("batch", 8), step.fields.get("micro_batch")
    rows = min(micro if isinstance(micro, int) else 8, batch if isinstance(batch, int) else 8)
    precision = step.fields.get("precision")
    width = DTYPE_BYTES[DTYPE_NAMES[precision]] if isinstance(precision, str) else 2
    a_token = layers * (18 * hidden + 3 * wide) * width + 12 * words * models
    return rows * row_length(step, data) * a_token
