"""What is worth saying of a sound step of weight operations: what its result loses, and what the
configuration will make of it.

Example: a merge whose second model has another chat template than the first is warned of, W0640.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from recipelang.diagnostics import Diagnostic, Label, Span
from recipelang.ir.build import inputs_role
from recipelang.ir.graph import Node
from recipelang.language.clauses import Input, Phrase
from recipelang.types import LayersType, ModelType
from recipelang.weights.compatibility import model_of
from recipelang.weights.embeddings import own_heads
from recipelang.weights.layer_kinds import moved
from recipelang.weights.vocabulary import word_mark

__all__ = ["remark_on_weights"]


def remark_on_weights(phrase: Phrase, made: Node) -> None:
    """W0633, W0640, W0641 and W0680 where a step of weight operations gives cause to."""
    if phrase.operation.kind != "weights":
        return
    _warn_templates(phrase, made)
    _warn_spelling(phrase, made)
    _warn_kinds(phrase, made)
    _tell_heads(phrase, made)


def _warn_templates(phrase: Phrase, merged: Node) -> None:
    """An input of a merge whose chat template is not the one that the result has."""
    role, result = inputs_role(phrase.operation), merged.type
    if role is None or not role.many:
        return
    if not isinstance(result, ModelType) or result.tensors is None:
        return
    taken = result.chat_template
    of_base = merged.attr("vocabulary") == "of-base"
    source = phrase.scope.builder.name(merged.role("base" if of_base else role.name)[0])
    whose = f"is that of `{source}`" if taken else f"is none, as that of `{source}`"
    for item in phrase.inputs.get(role.name, []):
        model = item.node.type
        if isinstance(model, ModelType) and model.chat_template not in (None, taken):
            name = phrase.scope.builder.name(item.node)
            phrase.scope.sink.warning(
                "W0640",
                f"the chat template of `{name}` is lost: the one of the result {whose}",
                item.span,
                help="put the model whose template is wanted first",
            )


def _tell_heads(phrase: Phrase, merged: Node) -> None:
    """A note where some inputs of a merge use their embedding as output head, and others do not."""
    role, result = inputs_role(phrase.operation), merged.type
    items = phrase.inputs.get(role.name, []) if role is not None and role.many else []
    if not isinstance(result, ModelType):
        return
    known = [item for item in items if model_of(item.node.type).tensors is not None]
    tied = [item for item in known if not own_heads(model_of(item.node.type))]
    if not own_heads(result) or not tied or len(tied) == len(known):
        return
    name = phrase.scope.builder.name
    apart = name(next(item for item in known if item not in tied).node)
    message = (
        f"`{name(tied[0].node)}` uses its embedding as output head, `{apart}` has a head of its "
        "own, and so has the result"
    )
    phrase.scope.sink.add(Diagnostic("W0680", "note", message, Label(tied[0].span)))


def _warn_spelling(phrase: Phrase, merged: Node) -> None:
    """Models of different tokens whose tokenizers write the beginning of a word in different
    ways."""
    if merged.attr("vocabulary") not in ("union", "of-subject", "of-base"):
        return
    first: tuple[Input, str] | None = None
    for item in chain.from_iterable(phrase.inputs.values()):
        tokenizer = model_of(item.node.type).tokenizer
        mark = word_mark(tokenizer) if tokenizer else ""
        if not mark:
            continue
        if first is None:
            first = item, mark
        elif first[1] != mark:
            name = phrase.scope.builder.name
            phrase.scope.sink.warning(
                "W0641",
                f"the tokenizers of `{name(first[0].node)}` and `{name(item.node)}` write words in "
                f"different ways (`{first[1]}` and `{mark}`), so most words have no row in common",
                item.span,
                help="merge models whose tokenizers are of one kind",
            )
            return


def _warn_kinds(phrase: Phrase, made: Node) -> None:
    """Layers of a stack, or of what is left of a model, that come to stand where the configuration
    takes them for others."""
    config = made.type.config if isinstance(made.type, ModelType) else None
    if config is None or made.op not in ("stack", "shrink"):
        return
    layers = _stacked(phrase) if made.op == "stack" else _kept(phrase, made)
    found = moved(config, [(model_of(i.node.type).config or {}, number) for i, _, number in layers])
    if found is not None:
        item, span, _ = layers[found.place]
        runs = "move layers by multiples of" if made.op == "stack" else "drop layers in runs of"
        phrase.scope.sink.warning(
            "W0633",
            f"`{found.key}` gives every {found.period} layers one of another kind, and layer "
            f"{found.layer} of `{phrase.scope.builder.name(item.node)}` becomes layer "
            f"{found.place}, of another kind",
            span,
            help=f"{runs} {found.period}, or write what each layer is into "
            "the configuration (`layer_types`), which then follows",
        )


def _stacked(phrase: Phrase) -> list[tuple[Input, Span, int]]:
    """The layers of a stack: the slice of each, where that is written, and its number in the model
    that it comes from. None of them where some are not known."""
    layers: list[tuple[Input, Span, int]] = []
    for item in phrase.inputs["inputs"]:
        numbers = _layers_of(item.node)
        if numbers is None:
            return []
        layers += [(item, item.span, number) for number in numbers]
    return layers


def _kept(phrase: Phrase, made: Node) -> list[tuple[Input, Span, int]]:
    """The layers that `shrink` keeps, likewise: they are written in one of its fields."""
    from recipelang.ops.edit.shrink import CHOICES, kept_layers

    (item,) = phrase.inputs["model"]
    fields = {name: made.attr(name) for name in CHOICES}
    span = next(phrase.given.spans[name] for name in CHOICES if fields[name] is not None)
    numbers = kept_layers(fields, model_of(item.node.type).layers or 0)
    return [(item, span, number) for number in numbers]


def _layers_of(node: Node) -> Sequence[int] | None:
    """The numbers of a slice's layers in the model that they come from; of a merge of layers, in
    that of its first input. None where they are not known."""
    found: Node | None = node
    while found is not None and isinstance(found.type, LayersType):
        start, stop = found.attr("start"), found.attr("stop")
        if found.op == "layers" and isinstance(start, int) and isinstance(stop, int):
            return range(start, stop)
        found = next((n for n in found.inputs if isinstance(n.type, LayersType)), None)
    count = model_of(node.type).layers
    return None if found is None or count is None else range(count)
