"""Types that a recipe writes: on parameters, results and bindings.

Example: an argument ``4k`` for a parameter ``length: Tokens`` becomes ``4000 tokens``.
"""

from __future__ import annotations

from recipelang.diagnostics import Sink, Span
from recipelang.ir.build import plain_type
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.fields import Owner, convert
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean
from recipelang.language.values import (
    POISON,
    Attached,
    Elaborated,
    ManyOf,
    Opaque,
    Poison,
    Secret,
    Words,
    article,
    describe,
    is_measured,
    is_poison,
)
from recipelang.ops.spec import FieldSpec
from recipelang.types import ListType, ScalarType, Type, type_name
from recipelang.values import Quantity

__all__ = ["conform", "expected_type", "scalar_spec"]

LINEAGE = (
    "Model", "Adapter", "Delta", "Layers", "Dataset", "Split", "Tokenizer", "Measured", "Table",
)  # fmt: skip
_SCALAR_FIELDS = {
    "Int": ("int", ()), "Float": ("float", ()), "Fraction": ("quantity", ("fraction",)),
    "Text": ("text", ()), "Bool": ("bool", ()), "Tokens": ("quantity", ("tokens",)),
    "Steps": ("quantity", ("steps",)), "Epochs": ("quantity", ("epochs",)),
    "Examples": ("quantity", ("examples",)), "Duration": ("quantity", ("seconds",)),
    "Bytes": ("quantity", ("bytes",)), "Devices": ("quantity", ("gpu", "tpu", "cpu")),
    "Secret": ("secret", ()),
}  # fmt: skip
TYPES = (*LINEAGE, *_SCALAR_FIELDS, "List")


def expected_type(written: syntax.TypeName, sink: Sink) -> Type | None:
    """The type that a name means; None (and a fault) where there is none of that name."""
    name = written.name.text
    if name == "List" and len(written.args) == 1:
        inner = expected_type(written.args[0], sink)
        return ListType(inner) if inner is not None else None
    if name not in TYPES:
        sink.error(
            "E0302", f"`{name}` is not a type", written.name.span, help=did_you_mean(name, TYPES)
        )
        return None
    if written.args or name == "List":
        help = "write `List[Model]`" if name == "List" else f"write `{name}`"
        sink.error(
            "E0302",
            f"`{name}` takes {'one type' if name == 'List' else 'no types'}",
            written.span,
            help=help,
        )
        return None
    return plain_type(name)


def scalar_spec(name: str, type_: ScalarType) -> FieldSpec:
    """A field that takes values of a scalar type, for its conversions and messages."""
    kind, units = _SCALAR_FIELDS[type_.name]
    return FieldSpec(name, kind, "", units=units)


def conform(
    value: Elaborated, wanted: Type | None, name: str, span: Span, scope: Scope, owner: Owner,
    verb: str = "is",
) -> Elaborated:  # fmt: skip
    """The value as one of the wanted type (a count gets its unit); a fault is reported, and gives
    poison. ``verb`` is what ``name`` does with the type in the message: is, gives."""
    if wanted is None or is_poison(value):
        return POISON
    inner = value.value if isinstance(value, Attached) else value
    if isinstance(wanted, ListType):
        if isinstance(inner, Opaque):
            return inner
        if not isinstance(inner, ManyOf):
            return _mismatch(value, wanted, name, span, scope, verb)
        items = tuple(conform(i, wanted.item, name, span, scope, owner) for i in inner.items)
        return POISON if any(map(is_poison, items)) else ManyOf(items)
    if isinstance(wanted, ScalarType):
        if isinstance(inner, Opaque):
            return inner
        converted = convert(scalar_spec(name, wanted), inner, span, scope, owner)
        if isinstance(converted, Poison):
            return POISON
        return inner if isinstance(inner, Words | Secret) else _scalar(converted)
    if is_measured(inner) and type_name(wanted) == "Measured":
        return value
    if isinstance(inner, Node | Opaque) and type_name(inner.type) == type_name(wanted):
        return value
    if isinstance(inner, Node) and (type_name(inner.type), type_name(wanted)) == (
        "Adapter",
        "Delta",
    ):
        return value
    return _mismatch(value, wanted, name, span, scope, verb)


def _scalar(value: object) -> Elaborated:
    assert isinstance(value, bool | int | float | Quantity)
    return value


def _mismatch(
    value: Elaborated, wanted: Type, name: str, span: Span, scope: Scope, verb: str
) -> Poison:
    text = type_name(wanted)
    help = f"give it {article(text)}"
    if isinstance(value, Node) and type_name(value.type) == "Split" and text == "Dataset":
        help = "write `.train` or `.holdout` behind it"
    scope.sink.error(
        "E0303",
        f"`{name}` {verb} {article(text)}, found {describe(value)}",
        span,
        label=f"expected {article(text)}",
        help=help,
    )
    return POISON
