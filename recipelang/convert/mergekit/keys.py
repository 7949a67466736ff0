"""Reading the keys of a mapping: which are legal there, and what kind of value they have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from recipelang.convert.mergekit.methods import METHODS
from recipelang.convert.mergekit.references import Reference, parse
from recipelang.convert.yaml_tree import Item, Mapping, Scalar, Sequence
from recipelang.diagnostics import Diagnostic, Label, Sink, Span
from recipelang.language.suggest import did_you_mean, nearest

__all__ = [
    "NOWHERE", "TOP", "check_keys", "check_tool", "entries", "idle", "note", "present", "reference",
    "text",
]  # fmt: skip

TOP: Final = (
    "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", "name",
)  # fmt: skip
"""The keys of a configuration."""
NOWHERE: Final = ("int8_mask", "embed_slerp", "random_seed", "residual_weight")
"""What people write and changes nothing: how signs are stored on the way, how embeddings were
merged until 2024, a seed (mergekit takes one from its command line only), what was never built."""
MOE: Final = "`mergekit-moe`, and a recipe makes no mixture of experts from dense models"
EVOLVE: Final = "`mergekit-evolve`, and a recipe says one merge, not the search for one"
BAKLLAMA: Final = "`bakllama`, whose format mergekit gave up"
OTHERS: Final = {
    "experts": (MOE, "merge the experts with `mergekit-moe`, and name its result as a `model`"),
    "gate_mode": (MOE, "merge the experts with `mergekit-moe`, and name its result as a `model`"),
    "genome": (EVOLVE, "import the `best_config.yaml` that the search found"),
    "layer_slices": (BAKLLAMA, "write the layers as `slices:` with `merge_method: passthrough`"),
}  # fmt: skip
"""Keys of mergekit's other tools, whose files look alike: whose they are, and what to do."""
ELSEWHERE: Final = {
    "layer_range": "it belongs to a source of a slice",
    "sources": "it belongs to an entry of `slices`",
    "model": "it belongs to an entry of `models`",
    "revision": "write it behind the model: `model: org/name@revision`",
    "lora": "write it behind the model: `model: org/name+org/lora`",
    "merge_method": "a configuration has one method: make this part a document with a `name`",
}  # fmt: skip
"""What to do with keys that are legal or meant somewhere else."""


def check_tool(document: Mapping, sink: Sink) -> bool:
    """Whether the document is of a tool whose files are imported; else E0746 names its tool."""
    for key, _ in document.entries:
        if key.text in OTHERS:
            tool, help = OTHERS[key.text]
            sink.error("E0746", f"this is a configuration of {tool}", key.span, help=help)
            return False
    return True


def check_keys(item: Mapping, known: Collection[str], what: str, sink: Sink) -> bool:
    """Whether ``what`` has all keys of the mapping; others are reported (E0741), but for those that
    only hold a value for aliases, and those that change nothing anywhere (W0740)."""
    unknown = [
        key for key, value in item.entries
        if key.text not in (*known, *NOWHERE)
        and not (value.named and nearest(key.text, known) is None)
    ]  # fmt: skip
    for key in (key for key, _ in item.entries if key.text in NOWHERE):
        idle(key, sink)
    for key in unknown:
        notes = ("mergekit drops it without a word",)
        help = _remedy(key.text, known)
        sink.error("E0741", f"{what} has no `{key.text}`", key.span, help=help, notes=notes)
    return not unknown


def _remedy(key: str, known: Collection[str]) -> str:
    """What to do with a key that is not known here."""
    if "parameters" in known and any(m.parameter(key) for m in METHODS.values()):
        return "write it below `parameters:`"
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    if key in TOP:
        return "it belongs to the top of the configuration"
    return did_you_mean(key, known)


def note(message: str, span: Span, sink: Sink) -> None:
    """W0740: what the import leaves out or decides."""
    sink.add(Diagnostic("W0740", "note", message, Label(span)))


def idle(key: Scalar, sink: Sink) -> None:
    """W0740: a key that changes nothing."""
    note(f"`{key.text}` changes nothing in mergekit; it is left out", key.span, sink)


def present(item: Mapping, key: str) -> Item | None:
    """The value of a key that is neither missing nor null."""
    value = item.get(key)
    return None if isinstance(value, Scalar) and value.kind == "null" else value


def text(item: Mapping, key: str, sink: Sink) -> str:
    """The text of a key, empty where it is missing."""
    value = present(item, key)
    if value is None:
        return ""
    if not isinstance(value, Scalar) or not value.text.strip():
        sink.error("E0744", f"`{key}` is a text", value.span)
        return ""
    return value.text


def reference(item: Mapping, key: str, sink: Sink) -> Reference | None:
    """The model of a key, None where it is missing."""
    value = present(item, key)
    return parse(value, sink) if value is not None else None


def entries(item: Mapping, key: str, sink: Sink) -> tuple[Mapping, ...]:
    """The mappings of a list, which is not empty."""
    value = present(item, key)
    if not isinstance(value, Sequence) or not value.items:
        if value is not None:
            sink.error("E0744", f"`{key}` is a list with one entry or more", value.span)
        return ()
    for child in value.items:
        if not isinstance(child, Mapping):
            help = f"write `- model: {child.text}`" if isinstance(child, Scalar) else ""
            sink.error("E0744", f"an entry of `{key}` is a mapping", child.span, help=help)
    return tuple(child for child in value.items if isinstance(child, Mapping))
