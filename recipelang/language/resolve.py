"""Names and members: what ``notes.train``, ``evals.exam_score`` and ``rate`` refer to.

Example: an unknown ``a-b`` where ``a`` and ``b`` are known offers ``a - b``.
"""

from __future__ import annotations

from recipelang.diagnostics import Fix, Label
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.scope import BUILTINS, Scope
from recipelang.language.suggest import did_you_mean, nearest
from recipelang.language.values import (
    POISON,
    Attached,
    Builtin,
    Elaborated,
    Imported,
    ManyOf,
    Opaque,
    describe,
    is_poison,
)
from recipelang.ops.registry import lookup
from recipelang.types import DatasetType, ListType, ModelType, SplitType

__all__ = ["member", "resolve", "spaced", "unknown_name"]

PARTS = ("train", "holdout")
WORDS = {
    "true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false",
    "none": "none", "null": "none", "nil": "none",
}  # fmt: skip
"""What other languages call the constants, and the names here."""


def resolve(ref: syntax.Ref, scope: Scope) -> Elaborated:
    """What a dotted name refers to; an unknown one is reported, and gives poison."""
    first, *rest = ref.parts
    value = scope.look_up(first)
    if value is None:
        return unknown_name(first, scope)
    place = first.text if not scope.prefix else ""
    for part in rest:
        place = f"{place}.{part.text}" if place else ""
        value = member(value, part, scope, place)
    return value


def unknown_name(name: syntax.Name, scope: Scope) -> Elaborated:
    """Report a name that nothing has."""
    text = name.text
    if text in BUILTINS:
        return Builtin(text)
    apart = spaced(text, scope)
    operation = lookup(text)
    if operation is not None and not operation.internal:
        scope.sink.error(
            "E0210",
            f"`{text}` is a verb, and stands alone here",
            name.span,
            help=f"write what it works on: `{text} ...`; `recipe ops {text}` shows its form",
        )
    elif apart:
        scope.sink.error(
            "E0201",
            f"unknown name `{text}`",
            name.span,
            help=f"did you mean `{apart}`? an operator has a space on both sides",
            fixes=(Fix(f"write `{apart}`", ((name.span, apart),)),),
        )
    elif text.lower() in WORDS:
        word = WORDS[text.lower()]
        fix = Fix(f"write `{word}`", ((name.span, word),))
        help = f"did you mean `{word}`?"
        if word == "none":
            help += " it stands in fields that may be left out"
        scope.sink.error("E0201", f"unknown name `{text}`", name.span, help=help, fixes=(fix,))
    else:
        known = {n for n in scope.known() if n != text}
        found = nearest(text, known)
        fixes = (Fix(f"write `{found}`", ((name.span, found),)),) if found else ()
        help = did_you_mean(text, known, "names are bound by `name = ...` in this file")
        scope.sink.error("E0201", f"unknown name `{text}`", name.span, help=help, fixes=fixes)
    return POISON


def spaced(text: str, scope: Scope) -> str:
    """``a - b`` for ``a-b`` where all parts are known names (or numbers), else empty."""
    parts = text.split("-")
    known = all(part.isdigit() or (part and scope.holder(part) is not None) for part in parts)
    return " - ".join(parts) if len(parts) > 1 and known else ""


def member(value: Elaborated, name: syntax.Name, scope: Scope, place: str = "") -> Elaborated:
    """``value.name``: a part of a split, or an export of a used file. The layers of a model are
    called, and :mod:`~recipelang.language.methods` has them."""
    if is_poison(value):
        return POISON
    if isinstance(value, Attached):
        value = value.value
    if isinstance(value, Imported):
        return _export(value, name, scope)
    if isinstance(value, Node) and isinstance(value.type, SplitType):
        if name.text in PARTS:
            return _part(value, name, scope, place)
        help = did_you_mean(name.text, PARTS)
    elif isinstance(value, Opaque | ManyOf):
        if isinstance(value, Opaque) and not isinstance(value.type, ListType):
            help = ""
        else:
            help = "a list has no members: write `[... for x in list]`"
    elif isinstance(value, Node) and isinstance(value.type, DatasetType) and name.text in PARTS:
        help = "only a split has parts: `split d { holdout = 5% }`"
    elif isinstance(value, Node) and isinstance(value.type, ModelType):
        help = "a model has layers: `m.layers(8, 24)` takes the layers 8 to 23"
    else:
        help = ""
    scope.sink.error(
        "E0205", f"{describe(value)} has no member `{name.text}`", name.span, help=help
    )
    return POISON


def _part(split: Node, name: syntax.Name, scope: Scope, place: str) -> Elaborated:
    operation = lookup("part")
    assert operation is not None
    node = scope.builder.step(operation, {"of": [split]}, {"name": name.text}, name.span)
    outer = scope.builder.claimed.get(split)
    if outer is not None:
        scope.builder.claim(node, f"{outer}.{name.text}")
    elif place and not place.endswith("/"):
        scope.builder.claim(node, place)
    return node


def _export(imported: Imported, name: syntax.Name, scope: Scope) -> Elaborated:
    """A template or a constant of a used file."""
    inner = imported.scope
    if name.text not in inner.declared:
        legal = list(inner.declared)
        scope.sink.error(
            "E0201",
            f"the used file has no `{name.text}`",
            name.span,
            help=did_you_mean(name.text, legal, "it exports nothing"),
            secondary=(Label(imported.span, "used here"),),
        )
        return POISON
    value = inner.own(name.text, name.span)
    if isinstance(value, Node | Imported) or (
        isinstance(value, ManyOf) and any(isinstance(item, Node) for item in value.items)
    ):
        scope.sink.error(
            "E0213",
            f"`{name.text}` is {describe(value)}, which a used file does not export",
            name.span,
            help="it exports templates and constants: make it a template",
        )
        return POISON
    return value
