"""From the tree of a YAML document to a :class:`Configuration`, every fault at its line.

mergekit drops what it does not know without a word; here an unknown key or parameter is an error
that offers the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from recipelang.convert.mergekit.configuration import Configuration, Tokenizer
from recipelang.convert.mergekit.contract import check_slice
from recipelang.convert.mergekit.keys import (
    TOP,
    check_keys,
    check_tool,
    note,
    present,
    reference,
    text,
)
from recipelang.convert.mergekit.methods import METHODS, Method
from recipelang.convert.mergekit.parameters import read_settings
from recipelang.convert.mergekit.read_models import Reader
from recipelang.convert.mergekit.references import parse
from recipelang.convert.yaml_tree import Item, Mapping, Scalar
from recipelang.diagnostics import Diagnostic, Label, Sink
from recipelang.language.suggest import did_you_mean, listed

__all__ = ["read_configuration"]

TOKENIZER: Final = ("source", "tokens", "pad_to_multiple_of")
DTYPES: Final = {
    "float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64",
}  # fmt: skip


def read_configuration(document: Item, sink: Sink) -> Configuration | None:
    """The configuration of a document; None and errors in the sink where it has faults."""
    own = Sink()
    found = _read(document, own)
    sink.extend(_together(own.diagnostics))
    return None if own.has_errors else found


def _together(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """The diagnostics with those about what is left out told once, with all their places."""
    kept: dict[object, Diagnostic] = {}
    for place, one in enumerate(found):
        key = (one.code, one.message) if one.code == "W0740" else place
        first = kept.get(key)
        if first is None or one.primary is None:
            kept[key] = one
        else:
            more = Label(one.primary.span, "and here")
            kept[key] = replace(first, secondary=(*first.secondary, more))
    return list(kept.values())


def _read(document: Item, sink: Sink) -> Configuration | None:
    if not isinstance(document, Mapping) or not document.entries:
        sink.error("E0745", "a configuration is a mapping", document.span)
        return None
    if not check_tool(document, sink):
        return None
    sound = check_keys(document, TOP, "a configuration", sink)
    method = _method(document, sink) if sound or document.get("merge_method") else None
    if method is None:
        return None
    base = reference(document, "base_model", sink)
    settings = read_settings(document.get("parameters"), method, "whole", sink)
    modules = Reader(method, base, sink).modules(document)
    if not sink.has_errors:
        for one in (one for module in modules for one in module.slices):
            check_slice(method, one, base, sink)
    _chat_template(document, sink)
    return Configuration(
        text(document, "name", sink), method, base, modules, settings,
        _dtype(document, "dtype", sink), _dtype(document, "out_dtype", sink),
        _tokenizer(document, sink), document.span,
    )  # fmt: skip


def _method(document: Mapping, sink: Sink) -> Method | None:
    item = document.get("merge_method")
    known = f"one of {listed(METHODS, limit=len(METHODS))}"
    if not isinstance(item, Scalar):
        message = "the configuration has no `merge_method`"
        sink.error("E0745", message, document.entries[0][0].span, help=known)
        return None
    if item.text not in METHODS:
        help = did_you_mean(item.text, METHODS, known)
        sink.error("E0742", f"mergekit has no method `{item.text}`", item.span, help=help)
        return None
    return METHODS[item.text]


def _dtype(document: Mapping, key: str, sink: Sink) -> str:
    value = present(document, key)
    if value is None:
        return ""
    name = value.text.removeprefix("torch.") if isinstance(value, Scalar) else ""
    if name == "int64":
        sink.error("E0746", "a recipe stores models in floating point only", value.span)
    elif name not in DTYPES:
        known = {ours: theirs for theirs, ours in DTYPES.items()}
        help = f"mergekit calls it `{known[name]}`" if name in known else did_you_mean(name, DTYPES)
        sink.error("E0744", f"mergekit has no `{key}` `{name}`", value.span, help=help)
    return DTYPES.get(name, "")


def _chat_template(document: Mapping, sink: Sink) -> None:
    value, key = present(document, "chat_template"), document.key("chat_template")
    if value is None or key is None:
        return
    if isinstance(value, Scalar) and value.text == "auto":
        message = "the chat template is the first input's; mergekit takes the most common one"
        note(message, key.span, sink)
        return
    help = "remove it; the result has its first input's template, in `tokenizer_config.json`"
    sink.error("E0746", "a recipe sets no chat template", key.span, help=help)


def _tokenizer(document: Mapping, sink: Sink) -> Tokenizer | None:
    short, long = present(document, "tokenizer_source"), present(document, "tokenizer")
    if long is None:
        return _tokenizer_source(short, sink) if short is not None else None
    if short is not None:
        message = "`tokenizer_source` and `tokenizer` exclude each other"
        sink.error("E0745", message, long.span)
        return None
    if not isinstance(long, Mapping):
        help = "write `tokenizer_source: union`, or `tokenizer:` with `source:` below it"
        sink.error("E0744", "`tokenizer` is a mapping", long.span, help=help)
        return None
    check_keys(long, TOKENIZER, "`tokenizer`", sink)
    for name in TOKENIZER[1:]:
        key, value = long.key(name), present(long, name)
        empty = isinstance(value, Mapping) and not value.entries
        if key is not None and value is not None and not empty:
            sink.error("E0746", f"a recipe has no `{name}` of a tokenizer", key.span)
    source = present(long, "source")
    if source is None:
        return Tokenizer("union", long.span)  # what mergekit takes where none is written
    return _tokenizer_source(source, sink)


def _tokenizer_source(item: Item, sink: Sink) -> Tokenizer | None:
    if isinstance(item, Scalar) and item.text == "union":
        return Tokenizer("union", item.span)
    if isinstance(item, Scalar) and item.text == "base":
        return Tokenizer("base", item.span)
    if isinstance(item, Scalar):  # until 2024 a model was written `model:org/name`
        item = replace(item, text=item.text.removeprefix("model:"))
    found = parse(item, sink)
    return Tokenizer(found, item.span) if found else None
