"""Reading the keys of a mapping: which are legal there, and what kind of value they have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from recipelang.convert.mergekit.methods import METHODS
from recipelang.convert.mergekit.references import Reference, parse
from recipelang.convert.yaml_tree import Item, Mapping, Scalar, Sequence
from recipelang.diagnostics import Diagnostic, Label, Sink, Span
from recipelang.language.suggest import did_you_mean

__all__ = ["check_keys", "entries", "note", "present", "reference", "text"]

OTHERS: Final = {
    "experts": "mergekit-moe", "gate_mode": "mergekit-moe", "genome": "mergekit-evolve",
    "layer_slices": "bakllama",
}  # fmt: skip
"""Keys of mergekit's other tools, whose files look alike."""
ELSEWHERE: Final = {
    "layer_range": "a source of a slice", "sources": "an entry of `slices`",
    "model": "an entry of `models`",
}  # fmt: skip


def check_keys(item: Mapping, known: Collection[str], what: str, sink: Sink) -> bool:
    """Whether ``what`` has all keys of the mapping; others are reported (E0741, or E0746 for those
    of another tool)."""
    unknown = [key for key, _ in item.entries if key.text not in known]
    for key in unknown:
        if key.text in OTHERS:
            message = f"`{key.text}` belongs to `{OTHERS[key.text]}`, whose files are not imported"
            sink.error("E0746", message, key.span)
            continue
        help = did_you_mean(key.text, known)
        if "parameters" in known and any(m.parameter(key.text) for m in METHODS.values()):
            help = "write it below `parameters:`"
        elif key.text in ELSEWHERE:
            help = f"it belongs to {ELSEWHERE[key.text]}"
        notes = ("mergekit drops it without a word",)
        sink.error("E0741", f"{what} has no `{key.text}`", key.span, help=help, notes=notes)
    return not unknown


def note(message: str, span: Span, sink: Sink) -> None:
    """W0740: what the import leaves out or decides."""
    sink.add(Diagnostic("W0740", "note", message, Label(span)))


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
