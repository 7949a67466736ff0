"""Field values: from what a recipe wrote to the constant that a step carries.

A value is read by what the field wants: a bare word in a field of an enumeration is a member, a
count without a unit is accepted where a count is wanted, and ``lr = 2h`` is a fault that says what
``lr`` is.

Example: ``density = 60%``, read for a field of unit ``fraction``, is the number ``0.6``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from recipelang.diagnostics import Label, Span
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.quantities import UNIT_NAMES, plain
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean, listed
from recipelang.language.values import (
    POISON,
    Elaborated,
    ManyOf,
    Opaque,
    Poison,
    Secret,
    Words,
    describe,
    is_measured,
    is_poison,
)
from recipelang.ops.spec import FieldSpec
from recipelang.types import ScalarType
from recipelang.values import Attr, Quantity, number_text

__all__ = ["Owner", "Reader", "bare_word", "convert", "located", "strip_groups"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
EXAMPLES = {
    "fraction": "60%", "tokens": "4k tokens", "steps": "200 steps", "epochs": "3 epochs",
    "examples": "100 examples", "seconds": "10min", "bytes": "80GiB", "gpu": "1 gpu",
    "tpu": "8 tpus", "cpu": "4 cpus",
}  # fmt: skip
_SCALARS = {
    "Int": ("",), "Float": ("",), "Fraction": ("fraction", ""),
    "Tokens": ("tokens",), "Steps": ("steps",),
    "Epochs": ("epochs",), "Examples": ("examples",), "Duration": ("seconds",), "Bytes": ("bytes",),
    "Devices": ("gpu", "tpu", "cpu"),
}  # fmt: skip
"""The units that a parameter of each type may have."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose field it is: ``ties-merge``, ``lora``, ``budget``. ``fields`` are the names of the
    operation's own fields, which fill equally named arguments of its settings later."""

    name: str
    span: Span
    fields: frozenset[str] = field(default_factory=frozenset[str])


Reader = Callable[[FieldSpec, syntax.Value, Scope, Owner], "Attr | Poison"]


def strip_groups(value: syntax.Value) -> syntax.Value:
    """The value inside parentheses that only group."""
    while isinstance(value, syntax.Group):
        value = value.value
    return value


def bare_word(value: syntax.Value) -> str | None:
    """The word, where the value is a single name."""
    value = strip_groups(value)
    return value.text if isinstance(value, syntax.Ref) and len(value.parts) == 1 else None


def located(words: Words) -> str:
    """A location: an absolute path, or a URI as written."""
    if _SCHEME.match(words.text):
        return words.text
    return os.path.normpath(os.path.join(words.folder, os.path.expanduser(words.text)))


def convert(
    spec: FieldSpec, value: Elaborated, span: Span, scope: Scope, owner: Owner
) -> Attr | Poison:
    """The elaborated value as the constant that the field wants; a fault is reported, and gives
    poison."""
    if is_poison(value) or _opaque_fits(spec, value):
        return POISON
    complaint = Complaint(spec, value, span, scope, owner)
    if is_measured(value):
        return complaint.measured()
    if isinstance(value, Node):
        return complaint.lineage()
    match spec.kind, value:
        case "bool", bool():
            return value
        case "int" | "float" | "quantity", int() | float() | Quantity() if not isinstance(
            value, bool
        ):
            return _number(spec, value, complaint)
        case "text", Words():
            return _text(spec, value, complaint)
        case "choice", Words(text=text) if text in spec.choices:
            return text
        case "choice", _:
            return complaint.choice(value.text if isinstance(value, Words) else None)
        case "secret", Secret(name=name):
            return name
        case "list", ManyOf(items=items) if spec.item is not None:
            inner = [convert(spec.item, item, span, scope, owner) for item in items]
            kept = tuple(item for item in inner if not isinstance(item, Poison))
            return kept if len(kept) == len(inner) else POISON
        case _:
            return complaint.kind()


