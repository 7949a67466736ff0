"""Comprehensions: ``[f(x = r) for r in [1e-5, 2e-5] for s in seeds(3)]``, unrolled while checking.

The size is known at once and limited (1,000, or the budget's ``variants``).

Example: the first loop is the outer one, so the list above holds the three seeds of ``1e-5`` first.
"""

from __future__ import annotations

from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.scope import Scope
from recipelang.language.values import (
    POISON,
    Elaborated,
    ManyOf,
    Opaque,
    Poison,
    describe,
    is_poison,
)
from recipelang.types import ListType, MeasuredType, ScalarType

__all__ = ["comprehension", "limited", "within_limit"]


def within_limit(count: int, value: syntax.Value, scope: Scope) -> bool:
    """Whether a list may have this many items; a fault otherwise."""
    if count <= scope.session.variants:
        return True
    limit = scope.session.variants
    scope.sink.error(
        "E0505",
        f"the list has {count} items, more than {limit}",
        value.span,
        help=f"if that is meant, write `budget {{ variants = {count} }}`",
    )
    return False


def limited(items: tuple[Elaborated, ...], value: syntax.Value, scope: Scope) -> Elaborated:
    """The list, unless it holds too many items in all: lists of lists grow fast."""
    if any(isinstance(item, Poison) for item in items):
        return POISON
    many = ManyOf(items)
    return many if within_limit(many.size, value, scope) else POISON


def comprehension(value: syntax.Each, scope: Scope, place: str) -> Elaborated:
    """The unrolled list. Over a list of unknown length the body is checked once."""
    scopes = [scope]
    for name, source in value.loops:
        inner: list[Scope] = []
        for outer in scopes:
            items = _items(source, outer)
            if items is None:
                return POISON
            if isinstance(items, Opaque):
                return _once(value, outer.child({name.text: _element(items, outer)}))
            if not within_limit(len(inner) + len(items), value, scope):
                return POISON
            inner += [outer.child({name.text: item}) for item in items]
        scopes = inner
    named = place and not place.endswith("/")
    found = (
        each.evaluate(value.value, f"{place}[{i}]" if named else place)
        for i, each in enumerate(scopes)
    )
    return limited(tuple(found), value, scope)


def _items(source: syntax.Value, scope: Scope) -> tuple[Elaborated, ...] | Opaque | None:
    found = scope.evaluate(source)
    if isinstance(found, ManyOf):
        return found.items
    if isinstance(found, Opaque) and isinstance(found.type, ListType):
        return found
    if not is_poison(found):
        scope.sink.error(
            "E0517",
            f"`for` goes over a list, found {describe(found)}",
            source.span,
            help="write `[a, b]`, `range(lo, hi, step)` or `seeds(n)`",
        )
    return None


def _element(items: Opaque, scope: Scope) -> Elaborated:
    """An item of a list of which only the type is known."""
    assert isinstance(items.type, ListType)
    type_ = items.type.item
    if type_ is None:
        return POISON
    if isinstance(type_, ScalarType | ListType | MeasuredType):
        return Opaque(type_)
    return scope.builder.parameter("item", type_)


def _once(value: syntax.Each, scope: Scope) -> Elaborated:
    """Check the body for one unknown item."""
    found = scope.evaluate(value.value)
    known = found.type if isinstance(found, Node | Opaque) else None
    return Opaque(ListType(known))
