"""Whether models fit together in one weight operation, and what type the result has.

The rules complain by raising :class:`~recipelang.ops.spec.Fault`; what is not known yet (a model
that was not fetched) is not complained about.

Example:
    >>> merged_type(Typed({"inputs": (a, b)}, {"dtype": None}))      # doctest: +SKIP
    ModelType(...)
"""

from __future__ import annotations

from collections.abc import Iterable

from recipelang.ops.spec import Cost, Fault, Typed
from recipelang.types import DTYPE_NAMES, DeltaType, LayersType, ModelType, TensorInfo, Type
from recipelang.weights.metadata import recast, with_dtype
from recipelang.weights.vocabulary import first_difference

__all__ = [
    "check_same",
    "check_stackable",
    "delta_tensors",
    "merged_type",
    "model_of",
    "streaming_cost",
    "wanted_dtype",
]

SHAPE_KEYS = (
    "model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
"""Configuration keys that must agree before tensors are compared: they say why tensors differ."""

SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias")
STACKED_KEYS = (*(key for key in SHAPE_KEYS if key != "num_hidden_layers"), *SWITCHES[1:])
"""Configuration keys that must agree where layers of several models are stacked."""


def merged_type(typed: Typed) -> ModelType:
    """The type of a merge of ``inputs`` (and ``base``): the first input's, in the dtype asked for.

    Raises Fault E0601 (shapes), E0602 (vocabularies), E0603 (tensors).
    """
    models = _placed(typed, ("inputs", "base"))
    check_same(models)
    return with_dtype(model_of(typed.types["inputs"][0]), wanted_dtype(typed))


def wanted_dtype(typed: Typed) -> str | None:
    """The safetensors name of the field ``dtype``, or None."""
    written = typed.fields.get("dtype")
    return DTYPE_NAMES[written] if isinstance(written, str) else None


def model_of(type_: Type | None) -> ModelType:
    """The model type behind an operand (a delta's is that of its models, that of layers the model
    of just these); unknown where it is none."""
    if isinstance(type_, DeltaType | LayersType):
        return type_.of
    return type_ if isinstance(type_, ModelType) else ModelType()


def delta_tensors(model: ModelType) -> dict[str, TensorInfo] | None:
    """The table of a difference of two such models: floating-point tensors only, float32 (F64
    stays)."""
    if model.tensors is None:
        return None
    floats = {n: i for n, i in model.tensors.items() if i.dtype in ("F32", "F16", "BF16", "F64")}
    return {n: i if i.dtype == "F64" else TensorInfo("F32", i.shape) for n, i in floats.items()}


def check_same(models: list[tuple[str, str, ModelType]]) -> None:
    """Every model, as (role in the operation, name for messages, type), has the first one's shape,
    tensors and vocabulary."""
    if not models:
        return
    _, first_name, first = models[0]
    for at, name, other in models[1:]:
        if other is first:
            continue
        _check_configs(first_name, first, at, name, other)
        _check_tensors(first_name, first, at, name, other)
        _check_vocabulary(first_name, first, at, name, other)


def check_stackable(models: list[tuple[str, str, ModelType]]) -> None:
    """Every model, as (role in the operation, name for messages, type), has the first one's width,
    heads and vocabulary, so that its layers can stand behind those of the first.

    Raises Fault E0601, E0602.
    """
    _, first_name, first = models[0]
    for at, name, other in models[1:]:
        _check_configs(first_name, first, at, name, other, STACKED_KEYS)
        _check_vocabulary(first_name, first, at, name, other)


def streaming_cost(typed: Typed, result: Type, *, levels: int = 0) -> Cost:
    """A pass over all operands that writes the result; ``levels`` of statistics use the whole
    budget."""
    inputs = [model_of(t) for types in typed.types.values() for t in types]
    read = sum(m.bytes or 0 for m in inputs)
    written = model_of(result).bytes or 0
    return Cost(bytes_read=read, bytes_written=written, memory_bytes=512 << 20)


def _placed(typed: Typed, roles: Iterable[str]) -> list[tuple[str, str, ModelType]]:
    found: list[tuple[str, str, ModelType]] = []
    for role in roles:
        types, places = typed.types.get(role, ()), typed.places.get(role, ())
        for i, type_ in enumerate(types):
            if type_ is None:
                continue
            name = places[i] if i < len(places) and places[i] else f"model {i + 1}"
            found.append((f"{role}[{i}]", name, model_of(type_)))
    return found


def _check_configs(
    name: str, a: ModelType, at: str, other: str, b: ModelType,
    keys: tuple[str, ...] = SHAPE_KEYS,
) -> None:  # fmt: skip
    if a.config is None or b.config is None:
        return
    for key in keys:
        left, right = _config_value(a, key), _config_value(b, key)
        if left != right:
            raise Fault(
                "E0601",
                f"`{name}` and `{other}` have different shapes: `{key}` is {left} and {right}",
                at=at,
                label=f"`{key}` is {right} here",
                help=_shape_help(key),
            )


def _config_value(model: ModelType, key: str) -> object:
    config = model.config or {}
    value = config.get(key)
    if key in SWITCHES:
        return bool(value)
    if key == "num_key_value_heads" and value is None:
        return config.get("num_attention_heads")
    if key == "head_dim" and value is None:
        hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
        return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) else None
    return value


def _shape_help(key: str) -> str:
    if key == "num_hidden_layers":
        return "merge models of one shape; `shrink` or `distill` brings a model to another depth"
    if key == "tie_word_embeddings":
        return "one model keeps its output head apart from its embedding, the other does not"
    return "take models of one family and size"


def _check_tensors(name: str, a: ModelType, at: str, other: str, b: ModelType) -> None:
    if a.tensors is None or b.tensors is None:
        return
    for tensor in sorted(set(a.tensors) | set(b.tensors)):
        left, right = a.tensors.get(tensor), b.tensors.get(tensor)
        if left is None or right is None:
            lacks, has = (name, other) if left is None else (other, name)
            raise Fault(
                "E0603", f"`{lacks}` has no tensor `{tensor}`, which `{has}` has", at=at,
                help="merge models of one architecture and version",
            )  # fmt: skip
        if left.shape != right.shape:
            raise Fault(
                "E0601", f"`{name}` and `{other}` have different shapes: `{tensor}` is "
                f"{list(left.shape)} and {list(right.shape)}", at=at,
                help="merge models of one family and size",
            )  # fmt: skip


def _check_vocabulary(name: str, a: ModelType, at: str, other: str, b: ModelType) -> None:
    if a.tokenizer is None or b.tokenizer is None or a.tokenizer.digest == b.tokenizer.digest:
        return
    difference = first_difference(a.tokenizer, b.tokenizer)
    if difference:
        raise Fault(
            "E0602",
            f"`{name}` and `{other}` have different vocabularies: {difference}",
            at=at,
            help="merge models with one tokenizer: the rows of their embeddings mean the same "
            "tokens",
        )


__all__ += ["recast"]
