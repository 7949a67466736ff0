"""What an expression of a recipe stands for while it is being elaborated.

Constants are Python numbers, truth values, :class:`Quantity` and :class:`Words`; things with
lineage are graph nodes; a :class:`Poison` is a value whose fault was reported already, and
whatever is made of it stays silent.

Example:
    >>> describe(Quantity(7200, "seconds")), describe(True)
    ('a duration', 'a truth value')
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from recipelang.diagnostics import Span
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.quantities import UNIT_NAMES
from recipelang.program import Arithmetic, ListValue
from recipelang.types import LayersType, ListType, MeasuredType, ScalarType, Type, type_name
from recipelang.values import Attr, Form, Quantity

if TYPE_CHECKING:
    from recipelang.language.scope import Scope

__all__ = [
    "POISON", "Attached", "Builtin", "Elaborated", "Imported", "ManyOf", "Opaque", "Poison",
    "Secret", "TemplateValue", "Words", "article", "constant", "describe", "is_measured",
    "is_poison",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Poison:
    """The value of what is at fault; a fault was reported."""


POISON: Final = Poison()


@dataclass(frozen=True, slots=True)
class Words:
    """A text, and the folder that a relative path in it starts from."""

    text: str
    folder: str


@dataclass(frozen=True, slots=True)
class Secret:
    """``secret("HF_TOKEN")``: the name of an environment variable, never its value."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A parameter of a template that is checked without a call: only its type is known."""

    type: Type


@dataclass(frozen=True, slots=True)
class ManyOf:
    """A list while it is elaborated. ``size`` counts the items, those of inner lists too."""

    items: tuple[Elaborated, ...]
    size: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        inner = (max(1, item.size) if isinstance(item, ManyOf) else 1 for item in self.items)
        object.__setattr__(self, "size", sum(inner))


@dataclass(frozen=True, slots=True)
class Attached:
    """An input with its own parameters: ``chat(weight = 0.4)``."""

    value: Elaborated
    args: tuple[syntax.Arg, ...]
    scope: Scope
    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class TemplateValue:
    """A template, with the scope that its body sees."""

    template: syntax.Template
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """The name after ``as`` in a ``use``."""

    scope: Scope
    span: Span


@dataclass(frozen=True, slots=True)
class Builtin:
    """``range``, ``seeds`` or ``secret``."""

    name: str


Elaborated: TypeAlias = (
    Node
    | Arithmetic
    | ManyOf
    | bool
    | int
    | float
    | Words
    | Quantity
    | Form
    | Secret
    | Opaque
    | Poison
    | Attached
    | TemplateValue
    | Imported
    | Builtin
)


def is_poison(value: Elaborated) -> bool:
    """Whether the value, or any item of the list, is at fault."""
    match value:
        case Poison():
            return True
        case ManyOf(items=items):
            return any(is_poison(item) for item in items)
        case Attached(value=inner):
            return is_poison(inner)
        case _:
            return False


def is_measured(value: Elaborated) -> bool:
    """Whether only a run knows the number."""
    match value:
        case Arithmetic():
            return True
        case Node(type=type_) | Opaque(type=type_):
            return isinstance(type_, MeasuredType)
        case _:
            return False


def article(noun: str) -> str:
    """The noun with ``a`` or ``an``; ``Layers`` are several."""
    if noun == "Layers":
        return noun
    return f"an {noun}" if noun[:1] in "AEIOUaeio" else f"a {noun}"


def describe(value: Elaborated) -> str:
    """What the value is, for a message: ``a Model``, ``a duration``, ``a list of Model``."""
    match value:
        case Node(type=type_) | Opaque(type=type_):
            return _describe_type(type_)
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case Quantity(unit=unit):
            return UNIT_NAMES[unit]
        case ManyOf(items=items):
            inner = {describe(item).partition(" ")[2] for item in items}
            return f"a list of {inner.pop()}" if len(inner) == 1 else "a list"
        case Attached(value=inner):
            return f"{describe(inner)} with parameters"
        case _:
            return _DESCRIPTIONS[type(value).__name__]


_DESCRIPTIONS = {
    "Words": "a text", "Secret": "a secret", "Arithmetic": "a measured value", "Form": "a setting",
    "Poison": "an unknown value", "TemplateValue": "a template", "Imported": "a used file",
    "Builtin": "a function",
}  # fmt: skip


def _describe_type(type_: Type | None) -> str:
    match type_:
        case MeasuredType():
            return "a measured value"
        case ScalarType(name=name):
            return article(name)
        case LayersType():
            return "layers of a model"
        case ListType(item=item):
            return f"a list of {type_name(item)}" if item else "a list"
        case _:
            return article(type_name(type_))


def constant(value: Elaborated) -> Attr | ListValue | Node | Arithmetic:
    """The value as a program keeps it. Poison and what is opaque become None."""
    match value:
        case Words(text=text):
            return text
        case ManyOf(items=items):
            kept = [constant(item) for item in items]
            types = [item.type for item in items if isinstance(item, Node)]
            if kept and not types:
                return tuple(
                    item for item in kept if not isinstance(item, Node | ListValue | Arithmetic)
                )
            return ListValue(tuple(kept), types[0] if types else None)
        case Attached(value=inner):
            return constant(inner)
        case Node() | Arithmetic() | bool() | int() | float() | Quantity() | Form():
            return value
        case _:
            return None