def _opaque_fits(spec: FieldSpec, value: Elaborated) -> bool:
    """Whether the value is an unknown of a type that may fit."""
    if not isinstance(value, Opaque) or not isinstance(value.type, ScalarType):
        return isinstance(value, Opaque) and not is_measured(value)
    name = value.type.name
    if spec.kind in ("int", "float", "quantity"):
        wanted = spec.units or ("",)
        units = _SCALARS.get(name, ())
        return any(u in wanted or u in ("", "fraction") for u in units)
    return (spec.kind, name) in {
        ("bool", "Bool"), ("text", "Text"), ("choice", "Text"), ("secret", "Secret"),
    }  # fmt: skip


def _text(spec: FieldSpec, words: Words, complaint: Complaint) -> Attr | Poison:
    if spec.location and ("" in spec.prepositions or not spec.prepositions):
        if not words.text.strip():
            return complaint.report("E0513", f"`{spec.name}` is empty", "", "name a place")
        return located(words)
    return words.text


def _number(spec: FieldSpec, value: float | Quantity, complaint: Complaint) -> Attr | Poison:
    unit = value.unit if isinstance(value, Quantity) else ""
    number = plain(value)
    accepted = _accepted_unit(spec, unit, number)
    if accepted is None:
        return complaint.unit()
    if spec.kind == "int" or (
        spec.kind == "quantity" and accepted in ("tokens", "steps", "examples")
    ):
        if isinstance(number, float) and not number.is_integer():
            return complaint.report(
                "E0411", f"`{spec.name}` is a whole number, found {number_text(number)}", "",
                f"write `{spec.name} = {max(1, round(number))}`",
            )  # fmt: skip
        number = int(number)
    if spec.kind == "float":
        number = float(number)
    if spec.range is not None and not spec.range.holds(number):
        return complaint.range()
    return Quantity(number, accepted) if spec.kind == "quantity" else number


def _accepted_unit(spec: FieldSpec, unit: str, number: float) -> str | None:
    """The unit that the number has for the field, None where it does not go with it."""
    wanted = spec.units
    if unit:
        if unit in wanted:
            return unit
        percent = unit == "fraction" and not wanted and spec.kind == "float"
        return "" if percent else None
    if len(wanted) < 2:
        return wanted[0] if wanted else ""
    counts = [u for u in wanted if u != "fraction"]
    if "fraction" in wanted and (isinstance(number, float) or not counts):
        return "fraction"
    return counts[0]


def _blotted(span: Span, scope: Scope) -> bool:
    """Whether a secret was found inside this part of the text."""
    found = (d.primary.span for d in scope.sink.diagnostics if d.code == "E0702" and d.primary)
    return any(
        s.source is span.source and span.start <= s.start and s.end <= span.end for s in found
    )


