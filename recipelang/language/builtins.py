"""Built-in functions: ``range(lo, hi, step)``, ``seeds(n)`` and ``secret("NAME")``.

Example: ``range(0.1, 0.4, 0.1)`` is ``[0.1, 0.2, 0.3]``: it starts at ``lo`` and ends before
``hi``.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from recipelang.language import syntax
from recipelang.language.quantities import QuantityError, Scalar, arithmetic, plain
from recipelang.language.scope import Scope
from recipelang.language.sweeps import within_limit
from recipelang.language.values import (
    POISON,
    Elaborated,
    ManyOf,
    Opaque,
    Secret,
    Words,
    describe,
    is_poison,
)
from recipelang.values import Quantity

__all__ = ["call_builtin"]

FORMS = {"range": "range(lo, hi, step)", "seeds": "seeds(n)", "secret": 'secret("HF_TOKEN")'}


def call_builtin(name: str, call: syntax.Call, scope: Scope) -> Elaborated:
    """What the function gives; faults are reported, and give poison."""
    values = [scope.evaluate(arg.value) for arg in call.args]
    counts = {"range": (2, 3), "seeds": (1,), "secret": (1,)}[name]
    if any(arg.name for arg in call.args) or len(values) not in counts:
        scope.sink.error("E0511", f"`{name}` is written `{FORMS[name]}`", call.span)
        return POISON
    if any(is_poison(value) or isinstance(value, Opaque) for value in values):
        return POISON
    if name == "secret":
        return _secret(values[0], call, scope)
    numbers = [
        v for v in values if isinstance(v, int | float | Quantity) and not isinstance(v, bool)
    ]
    if len(numbers) != len(values):
        found = next(v for v in values if v not in numbers)
        scope.sink.error(
            "E0517",
            f"`{name}` takes numbers, found {describe(found)}",
            call.span,
            help=f"write `{FORMS[name]}`",
        )
        return POISON
    return _seeds(numbers[0], call, scope) if name == "seeds" else _range(numbers, call, scope)


def _secret(value: Elaborated, call: syntax.Call, scope: Scope) -> Elaborated:
    if isinstance(value, Words) and value.text.isidentifier():
        return Secret(value.text)
    scope.sink.error(
        "E0511",
        "`secret` takes the name of an environment variable",
        call.span,
        help='write `secret("HF_TOKEN")`; the token itself never stands in a recipe',
    )
    return POISON


def _seeds(count: Scalar, call: syntax.Call, scope: Scope) -> Elaborated:
    """The file's seed, and one more each."""
    if not isinstance(count, int) or count < 1:
        scope.sink.error("E0517", "`seeds` takes a whole number of at least 1", call.span)
        return POISON
    if not within_limit(count, call, scope):
        return POISON
    return ManyOf(tuple(scope.builder.seed + i for i in range(count)))


def _range(numbers: list[Scalar], call: syntax.Call, scope: Scope) -> Elaborated:
    """From the first number in steps of the third [1], ending before the second."""
    low, high = numbers[:2]
    step = numbers[2] if len(numbers) == 3 else _one_like(low)
    try:
        span = arithmetic("-", high, low)
        arithmetic("+", low, step)
    except QuantityError as error:
        scope.sink.error("E0402", error.message, call.span, help=error.help)
        return POISON
    if plain(step) == 0 or plain(span) / plain(step) < 0:
        scope.sink.error(
            "E0517",
            "this `range` never arrives",
            call.span,
            help="the step leads from the first number to the second, and is not zero",
        )
        return POISON
    ratio = Fraction(str(plain(span))) / Fraction(str(plain(step)))
    count = ceil(ratio)
    if not within_limit(count, call, scope):
        return POISON
    return ManyOf(tuple(arithmetic("+", low, arithmetic("*", i, step)) for i in range(count)))


def _one_like(value: Scalar) -> Scalar:
    return Quantity(1, value.unit) if isinstance(value, Quantity) else 1
