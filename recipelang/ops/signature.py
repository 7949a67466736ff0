"""Reads an operation's signature: its operands, its fields, and the settings that fields accept.

Example:
    >>> def toy(model: Annotated[Model, Clause(""), "what"], rate: Annotated[float, "how"] = 1): ...
    >>> operands, fields = read_signature(toy)
    >>> operands[0].type, fields[0].name, fields[0].kind, fields[0].default
    ('Model', 'rate', 'float', 1)
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias

from recipelang.ops.marks import (
    BLOCK,
    BY_ORIGIN,
    DRAWN,
    DRAWS,
    HINT,
    LAYERS,
    LOCATION,
    METRIC,
    METRICS,
    PER_INPUT,
    PER_TENSOR,
    RESULT,
    SECRET,
    TENSOR,
    Absent,
    Adapter,
    Clause,
    Dataset,
    Delta,
    Forms,
    Layers,
    Mark,
    Measured,
    Model,
    Range,
    Tokenizer,
    Unit,
)
from recipelang.values import Attr, Form, Quantity

__all__ = [
    "OPERAND_CLASSES",
    "REQUIRED",
    "Default",
    "FieldSpec",
    "FormSpec",
    "OperandSpec",
    "form_spec",
    "read_signature",
]

REQUIRED: Final = Mark("required")
"""The default of a field that has none."""

Default: TypeAlias = "Attr | Mark"


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """An operand of a step.

    ``type`` is ``Model Adapter Delta Layers Dataset Tokenizer Measured``, or several joined by
    ``|``.
    ``prepositions`` may hold ``""`` (the subject) and words; an operand that takes both collects
    both, subject first.
    """

    name: str
    type: str
    many: bool
    optional: bool
    prepositions: tuple[str, ...]
    by_origin: bool
    metric: bool
    doc: str


@dataclass(frozen=True, slots=True)
class FormSpec:
    """One setting of a field: its name, parameters and first docstring line."""

    name: str
    fields: tuple[FieldSpec, ...]
    doc: str


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of the block or of the inputs, or a constant in a phrase.

    With ``per_input`` it stands on the inputs; with ``prepositions`` in the phrase, as the URI of
    ``model "URI" at "REV"``.

    ``kind`` is ``int float text bool choice form list quantity metrics secret``. ``units`` holds
    the unit names that are accepted: none for a plain number, one for ``steps`` (the attribute is
    then a plain number), several for a ``quantity`` (the attribute is then a :class:`Quantity`). A
    ``text`` with ``choices`` (``str | Literal["all-linear"]``) takes those as bare words and any
    string.
    """

    name: str
    kind: str
    doc: str
    default: Default = REQUIRED
    units: tuple[str, ...] = ()
    range: Range | None = None
    choices: tuple[str, ...] = ()
    forms: Forms | None = None
    item: FieldSpec | None = None
    optional: bool = False
    per_input: bool = False
    per_tensor: bool = False
    block: bool = True
    hint: bool = False
    location: bool = False
    draws: bool = False
    prepositions: tuple[str, ...] = ()
    absent: Absent | None = None

    @property
    def required(self) -> bool:
        """Whether the recipe must write it."""
        return self.default is REQUIRED


OPERAND_CLASSES: Final = {
    c: c.__name__ for c in (Model, Adapter, Delta, Layers, Dataset, Tokenizer, Measured)
}
KINDS: Final[Mapping[object, str]] = {
    int: "int", float: "float", str: "text", bool: "bool", Form: "form", Quantity: "quantity",
}  # fmt: skip


