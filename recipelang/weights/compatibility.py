"""Whether models fit together in one weight operation, and what type the result has.

The rules complain by raising :class:`~recipelang.ops.spec.Fault`; what is not known yet (a model
that was not fetched) is not complained about.

Example:
    >>> merged_type(Typed({"inputs": (a, b)}, {"dtype": None}))      # doctest: +SKIP
    ModelType(...)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from recipelang.ops.spec import Cost, Fault, Typed
from recipelang.types import DTYPE_NAMES, DeltaType, LayersType, ModelType, TensorInfo, Type
from recipelang.weights.alignment import Member, check_extends, with_vocabulary
from recipelang.weights.embeddings import sections
from recipelang.weights.joining import Placed, check_heads, check_tables, with_heads
from recipelang.weights.metadata import recast, with_dtype
from recipelang.weights.strict_json import as_object, readable

__all__ = [
    "check_origin",
    "check_stackable",
    "delta_tensors",
    "joined_type",
    "merged_type",
    "model_of",
    "streamed_bytes",
    "streaming_cost",
    "wanted_dtype",
]

SHAPE_KEYS = (
    "model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
"""Configuration keys that must agree before tensors are compared: they say why tensors differ."""

SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias")
BUDGET = 512 << 20
"""Bytes that a weight operation holds at a time: those of :mod:`recipelang.weights.arrays`, which
imports numpy."""
STACKED_KEYS = (*(key for key in SHAPE_KEYS if key != "num_hidden_layers"), *SWITCHES[1:])
"""Configuration keys that must agree where layers of several models are stacked."""


def merged_type(typed: Typed) -> ModelType:
    """The type of a merge of ``inputs`` (and ``base``): the first input's, with the vocabulary and
    in the dtype asked for.

    Raises Fault E0601 (shapes), E0603 (tensors), E0602 and E0640 to E0642 (vocabularies).
    """
    models = _placed(typed, ("inputs", "base"))
    weights, policy = typed.fields.get("weight"), typed.fields.get("vocabulary", "same")
    idle = {
        f"inputs[{i}]"
        for i, weight in enumerate(weights if isinstance(weights, tuple) else ())
        if i and isinstance(weight, int | float) and weight == 0
    }
    joined = joined_type(models, policy=str(policy), idle=idle)
    return with_dtype(joined, wanted_dtype(typed))


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


def check_origin(name: str, model: ModelType, other: str, origin: ModelType) -> None:
    """A model fits the origin that it declares; it may have tokens that the origin lacks, as
    fine-tunes for chats have, and lacks none of the origin's.

    Raises Fault E0601 to E0603, at ``origin``.
    """
    joined_type([("", name, model), ("origin", other, origin)], policy="of-subject")
    check_extends(Member("", name, model), Member("origin", other, origin))


def joined_type(
    models: list[Placed], *, policy: str | None = None, idle: Collection[str] = ()
) -> ModelType:
    """What the models, as (role in the operation, name for messages, type), give together: the
    first one's type, with an output head apart where any has one, and with the vocabulary that
    ``policy`` asks for (:func:`recipelang.weights.alignment.with_vocabulary`).

    ``idle`` are roles of models that bring nothing. Raises Fault E0601 to E0603, E0640 to E0642,
    E0681 (quantised weights).
    """
    if not models:
        return ModelType()
    _, first_name, first = models[0]
    for at, name, model in models if len(models) > 1 else ():
        _check_unpacked(at, name, model)
    for at, name, other in models[1:]:
        if other is not first:
            _check_configs(
                first_name, first, at, name, other, _merged_keys(first, other), silence=True
            )
            check_heads(first_name, first, at, name, other)
            check_tables(first_name, first, at, name, other)
    members = [Member(at, name, model, at not in idle) for at, name, model in models]
    return with_vocabulary(with_heads(first, [m for _, _, m in models]), members, policy)


def _check_unpacked(at: str, name: str, model: ModelType) -> None:
    """Fault E0681 for a model whose weights are packed numbers, which have no mean."""
    method = as_object((model.config or {}).get("quantization_config"))
    packed = next((n for n, i in (model.tensors or {}).items() if i.dtype.startswith("F8_")), None)
    if method is None and packed is None:
        return
    said = str((method or {}).get("quant_method") or "quantization_config")
    how = f"`{readable(said, 40)}`" if method is not None else f"`{packed}` has eight bits a number"
    raise Fault(
        "E0681",
        f"the weights of `{name}` are quantised ({how}), and cannot be merged",
        at=at,
        help="take the model that it was quantised from, or write this one out in bf16",
    )


def check_stackable(models: list[Placed]) -> None:
    """Every model, as (role in the operation, name for messages, type), has the first one's width,
    heads and tokens, so that its layers can stand behind those of the first.

    Raises Fault E0601, E0602, E0640, E0642.
    """
    _, first_name, first = models[0]
    for at, name, other in models[1:]:
        _check_configs(first_name, first, at, name, other, STACKED_KEYS, silence=False)
    with_vocabulary(first, [Member(*placed) for placed in models], None)


def streaming_cost(typed: Typed, result: Type, *, levels: int = 0, looks: int = 0) -> Cost:
    """A pass over all operands that writes the result, behind ``looks`` at all of them, and one for
    each of the ``levels`` of statistics where a tensor's operands do not fit into the budget."""
    inputs = [model_of(t).tensors or {} for types in typed.types.values() for t in types]
    read = streamed_bytes((table, levels, looks) for table in inputs)
    written = model_of(result).bytes or 0
    return Cost(
        bytes_read=read, bytes_written=written, memory_bytes=BUDGET, levels=levels, looks=looks
    )