@dataclass(frozen=True, slots=True)
class Complaint:
    """The faults that a field's value can have; each is reported and gives poison."""

    spec: FieldSpec
    value: Elaborated
    span: Span
    scope: Scope
    owner: Owner

    def report(self, code: str, message: str, label: str, help: str) -> Poison:
        """Report the fault at the value, with what the field is at its owner."""
        about = f"`{self.owner.name}` takes `{self.spec.name}`"
        if self.spec.doc:
            about += f": {self.spec.doc}"
        told = self.owner.span == self.span or self.owner.name == self.spec.name
        secondary = () if told else (Label(self.owner.span, about),)
        self.scope.sink.error(code, message, self.span, label=label, help=help, secondary=secondary)
        return POISON

    def wanted(self) -> str:
        """What the field is: ``a fraction``, ``a number of steps``, ``a text``."""
        kinds = {
            "text": "a text", "bool": "`true` or `false`", "list": "a list", "form": "a setting",
            "choice": f"one of {listed(self.spec.choices)}", "secret": "a secret",
            "metrics": "a list of metrics",
        }  # fmt: skip
        if self.spec.kind in kinds:
            return kinds[self.spec.kind]
        if not self.spec.units:
            return "a whole number" if self.spec.kind == "int" else "a number"
        return " or ".join(UNIT_NAMES[u] for u in self.spec.units)

    def example(self) -> str:
        """How the field may be written."""
        spec = self.spec
        if spec.units:
            texts = [f"`{spec.name} = {EXAMPLES[u]}`" for u in spec.units]
            lead = "a percentage or a number" if spec.units == ("fraction",) else "for example"
            return f"write {lead}: {' or '.join(texts)}"
        if spec.kind == "secret":
            return f'write `{spec.name} = secret("HF_TOKEN")`'
        if spec.kind == "list":
            return f"write `{spec.name} = [...]`"
        if spec.kind == "text" and spec.prepositions:
            before = next((word for word in spec.prepositions if word), self.owner.name)
            return f'write a text in quotes: `{before} "..."`'
        if spec.kind == "text":
            return f'write `{spec.name} = "..."`'
        if spec.kind == "bool":
            return f"write `{spec.name} = true` or `{spec.name} = false`"
        if spec.kind in ("int", "float") and spec.default is not None:
            default = spec.default
            if isinstance(default, int | float) and not isinstance(default, bool):
                return f"write a number without a unit: `{spec.name} = {number_text(default)}`"
        if spec.kind in ("int", "float"):
            return f"write a number without a unit behind `{spec.name} =`"
        return ""

    def inside(self) -> str:
        """How a number may be written that lies in the field's range."""
        spec, value = self.spec, self.value
        number = plain(value) if isinstance(value, int | float | Quantity) else 0
        if spec.units == ("fraction",) and not isinstance(value, Quantity) and 1 < number <= 100:
            return f"did you mean `{spec.name} = {number_text(number)}%`?"
        if spec.units:
            return self.example()
        return f"write a number in {spec.range}"

    def unit(self) -> Poison:
        """A wrong unit."""
        spec = self.spec
        inside = f" in {spec.range}" if spec.range else ""
        message = f"`{spec.name}` is {self.wanted()}, found {describe(self.value)}"
        return self.report("E0412", message, f"expected {self.wanted()}{inside}", self.example())

    def range(self) -> Poison:
        """A number out of bounds."""
        value = self.value
        number = number_text(plain(value)) if isinstance(value, int | float | Quantity) else ""
        message = f"`{self.spec.name}` is {number}, outside {self.spec.range}"
        label = f"expected {self.wanted()} in {self.spec.range}"
        return self.report("E0413", message, label, self.inside())

    def kind(self) -> Poison:
        """A value of another kind. A secret in letters has its own error already."""
        if self.spec.kind == "secret" and _blotted(self.span, self.scope):
            return POISON
        message = f"`{self.spec.name}` is {self.wanted()}, found {describe(self.value)}"
        return self.report("E0513", message, f"expected {self.wanted()}", self.example())

    def choice(self, found: str | None) -> Poison:
        """Not a member of the enumeration."""
        if found is None:
            return self.kind()
        message = f"`{found}` is not a value of `{self.spec.name}`"
        help = did_you_mean(found, self.spec.choices)
        return self.report("E0504", message, f"expected {self.wanted()}", help)

    def measured(self) -> Poison:
        """A number that only a run knows."""
        return self.report(
            "E0305",
            f"`{self.spec.name}` is a constant, and a measured value is known only by a run",
            "measured",
            "a measured value stands in gates and in `best ... by`",
        )

    def lineage(self) -> Poison:
        """A model or a dataset in a block."""
        return self.report(
            "E0310",
            f"`{self.spec.name}` is {self.wanted()}, found {describe(self.value)}",
            "has a lineage",
            "models and data stand in the phrase, behind `on` or `with`; blocks carry constants",
        )
