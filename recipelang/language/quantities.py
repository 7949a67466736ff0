"""Numbers with suffixes and units, and the arithmetic of constants.

Arithmetic is exact in decimal and rounded once, so ``0.1 + 0.2`` is ``0.3``.

Example:
    >>> read_number("4k", "tokens")
    Quantity(value=4000, unit='tokens')
    >>> read_number("60%")
    Quantity(value=0.6, unit='fraction')
    >>> arithmetic("*", 2, Quantity(3, "steps"))
    Quantity(value=6, unit='steps')
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TypeAlias

from recipelang.language.tokens import SUFFIXES, UNITS, number_parts
from recipelang.values import Quantity

__all__ = ["UNIT_NAMES", "QuantityError", "Scalar", "arithmetic", "plain", "read_number"]

Scalar: TypeAlias = "int | float | Quantity"

UNIT_NAMES = {
    "": "a number", "tokens": "a number of tokens", "steps": "a number of steps",
    "epochs": "a number of epochs", "examples": "a number of examples", "fraction": "a fraction",
    "bytes": "a size in bytes", "seconds": "a duration", "gpu": "a number of GPUs",
    "tpu": "a number of TPUs", "cpu": "a number of CPUs",
}  # fmt: skip
"""What each unit is called in messages."""

LARGEST = 10**300
"""Numbers beyond this are refused: no field wants them, and floats end at 1.8e308."""
SMALLEST_EXPONENT = -300


class QuantityError(Exception):
    """A number or a sum that has no meaning; the message is for the reader of the recipe."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message, self.help = message, help


def read_number(text: str, unit: str = "") -> Scalar:
    """The value of a number as written, with its suffix and unit word.

    Raises QuantityError for a suffix that does not go with the unit, and for numbers out of range.
    """
    parts = number_parts(text)
    if parts is None:
        raise QuantityError(f"`{text}` is not a number")
    digits, suffix = parts[0].replace("_", ""), parts[1]
    value = _decimal(digits, text)
    whole = "." not in digits and "e" not in digits
    kind = "count"
    if suffix:
        kind, scale = SUFFIXES[suffix]
        value *= Fraction(scale)
        whole = value.denominator == 1 and kind != "fraction"
    number = _round(value, whole=whole)
    if not unit:
        return number if kind == "count" else Quantity(number, kind)
    if kind != "count":
        help = f"write `{digits} {unit}`, or `{text}` alone"
        raise QuantityError(f"`{text}` has a unit already, found `{unit}` after it", help)
    return Quantity(number, UNITS[unit])


def _decimal(digits: str, text: str) -> Fraction:
    try:
        value = Decimal(digits)
    except InvalidOperation:
        raise QuantityError(f"`{text}` is not a number") from None
    if value and not SMALLEST_EXPONENT <= value.adjusted() <= 300:
        raise QuantityError(f"`{text}` is out of range", "numbers lie between 1e-300 and 1e300")
    return Fraction(value)


def _round(value: Fraction, *, whole: bool) -> int | float:
    if abs(value) > LARGEST:
        raise QuantityError("the number is out of range", "numbers lie between 1e-300 and 1e300")
    if whole and value.denominator == 1 and abs(value) < 2**63:
        return int(value)
    return float(value)


def plain(value: Scalar) -> int | float:
    """The number without its unit."""
    return value.value if isinstance(value, Quantity) else value


def _exact(value: Scalar) -> Fraction:
    number = plain(value)
    return Fraction(number) if isinstance(number, int) else Fraction(Decimal(repr(number)))


def _unit(value: Scalar) -> str:
    return value.unit if isinstance(value, Quantity) else ""


def arithmetic(op: str, left: Scalar, right: Scalar) -> Scalar:
    """``left op right`` with op one of ``+ - * /``.

    Sums need one unit; a product takes at most one unit besides fractions; a quotient of two
    quantities of one unit is a number. Raises QuantityError otherwise, and for a division by zero.
    """
    a, b = _exact(left), _exact(right)
    if op == "/" and b == 0:
        raise QuantityError("a division by zero")
    unit = _sum_unit(op, left, right) if op in "+-" else _product_unit(op, left, right)
    value = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
    number = _round(value, whole=_whole(left) and _whole(right))
    return Quantity(number, unit) if unit else number


def _whole(value: Scalar) -> bool:
    return isinstance(plain(value), int) or _unit(value) == "fraction"


def _sum_unit(op: str, left: Scalar, right: Scalar) -> str:
    a, b = _unit(left), _unit(right)
    if a == b:
        return a
    if {a, b} <= {"", "fraction"}:
        return ""
    verb = "add" if op == "+" else "subtract"
    found = f"{UNIT_NAMES[a]} and {UNIT_NAMES[b]}"
    raise QuantityError(f"cannot {verb} {found}", "write both with the same unit")


def _product_unit(op: str, left: Scalar, right: Scalar) -> str:
    a, b = _unit(left).replace("fraction", ""), _unit(right).replace("fraction", "")
    if not b:
        return a
    if op == "*" and not a:
        return b
    if op == "/" and a == b:
        return ""
    verb = "multiply" if op == "*" else "divide"
    raise QuantityError(f"cannot {verb} {UNIT_NAMES[a]} by {UNIT_NAMES[b]}")