def read_signature(
    function: Callable[..., object],
) -> tuple[tuple[OperandSpec, ...], tuple[FieldSpec, ...]]:
    """The operands and fields that a function's annotations declare, in order."""
    hints = typing.get_type_hints(function, include_extras=True)
    operands: list[OperandSpec] = []
    fields: list[FieldSpec] = []
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name)
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if annotation is None or variadic:
            continue
        base, marks = _unwrap(annotation)
        if any(mark in marks for mark in (TENSOR, LAYERS, DRAWN, RESULT)):
            continue
        if any(isinstance(mark, Clause) for mark in marks) and not _is_constant(base):
            operands.append(_operand(parameter.name, base, marks, parameter.default))
        else:
            default = REQUIRED if parameter.default is parameter.empty else parameter.default
            fields.append(_field(parameter.name, base, marks, default))
    return tuple(operands), tuple(fields)


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Strip ``Annotated`` layers: the bare type and all marks, outermost last."""
    marks: list[Any] = []
    while typing.get_origin(annotation) is Annotated:
        annotation, *inner = typing.get_args(annotation)
        marks = [*inner, *marks]
    return annotation, marks


def _split_optional(base: Any) -> tuple[list[Any], bool]:
    """The members of a union without None, and whether None was one."""
    if typing.get_origin(base) in (typing.Union, UnionType):
        members = list(typing.get_args(base))
        return [m for m in members if m is not NoneType], NoneType in members
    return [base], False


def _is_constant(base: Any) -> bool:
    """Whether a phrase takes a constant here (a URI, a revision) and not a value with lineage."""
    return _split_optional(base)[0][0] in KINDS


def _operand(name: str, base: Any, marks: list[Any], default: object) -> OperandSpec:
    members, optional = _split_optional(base)
    many = len(members) == 1 and typing.get_origin(members[0]) is list
    if many:
        members, _ = _split_optional(typing.get_args(members[0])[0])
    return OperandSpec(
        name=name, type="|".join(OPERAND_CLASSES[m] for m in members), many=many,
        optional=optional or default is None, by_origin=BY_ORIGIN in marks, metric=METRIC in marks,
        prepositions=tuple(m.preposition for m in marks if isinstance(m, Clause)),
        doc=" ".join(m for m in marks if isinstance(m, str)),
    )  # fmt: skip


def _field(name: str, base: Any, marks: list[Any], default: Default) -> FieldSpec:
    per_input = PER_INPUT in marks
    if per_input:
        base, inner = _unwrap(typing.get_args(base)[0])
        marks = [*inner, *marks]
    members, optional = _split_optional(base)
    if len(members) == 1 and typing.get_origin(members[0]) is Annotated:
        base, inner = _unwrap(members[0])
        members, marks = [base], [*inner, *marks]
    if PER_TENSOR in marks and any(typing.get_origin(m) is Annotated for m in members):
        raise TypeError(f"{name}: put `| None` outside PerTensor")
    bare = members[0]
    item = None
    choices: tuple[str, ...] = ()
    if len(members) > 1:
        words = (m for m in members if typing.get_origin(m) is Literal)
        choices = next((typing.get_args(m) for m in words), ())
    if METRICS in marks:
        kind = "metrics"
    elif SECRET in marks:
        kind = "secret"
    elif typing.get_origin(bare) is Literal:
        kind, choices = "choice", typing.get_args(bare)
    elif typing.get_origin(bare) in (list, tuple):
        inner_base, inner_marks = _unwrap(typing.get_args(bare)[0])
        kind, item = "list", _field(name, inner_base, inner_marks, REQUIRED)
    else:
        kind = KINDS[bare]
    unit = next((m for m in marks if isinstance(m, Unit)), Unit(()))
    prepositions = tuple(m.preposition for m in marks if isinstance(m, Clause))
    return FieldSpec(
        name=name, kind=kind, doc=" ".join(m for m in marks if isinstance(m, str)), default=default,
        units=unit.names, range=next((m for m in marks if isinstance(m, Range)), None),
        choices=choices, forms=next((m for m in marks if isinstance(m, Forms)), None), item=item,
        optional=optional or default is None, per_input=per_input, per_tensor=PER_TENSOR in marks,
        block=(not per_input and not prepositions) or BLOCK in marks, hint=HINT in marks,
        location=LOCATION in marks, draws=DRAWS in marks, prepositions=prepositions,
        absent=next((m for m in marks if isinstance(m, Absent)), None),
    )  # fmt: skip


def form_spec(function: Callable[..., object]) -> FormSpec:
    """The schema of one setting, from its function's signature."""
    fields = read_signature(function)[1]
    doc = inspect.cleandoc(function.__doc__ or "").partition("\n")[0]
    return FormSpec(function.__name__.rstrip("_"), fields, doc)
