"""The words that an operation's signature is written with: operand classes, clauses, units, ranges.

Example:
    >>> str(Range(0, 1, open_low=True))
    '(0, 1]'

They are imported from :mod:`recipelang.ops.spec`, which reads such signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

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
    "Dataset",
    "Delta",
    "Duration",
    "Epochs",
    "Examples",
    "Forms",
    "Fraction",
    "Layers",
    "Mark",
    "Measured",
    "Model",
    "PerInput",
    "PerTensor",
    "Range",
    "Steps",
    "Tokenizer",
    "Tokens",
    "Unit",
    "forms",
    "units",
]

T = TypeVar("T")


class Model:
    """Stands for a model in a signature."""


class Adapter:
    """Stands for an adapter in a signature."""


class Delta:
    """Stands for a delta in a signature."""


class Layers:
    """Stands for a range of layers of a model in a signature."""


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
"""A field that never changes the meaning of a result (``micro_batch``), so no part of identity."""
LOCATION: Final = Mark("location")
"""A field that says where bytes are: the identity holds their content or revision instead."""
PER_INPUT: Final = Mark("per_input")
PER_TENSOR: Final = Mark("per_tensor")
DRAWS: Final = Mark("draws")
"""The field ``seed``: filled from the file's seed, and its presence says that the step draws."""

PerInput = Annotated[tuple[T, ...], PER_INPUT]
"""A value attached to each input, ``chat(weight = 0.4)``; the function receives a tuple."""
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
    """For ``Annotated[Quantity, units("examples", "tokens")]``: a number with one of these."""
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
    """The settings that a field of type :class:`Form` accepts.

    Each is a function whose signature is its schema.
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
    """For a field that an operation gained after its first release: ``value`` means what the
    operation did before the field existed, so steps with it keep the identities that they had."""

    value: Attr


TENSOR: Final = Mark("tensor")
"""A parameter that gets the name of the tensor a weight operation is asked for; not a field."""
DRAWN: Final = Mark("drawn")
"""A parameter that gets, for each input, the text that its random masks are keyed by (see
:func:`recipelang.weights.kernels.uniform_bits.keys`); not a field. The operation has the field
``seed`` with the mark ``DRAWS``."""
LAYERS: Final = Mark("layers")
"""A parameter that is no field: ``depth`` gets the number of layers of a weight operation's first
operand, ``depths`` those of all its models in order."""
RESULT: Final = Mark("result")
"""A parameter that gets the type of a weight operation's result; not a field."""
METRICS: Final = Mark("metrics")
"""A list of metric names (verbs whose result is ``Measured``): ``metrics`` of ``evaluate``."""
METRIC: Final = Mark("metric")
"""An operand that is a metric (the name of one, or a template that gives ``Measured``)."""
SECRET: Final = Mark("secret")
"""A field that takes ``secret("NAME")`` only; never hashed, printed or stored."""
