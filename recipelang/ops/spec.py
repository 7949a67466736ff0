"""How an operation declares itself: the signature is the schema.

An operation is one file whose stem is the verb. It holds one function with annotated parameters and
a decorator; from them come the clauses, the fields, the reference page, the completion and the
checks. The function itself is what runs.

Example:
    >>> @operation(kind="weights", result="Model", origin="base", version=1)
    ... def toy_merge(
    ...     inputs: Annotated[list[Model], SUBJECT, WITH, "the models to merge"],
    ...     base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    ...     weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    ...     normalize: Annotated[bool, "divide by the sum of the weights"] = True,
    ... ):
    ...     "Say what it does."
    >>> [field.name for field in toy_merge.fields]
    ['weight', 'normalize']
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from recipelang.types import Type
from recipelang.values import Attr, Form, Quantity

# ---------------------------------------------------------------- what signatures are written with

T = TypeVar("T")


class Model:
    """Stands for a model in a signature."""


class Adapter:
    """Stands for an adapter in a signature."""


class Delta:
    """Stands for a delta in a signature."""


class Dataset:
    """Stands for a dataset in a signature."""


class Tokenizer:
    """Stands for a tokenizer in a signature."""


class Measured:
    """Stands for a measured number in a signature."""


@dataclass(frozen=True, slots=True)
class Clause:
    """Where an operand is written: behind a preposition, or (``""``) right behind the verb."""

    preposition: str


SUBJECT: Final = Clause("")
ON: Final = Clause("on")
INTO: Final = Clause("into")
WITH: Final = Clause("with")
FROM: Final = Clause("from")
TO: Final = Clause("to")
OF: Final = Clause("of")
AT: Final = Clause("at")
BY: Final = Clause("by")
OVER: Final = Clause("over")


@dataclass(frozen=True, slots=True)
class Mark:
    """A property of a parameter, by name."""

    name: str


BY_ORIGIN: Final = Mark("by_origin")
"""The operand is the nearest common origin of the inputs where it is not written."""
BLOCK: Final = Mark("block")
"""A per-input field that may also stand in the block, for inputs without their own."""
HINT: Final = Mark("hint")
"""A field that never changes the meaning of the result (``micro_batch``): not in the step's identity."""
LOCATION: Final = Mark("location")
"""A field that says where bytes are: the identity holds their content or revision instead."""
PER_INPUT: Final = Mark("per_input")
PER_TENSOR: Final = Mark("per_tensor")
DRAWS: Final = Mark("draws")
"""The field ``seed``: filled from the file's seed, and its presence says that the step draws."""

PerInput = Annotated[tuple[T, ...], PER_INPUT]
"""A value attached to each input by a call: ``chat(weight = 0.4)``; the function receives a tuple."""
PerTensor = Annotated[T, PER_TENSOR]
"""A value that may vary by layer or tensor; the function receives the value for its tensor."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a field; several, for a field that takes any of them as a :class:`Quantity`."""

    names: tuple[str, ...]


Fraction = Annotated[float, Unit(("fraction",))]
Tokens = Annotated[int, Unit(("tokens",))]
Steps = Annotated[int, Unit(("steps",))]
Epochs = Annotated[float, Unit(("epochs",))]
Examples = Annotated[int, Unit(("examples",))]
Duration = Annotated[float, Unit(("seconds",))]
Bytes = Annotated[int, Unit(("bytes",))]


def units(*names: str) -> Unit:
    """For ``Annotated[Quantity, units("examples", "tokens")]``: a number with any of these units."""
    return Unit(names)


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, closed unless said otherwise; it prints as ``(0, 1]``."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is inside."""
        low_ok = self.low is None or value > self.low or (value == self.low and not self.open_low)
        high_ok = (
            self.high is None or value < self.high or (value == self.high and not self.open_high)
        )
        return low_ok and high_ok

    def __str__(self) -> str:
        low = "(-∞" if self.low is None else ("(" if self.open_low else "[") + f"{self.low:g}"
        high = "∞)" if self.high is None else f"{self.high:g}" + (")" if self.open_high else "]")
        return f"{low}, {high}"


@dataclass(frozen=True, slots=True)
class Forms:
    """The settings that a field of type :class:`Form` accepts, each a function whose signature is its schema.

    ``package`` names a package in which every module is one setting (``recipelang.objectives``).
    ``sums`` says that they may be added with weights: ``0.7 * forward_kl + 0.3 * cross_entropy``.
    """

    functions: tuple[Callable[..., object], ...] = ()
    package: str = ""
    sums: bool = False


def forms(*functions: Callable[..., object], package: str = "", sums: bool = False) -> Forms:
    """For ``Annotated[Form, forms(lora, qlora)]``."""
    return Forms(functions, package, sums)


@dataclass(frozen=True, slots=True)
class Absent:
    """For a field that an operation gained after its first release: ``value`` means what the operation
    did before the field existed, so steps with it keep the identities that they had."""

    value: Attr


