"""How an operation declares itself: the signature is the schema.

An operation is one file whose stem is the verb. It holds one function with annotated parameters and
a decorator; from them come the clauses, the fields, the reference page, the completion and the
checks. The function itself is what runs.

Example:
    >>> from typing import Annotated
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recipelang.ops.marks import (
    AT,
    BLOCK,
    BY,
    BY_ORIGIN,
    DRAWN,
    DRAWS,
    FROM,
    HINT,
    INTO,
    LAYERS,
    LOCATION,
    METRIC,
    METRICS,
    OF,
    ON,
    OVER,
    PER_INPUT,
    PER_TENSOR,
    RESULT,
    SECRET,
    SUBJECT,
    TENSOR,
    TO,
    WITH,
    Absent,
    Adapter,
    Bytes,
    Clause,
    Dataset,
    Delta,
    Duration,
    Epochs,
    Examples,
    Forms,
    Fraction,
    Layers,
    Mark,
    Measured,
    Model,
    PerInput,
    PerTensor,
    Range,
    Steps,
    Tokenizer,
    Tokens,
    Unit,
    forms,
    units,
)
from recipelang.ops.signature import (
    REQUIRED,
    Default,
    FieldSpec,
    FormSpec,
    OperandSpec,
    form_spec,
    read_signature,
)
from recipelang.types import Type
from recipelang.values import Attr

__all__ = [
    "AT",
    "BLOCK",
    "BY",
    "BY_ORIGIN",
    "DRAWN",
    "DRAWS",
    "FROM",
    "HINT",
    "INTO",
    "LAYERS",
    "LOCATION",
    "METRIC",
    "METRICS",
    "OF",
    "ON",
    "OVER",
    "PER_INPUT",
    "PER_TENSOR",
    "REQUIRED",
    "RESULT",
    "SECRET",
    "SUBJECT",
    "TENSOR",
    "TO",
    "WITH",
    "Absent",
    "Adapter",
    "Bytes",
    "Clause",
    "Cost",
    "Dataset",
    "Default",
    "Delta",
    "Determinism",
    "Duration",
    "Epochs",
    "Examples",
    "Fault",
    "FieldSpec",
    "FormSpec",
    "Forms",
    "Fraction",
    "Kind",
    "Layers",
    "Mark",
    "Measured",
    "Model",
    "OperandSpec",
    "Operation",
    "PerInput",
    "PerTensor",
    "Range",
    "Steps",
    "Tokenizer",
    "Tokens",
    "Typed",
    "Unit",
    "form_spec",
    "forms",
    "operation",
    "read_signature",
    "units",
]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step is estimated to take. Bytes are peak figures except those read and written.

    ``levels`` of statistics look at a tensor's operands before the pass that writes it; operands
    that do not fit into memory together are read for each. ``looks`` are passes over all tensors
    before any is written.
    """

    flops: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    memory_bytes: int = 0
    tokens: int = 0
    levels: int = 0
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Typed:
    """What a type rule sees of a step.

    ``types`` are by role, always tuples; ``fields`` have their defaults.
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
    """A type rule's complaint; ``at`` is a role, a field, or ``role[2]``, for the place to show."""

    def __init__(
        self, code: str, message: str, *, at: str = "", label: str = "", help: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.at = code, message, at
        self.label, self.help, self.notes = label, help, notes


Kind = Literal["source", "data", "train", "weights", "measure", "evaluate", "choose", "search"]
"""`choose` gives one of its operands; `search` makes models, measures them and gives the best."""
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
    refuses: tuple[tuple[str, str], ...]

    def field(self, name: str) -> FieldSpec | None:
        """The field of that name."""
        return next((f for f in self.fields if f.name == name), None)

    def operand(self, name: str) -> OperandSpec | None:
        """The operand of that name."""
        return next((o for o in self.operands if o.name == name), None)

    @property
    def takes_layers(self) -> bool:
        """Whether Layers may stand for its Models, all of them, and it then gives Layers: true of
        what makes one Model of several, tensor by tensor."""
        several = [o.type.split("|") for o in self.operands if o.many]
        merges = any("Model" in types and "Layers" not in types for types in several)
        return self.kind == "weights" and self.result == "Model" and merges

    def accepted(self, operand: OperandSpec) -> tuple[str, ...]:
        """The names of the types that an operand may have."""
        named = tuple(operand.type.split("|"))
        return (*named, "Layers") if self.takes_layers and "Model" in named else named

    @property
    def summary(self) -> str:
        """What it does, in words: the first paragraph of its file, without the verb and the
        reference; of a file that does not begin with the verb, the first line of the operation's
        documentation."""
        of_file = " ".join(
            str(self.function.__globals__.get("__doc__")).partition("\n\n")[0].split()
        )
        if not of_file.startswith(f"{self.verb}: "):
            return self.doc.partition("\n")[0]
        text = of_file.removeprefix(f"{self.verb}: ").rstrip(".").partition(" (")[0]
        return f"{text[:1].upper()}{text[1:]}."

    @property
    def draws(self) -> bool:
        """Whether the step makes random draws."""
        return any(f.draws for f in self.fields)


def operation(
    *, kind: Kind, result: str, version: int = 1, determinism: Determinism = "exact",
    origin: str = "", laws: tuple[str, ...] = (), include: Callable[..., object] | None = None,
    result_type: Callable[[Typed], Type] | None = None,
    cost: Callable[[Typed], Cost] | None = None, direction: str = "", internal: bool = False,
    verb: str = "", refuses: tuple[tuple[str, str], ...] = (),
) -> Callable[[Callable[..., Any]], Operation]:  # fmt: skip
    """Declare the operation of a file.

    ``result`` is a type name. ``version`` is raised when results may change, not when code moves.
    ``origin`` is the role whose model the result comes from, ``common`` for the nearest common
    origin of the inputs, ``base or common`` where a base need not be written, or empty where a new
    origin starts. ``include`` is a function whose parameters are fields shared by a family
    (everything that trains). ``direction`` is ``min`` or ``max`` for a metric. An ``internal``
    operation has no verb of its own in recipes (model arithmetic). ``refuses`` pairs prepositions
    that users of other tools expect, and the verb does not take, with the help that says what to
    write instead.
    """

    def declare(function: Callable[..., Any]) -> Operation:
        operands, fields = read_signature(function)
        if include is not None:
            own = {f.name for f in fields}
            fields += tuple(f for f in read_signature(include)[1] if f.name not in own)
        return Operation(
            verb=verb or function.__name__.rstrip("_").replace("_", "-"),
            function=function, kind=kind, result=result, version=version, determinism=determinism,
            origin=origin, laws=laws, operands=operands, fields=fields,
            doc=inspect.cleandoc(function.__doc__ or ""),
            result_type=result_type, cost=cost, direction=direction, internal=internal,
            refuses=refuses,
        )  # fmt: skip

    return declare