def streamed_bytes(tables: Iterable[tuple[Mapping[str, TensorInfo], int, int]]) -> int:
    """What is read of tensors that are merged by name, of each table with levels and looks as in
    :class:`~recipelang.ops.spec.Cost`. Tensors of one name that fit into the budget together, with
    a byte an element for what a k-th magnitude keeps, are held through the levels.

    >>> small, large = TensorInfo("BF16", (4,)), TensorInfo("BF16", (1 << 30,))
    >>> streamed_bytes([({"a": small, "b": large}, 2, 0)]) == small.bytes + 3 * large.bytes
    True
    """
    found: dict[str, list[tuple[TensorInfo, int, int]]] = {}
    for table, levels, looks in tables:
        for name, info in table.items():
            found.setdefault(name, []).append((info, levels, looks))
    total = 0
    for same in found.values():
        held = sum(info.bytes for info, _, _ in same) + same[0][0].elements <= BUDGET
        total += sum(
            info.bytes * (1 + looks + (0 if held else levels)) for info, levels, looks in same
        )
    return total


def _placed(typed: Typed, roles: Iterable[str]) -> list[Placed]:
    found: list[Placed] = []
    for role in roles:
        types, places = typed.types.get(role, ()), typed.places.get(role, ())
        for i, type_ in enumerate(types):
            if type_ is None:
                continue
            name = places[i] if i < len(places) and places[i] else f"model {i + 1}"
            found.append((f"{role}[{i}]", name, model_of(type_)))
    return found


def _check_configs(
    name: str, a: ModelType, at: str, other: str, b: ModelType, keys: tuple[str, ...], *,
    silence: bool,
) -> None:  # fmt: skip
    """No key says two things, at the top or in a section (``text_config``). Where ``silence`` is
    fine, and in sections, a key that only one of them has says nothing: libraries leave defaults
    out and move keys between sections, and the tensors are compared as well."""
    if a.config is None or b.config is None:
        return
    for section, written in sections(a.config):
        theirs = as_object(b.config.get(section)) if section else b.config
        for key in keys if theirs is not None else ():
            left, right = _config_value(written, key), _config_value(theirs or {}, key)
            if left != right and not (None in (left, right) and (silence or section)):
                shown = f"{section}.{key}" if section else key
                raise Fault(
                    "E0601",
                    f"`{name}` and `{other}` have different shapes: `{shown}` is {left} and "
                    f"{right}",
                    at=at,
                    label=f"`{shown}` is {right} here",
                    help=_shape_help(key),
                )


def _merged_keys(a: ModelType, b: ModelType) -> tuple[str, ...]:
    """What a merge compares: heads are compared apart, and rows are matched by token where both
    tokenizers are known."""
    known = a.tokenizer is not None and b.tokenizer is not None
    left_out = ("tie_word_embeddings", "vocab_size") if known else ("tie_word_embeddings",)
    return tuple(key for key in SHAPE_KEYS if key not in left_out)


def _config_value(config: Mapping[str, object], key: str) -> object:
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


__all__ += ["recast"]
