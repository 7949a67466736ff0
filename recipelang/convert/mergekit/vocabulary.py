"""``tokenizer_source`` as our field ``vocabulary``, and the input that must come first for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipelang.convert.mergekit.configuration import Configuration
from recipelang.convert.mergekit.phrases import copied
from recipelang.convert.mergekit.references import Reference
from recipelang.convert.mergekit.resolve import Merge
from recipelang.diagnostics import Diagnostic, Label, Sink

__all__ = ["Vocabulary", "vocabulary_of"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The field's value (empty: none is written), and the model that becomes the subject."""

    field: str = ""
    subject: Reference | None = None

    def ordered(self, merge: Merge) -> Merge:
        """The merge with that model first; the others keep their order."""
        if self.subject is None:
            return merge
        inputs = sorted(merge.inputs, key=lambda one: one.model != self.subject)
        return replace(merge, inputs=tuple(inputs))


def vocabulary_of(configuration: Configuration, merge: Merge, sink: Sink) -> Vocabulary:
    """What the result's vocabulary is; E0745 or E0746 where the recipe cannot say it."""
    tokenizer = configuration.tokenizer
    if tokenizer is None:
        return Vocabulary()
    if copied(merge) is not None:
        message = "models that are only stacked or copied keep their vocabulary, which must be one"
        sink.add(Diagnostic("W0740", "note", message, Label(tokenizer.span)))
        return Vocabulary()
    if tokenizer.source == "union":
        return Vocabulary("union")
    source = configuration.base if tokenizer.source == "base" else tokenizer.source
    if source is None:
        message = "`tokenizer_source: base` needs a `base_model`"
        sink.error("E0745", message, tokenizer.span)
        return Vocabulary()
    if merge.base is not None and source == merge.base.model:
        return Vocabulary("of-subject" if merge.method.pair else "of-base")
    if not merge.method.pair and any(one.model == source for one in merge.inputs):
        return Vocabulary("of-subject", source)
    message = f"the vocabulary of `{source}`, which is no input of this merge"
    help = "take the base's or an input's"
    if merge.method.pair:
        message = f"`{merge.method.verb}` has the vocabulary of its first model"
        help = "write `tokenizer_source: base`"
    sink.error("E0746", message, tokenizer.span, help=help)
    return Vocabulary()
