"""What an adapter changes in a model: tensor by tensor, and the type of the result.

Three things depend on the model. Whether a weight is stored (out, in), or (in, out) as GPT-2's
``Conv1D`` is; a square one is taken as the configurations (``fan_in_fan_out``, ``model_type``) say,
or as its fellows are stored. Whether the output head is *tied*, the embedding being used for it:
PEFT trains the two apart unless ``ensure_weight_tying`` is set, so an adapter of one of them gives
a model with a head of its own. And the number of tokens, which whole embeddings and heads may
change.

Example:
    >>> adapter = AdapterType(
    ...     {"peft_type": "LORA"}, {"base_model.model.norm.weight": TensorInfo("F32", (8,))}
    ... )
    >>> model = ModelType({}, {"norm.weight": TensorInfo("BF16", (8,))})
    >>> changes_in(adapter, model)["norm.weight"].whole
    'base_model.model.norm.weight'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recipelang.ops.spec import Fault
from recipelang.types import AdapterType, ModelType, TensorInfo
from recipelang.weights.embeddings import (
    set_vocabulary_size,
    stored_name,
    tie,
    untied,
    vocabulary_size,
)
from recipelang.weights.layers import layer_of
from recipelang.weights.metadata import FLOATS
from recipelang.weights.peft import Factors, contents
from recipelang.weights.peft_names import CONV1D

__all__ = ["AdapterTensor", "Change", "adapted_type", "changes_in"]

HEAD = "lm_head.weight"
HELP = "apply it to the model that it was trained on"

Table = Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Change:
    """How one tensor is made; all names but ``of`` are the adapter's.

    It starts from ``whole``, or from the model's tensor ``of`` (that of the same name where it is
    empty). ``scale * B A`` is added, transposed where the weight is stored so; its rows (columns
    where transposed) are brought to the norms ``magnitude``; ``scale * shift`` is added.
    """

    whole: str = ""
    of: str = ""
    a: str = ""
    b: str = ""
    scale: float = 1.0
    transposed: bool = False
    magnitude: str = ""
    shift: str = ""


@dataclass(frozen=True, slots=True)
class AdapterTensor:
    """What a weight operation gets for an adapter operand: the change of its tensor, or None."""

    change: Change | None


def changes_in(adapter: AdapterType, model: ModelType, *, at: str = "") -> dict[str, Change]:
    """Tensor of the result -> its change; empty where either is not known yet.

    Raises Fault E0610 at ``at`` where a tensor is not in the model, or of another shape, and
    RecipeError E0733.
    """
    if adapter.config is None or adapter.tensors is None or model.tensors is None:
        return {}
    held = contents(adapter.config, adapter.tensors)
    embedding = _tied_embedding(adapter.config, model)
    table = dict(model.tensors)
    if embedding:
        table[HEAD] = table[embedding]
    changes = {_name(table, n, at): Change(whole=stored) for n, stored in held.whole.items()}
    factors = {_name(table, f"{module}.weight", at): f for module, f in held.factors.items()}
    conv1d = (
        adapter.config.get("fan_in_fan_out") is True
        or (model.config or {}).get("model_type") in CONV1D
        or any(_layout(name, f, table, adapter.tensors) is True for name, f in factors.items())
    )
    for name, f in factors.items():
        layout = _layout(name, f, table, adapter.tensors)
        transposed = f.embedding or (layout is None and conv1d) or layout is True
        changes[name] = replace(
            changes.get(name, Change()), a=f.a, b=f.b, scale=f.scale, transposed=transposed,
            magnitude=f.magnitude,
        )  # fmt: skip
        if f.bias:
            bias = _name(table, name.removesuffix("weight") + "bias", at)
            changes[bias] = replace(changes.get(bias, Change()), shift=f.bias, scale=f.scale)
    if embedding:
        changes = _untied(changes, embedding, adapter.config)
    for name, change in changes.items():
        _check_shape(name, change, adapter.tensors, table[name], at)
    return dict(sorted(changes.items()))


def adapted_type(adapter: AdapterType, model: ModelType, *, at: str = "") -> ModelType:
    """The type of the model with the adapter in it: its own but for tensors whose number of rows
    the adapter changes, a head that is no longer tied, and what the configuration says of them.

    Raises Fault E0610, and E0614 where the number of tokens is changed in a part of the model only.
    """
    changes = changes_in(adapter, model, at=at)
    if not changes or model.tensors is None or adapter.tensors is None:
        return model
    tensors = dict(model.tensors)
    config = None if model.config is None else dict(model.config)
    for name, change in changes.items():
        stored = model.tensors[change.of or name]
        shape = adapter.tensors[change.whole].shape if change.whole else stored.shape
        tensors[name] = TensorInfo(stored.dtype, shape)
    if any(change.of for change in changes.values()):
        config = None if config is None else untied(config)
    elif _tied_embedding(adapter.config or {}, model) in changes:
        tensors.pop(HEAD, None)  # a stored copy of the embedding as it was
    tokenizer, template = model.tokenizer, model.chat_template
    rows = _rows(model.tensors, tensors, at)
    if rows is not None:
        if config is not None:
            config = set_vocabulary_size(config, vocabulary_size(config) or 0, rows)
        tokenizer = adapter.tokenizer or tokenizer
        template = adapter.chat_template or template
    return ModelType(config, dict(sorted(tensors.items())), tokenizer, template)


def _name(table: Table, name: str, at: str) -> str:
    """The model's name of a tensor: some models are stored without the prefix of their base model,
    ``h.0.ln_1.weight`` for ``transformer.h.0.ln_1.weight``."""
    if name in table:
        return name
    short = name.partition(".")[2]
    if short in table:
        return short
    raise Fault(
        "E0610", f"the adapter changes `{name}`, which the model does not have", at=at, help=HELP
    )


def _layout(name: str, factors: Factors, table: Table, tensors: Table) -> bool | None:
    """Whether the weight of a layer is stored (in, out); None for a square one, which does not
    tell."""
    made = tensors[factors.b].shape[0], tensors[factors.a].shape[1]
    if factors.embedding or layer_of(name) is None:
        return False
    return None if made[0] == made[1] else table[name].shape == made[::-1]


def _tied_embedding(config: Mapping[str, object], model: ModelType) -> str:
    """The embedding of a model that uses it as its output head; empty where the head is apart, or
    there is none."""
    said = tie(model.config or {})
    if said is None and config.get("task_type") != "CAUSAL_LM":
        return ""  # of other models nobody knows whether they have a head
    if (model.config or {}).get("is_encoder_decoder") is True:
        return ""  # a tied head is scaled in those of T5's kind, and cannot be untied
    found = stored_name(model, HEAD)
    return "" if found in (None, HEAD) else str(found)


def _untied(
    changes: Mapping[str, Change], embedding: str, config: Mapping[str, object]
) -> dict[str, Change]:
    """The changes of a model whose head was its embedding: the head starts from what the embedding
    was before its change."""
    mine, head = changes.get(embedding), changes.get(HEAD)
    if mine is None and head is None:
        return dict(changes)
    if mine is not None and config.get("ensure_weight_tying") is True:
        return {name: change for name, change in changes.items() if name != HEAD}
    before = mine.whole if mine is not None and mine.a else ""
    head = replace(head or Change(), of=embedding)
    return {**changes, HEAD: head if head.whole else replace(head, whole=before)}


def _check_shape(name: str, change: Change, tensors: Table, info: TensorInfo, at: str) -> None:
    """Fault E0610 where the shapes of a change and of the model's tensor are not one, and for
    numbers that are quantised."""
    if info.dtype not in FLOATS:
        raise Fault(
            "E0610", f"the adapter changes `{name}`, which the model stores as {info.dtype}", at=at,
            help="apply it to the model before it was quantised",
        )  # fmt: skip
    if change.whole:
        shape = tensors[change.whole].shape
        if not _is_resized(name, info.shape, shape) and shape != info.shape:
            raise Fault(
                "E0610",
                f"the adapter replaces `{name}` by {list(shape)}, but the model's is "
                f"{list(info.shape)}",
                at=at, help=HELP,
            )  # fmt: skip
    else:
        shape = info.shape
    if change.shift and tensors[change.shift].shape != shape:
        found = list(tensors[change.shift].shape)
        raise Fault(
            "E0610", f"the adapter adds {found} to `{name}`, which is {list(shape)}", at=at,
            help=HELP,
        )  # fmt: skip
    if not change.a:
        return
    a, b = tensors[change.a].shape, tensors[change.b].shape
    made = (a[1], b[0]) if change.transposed else (b[0], a[1])
    if made != shape:
        raise Fault(
            "E0610",
            f"the adapter changes `{name}` by {list(b)} times {list(a)}, but the model's is "
            f"{list(shape)}",
            at=at, help=HELP,
        )  # fmt: skip


def _is_resized(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether a tensor has another number of tokens; only what lies outside the layers has any."""
    return layer_of(name) is None and old[1:] == new[1:] and len(new) == 2


def _rows(old: Table, new: Table, at: str) -> int | None:
    """The number of rows that embedding and head have now, None where it stayed.

    Raises Fault E0614 where a tensor with a row a token kept the old number.
    """
    resized = [n for n, i in new.items() if n in old and old[n].shape != i.shape]
    if not resized:
        return None
    before, now = old[resized[0]].shape[0], new[resized[0]].shape[0]
    for name, info in new.items():
        if name in resized:
            wrong = info.shape[0] != now
        else:
            wrong = layer_of(name) is None and len(info.shape) == 2 and info.shape[0] == before
        if wrong:
            raise Fault(
                "E0614",
                f"the adapter makes `{resized[0]}` {now} rows long, but `{name}` has "
                f"{info.shape[0]}",
                at=at,
                help="train it with `modules_to_save` of both the embedding and the head",
            )
    return now
