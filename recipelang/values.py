"""Constants that a step carries: numbers with units, and settings such as ``lora(rank = 16)``.

Every value is immutable and hashable, and has one canonical text, which step ids, action keys, the
lock file and the printed graph share.

Example:
    >>> show(Form("lora", (("rank", 16), ("alpha", 32.0))))
    'lora(rank = 16, alpha = 32)'
    >>> show(Quantity(4000, "tokens"))
    '4000 tokens'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

__all__ = ["Attr", "Form", "Quantity", "canonical", "number_text", "show"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit.

    ``unit`` is one of ``tokens steps epochs examples fraction bytes seconds gpu tpu cpu``. Bytes
    and seconds are already scaled (``80GiB`` is 85899345920 bytes, ``10min`` is 600 seconds), a
    percentage is a fraction (``60%`` is 0.6).
    """

    value: int | float
    unit: str


@dataclass(frozen=True, slots=True)
class Form:
    """A named setting: ``lora(rank = 16)``, ``gradient(0, 1)``, ``per { "mlp" = 0.3 }``.

    The order of ``args`` has meaning only for ``gradient`` (positional, named ``"0"``, ``"1"``,
    ...) and ``per`` (the first match wins). A bare name is a ``Form`` without arguments.
    """

    name: str
    args: tuple[tuple[str, Attr], ...] = ()

    def get(self, name: str, default: Attr = None) -> Attr:
        """The argument ``name``, or ``default``."""
        return dict(self.args).get(name, default)


Attr: TypeAlias = "bool | int | float | str | Quantity | Form | tuple[Attr, ...] | None"


def number_text(value: float) -> str:
    """The shortest decimal text of a number, the same for ``2``, ``2.0`` and ``20e-1``.

    >>> number_text(1e-05), number_text(0.50), number_text(3.0)
    ('0.00001', '0.5', '3')
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    text = format(Decimal(repr(value)).normalize(), "f")
    return "0" if text in ("-0", "0") else text


def canonical(value: Attr) -> object:
    """A JSON-able text form in which every number is a string; equal values give equal forms.

    It is what step ids and action keys hash. The type is part of the form, so that the text
    ``"1"``, the number ``1`` and ``true`` stay apart; ``1`` and ``1.0`` do not.
    """
    match value:
        case None | bool():
            return value
        case int() | float():
            return {"n": number_text(value)}
        case str():
            return value
        case Quantity():
            return {"n": number_text(value.value), "unit": value.unit}
        case Form():
            args = value.args if value.name in ("per", "gradient") else tuple(sorted(value.args))
            return {"form": value.name, "args": [[name, canonical(arg)] for name, arg in args]}
        case tuple():
            return [canonical(item) for item in value]


def show(value: Attr) -> str:
    """The value as a recipe would write it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        case Quantity():
            return f"{number_text(value.value)} {value.unit}"
        case Form(name="gradient"):
            return "gradient(" + ", ".join(show(arg) for _, arg in value.args) + ")"
        case Form(name="per"):
            return "per { " + ", ".join(f"{show(k)} = {show(arg)}" for k, arg in value.args) + " }"
        case Form():
            inner = ", ".join(f"{name} = {show(arg)}" for name, arg in value.args)
            return f"{value.name}({inner})" if value.args else value.name
        case tuple():
            return "[" + ", ".join(show(item) for item in value) + "]"


FrozenFields: TypeAlias = "Mapping[str, Attr]"