TENSOR: Final = Mark("tensor")
"""A parameter that gets the name of the tensor a weight operation is asked for; not a field."""
LAYERS: Final = Mark("layers")
"""A parameter that gets the number of layers of a weight operation's first operand; not a field."""
METRICS: Final = Mark("metrics")
"""A list of metric names (verbs whose result is ``Measured``), as ``metrics`` of ``evaluate`` has."""
METRIC: Final = Mark("metric")
"""An operand that is a metric (the name of one, or a template that gives ``Measured``)."""
SECRET: Final = Mark("secret")
"""A field that takes ``secret("NAME")`` only; never hashed, printed or stored."""

# ---------------------------------------------------------------- what a signature becomes

REQUIRED: Final = Mark("required")
"""The default of a field that has none."""

Default: TypeAlias = "Attr | Mark"


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """An operand: ``type`` is ``Model Adapter Delta Dataset Tokenizer Measured``, or several joined by ``|``.

    ``prepositions`` may hold ``""`` (the subject) and words; an operand that takes both collects both,
    subject first.
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
    """A field of the block, or (``per_input``) of the inputs, or (``prepositions``) a constant in a phrase,
    as the URI of ``model "URI" at "REV"``.

    ``kind`` is ``int float text bool choice form list quantity metrics secret``. ``units`` holds the
    unit names that are accepted: none for a plain number, one for ``steps`` (the attribute is then a
    plain number), several for a ``quantity`` (the attribute is then a :class:`Quantity`). A ``text``
    with ``choices`` (``str | Literal["all-linear"]``) takes those as bare words and any string.
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


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step is estimated to take. Bytes are peak figures except those read and written."""

    flops: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    memory_bytes: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Typed:
    """What a type rule sees of a step: operand types by role (always tuples), and fields with defaults.

    ``places`` names the operands as the recipe does, for messages. Per-input fields are tuples.
    """

    types: Mapping[str, tuple[Type | None, ...]]
    fields: Mapping[str, Attr]
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def one(self, role: str) -> Type | None:
        """The type of a single operand, or None when it is absent or unknown."""
        found = self.types.get(role, ())
        return found[0] if found else None


class Fault(Exception):
    """A type rule's complaint. ``at`` is a role, a field, or ``role[2]``; it finds the place in the source."""

    def __init__(
        self, code: str, message: str, *, at: str = "", label: str = "", help: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.at = code, message, at
        self.label, self.help, self.notes = label, help, notes


Kind = Literal["source", "data", "train", "weights", "measure", "evaluate", "choose"]
Determinism = Literal["exact", "repeatable", "stochastic"]


@dataclass(frozen=True, slots=True)
class Operation:
    """Everything the compiler knows of a verb. See :func:`operation`."""

    verb: str
    function: Callable[..., Any]
    kind: Kind
    result: str
    version: int
    determinism: Determinism
    origin: str
    laws: tuple[str, ...]
    operands: tuple[OperandSpec, ...]
    fields: tuple[FieldSpec, ...]
    doc: str
    result_type: Callable[[Typed], Type] | None
    cost: Callable[[Typed], Cost] | None
    direction: str
    internal: bool

    def field(self, name: str) -> FieldSpec | None:
        """The field of that name."""
        return next((f for f in self.fields if f.name == name), None)

    def operand(self, name: str) -> OperandSpec | None:
        """The operand of that name."""
        return next((o for o in self.operands if o.name == name), None)

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.doc.partition("\n")[0]

    @property
    def draws(self) -> bool:
        """Whether the step makes random draws."""
        return any(f.draws for f in self.fields)


def operation(
    *, kind: Kind, result: str, version: int = 1, determinism: Determinism = "exact",
    origin: str = "", laws: tuple[str, ...] = (), include: Callable[..., object] | None = None,
    result_type: Callable[[Typed], Type] | None = None,
    cost: Callable[[Typed], Cost] | None = None, direction: str = "", internal: bool = False,
    verb: str = "",
) -> Callable[[Callable[..., Any]], Operation]:  # fmt: skip
    """Declare the operation of a file.

    ``result`` is a type name. ``version`` is raised when results may change, not when code moves.
    ``origin`` is the role whose model the result comes from, ``common`` for the nearest common origin
    of the inputs, or empty where a new origin starts. ``include`` is a function whose parameters are
    fields shared by a family (everything that trains). ``direction`` is ``min`` or ``max`` for a
    metric. An ``internal`` operation has no verb of its own in recipes (model arithmetic).
    """

    def declare(function: Callable[..., Any]) -> Operation:
        operands, fields = read_signature(function)
        if include is not None:
            own = {f.name for f in fields}
            fields += tuple(f for f in read_signature(include)[1] if f.name not in own)
        return Operation(
            verb=verb or function.__name__.rstrip("_").replace("_", "-"), function=function, kind=kind,
            result=result, version=version, determinism=determinism, origin=origin, laws=laws,
            operands=operands, fields=fields, doc=inspect.cleandoc(function.__doc__ or ""),
            result_type=result_type, cost=cost, direction=direction, internal=internal,
        )  # fmt: skip

    return declare


OPERAND_CLASSES: Final = {c: c.__name__ for c in (Model, Adapter, Delta, Dataset, Tokenizer, Measured)}
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
        if annotation is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        base, marks = _unwrap(annotation)
        if TENSOR in marks or LAYERS in marks:
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
