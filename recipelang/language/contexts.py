"""What is worth saying of the rows of a step: that they are longer than its model's context.

Example: ``finetune base on notes { length = 4k tokens }`` of a model with 2,048 positions is warned
of, W0664.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recipelang.diagnostics import Span
from recipelang.ir.graph import Node
from recipelang.language.clauses import Input, Phrase
from recipelang.types import DatasetType, ModelType
from recipelang.weights.strict_json import as_object

__all__ = ["context_of", "warn_of_length"]

CONTEXT = ("max_position_embeddings", "n_positions")
"""Keys whose value is the number of positions, in tokens; the second one is GPT-2's."""
ROPE = ("rope_scaling", "rope_parameters")


def warn_of_length(phrase: Phrase, made: Node) -> None:
    """W0664 where the rows that a step is asked for, by itself or by its data, are longer than what
    one of its models was made for. Of the length that holds where none is written nothing is said:
    it bounds rows, and short texts do not fill it."""
    if phrase.operation.field("length") is None or phrase.operation.kind == "source":
        return
    models = [(item, context_of(item.node.type)) for item in _inputs(phrase)]
    known = [(context, item) for item, context in models if context is not None]
    rows = max(_lengths(phrase, made), key=lambda found: found[0], default=None)
    if not known or rows is None:
        return
    context, item = min(known, key=lambda found: found[0])
    length, span = rows
    if length <= context:
        return
    name = phrase.scope.builder.name(item.node)
    phrase.scope.sink.warning(
        "W0664",
        f"rows of {length:,} tokens are longer than the context of `{name}`, {context:,} tokens",
        span,
        label=f"at most {context}",
        help=f"write `length = {context}`, or how the model is stretched into its configuration "
        "(`rope_scaling`)",
    )


def context_of(model: object) -> int | None:
    """How many tokens a model was made for, as its configuration says; None where that does not, or
    says that its positions are stretched.

    >>> context_of(ModelType({"max_position_embeddings": 2048}))
    2048
    """
    config = (model.config or {}) if isinstance(model, ModelType) else {}
    if any(_stretched(as_object(config.get(key))) for key in ROPE):
        return None
    found = (config.get(key) for key in CONTEXT)
    return next((value for value in found if type(value) is int and value > 0), None)


def _stretched(rope: Mapping[str, object] | None) -> bool:
    """Whether rotary positions are scaled, in all layers or in those of some kind."""
    if rope is None:
        return False
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in (None, "default"):
        return True
    return any(_stretched(as_object(inner)) for inner in rope.values())


def _inputs(phrase: Phrase) -> Iterator[Input]:
    return (item for items in phrase.inputs.values() for item in items)


def _lengths(phrase: Phrase, made: Node) -> Iterator[tuple[int, Span]]:
    """The length that the step names, else those that its data name, and where."""
    own = made.attr("length")
    if isinstance(own, int):
        yield own, phrase.given.spans["length"]
        return
    for item in _inputs(phrase):
        data = item.node.type
        if isinstance(data, DatasetType) and data.length is not None:
            yield data.length, item.span
