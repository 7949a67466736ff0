"""What flows between steps while a recipe runs.

A runtime value is immutable and cheap: a model is an open checkpoint, not its weights; a dataset is
its rows, read when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from recipelang.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

__all__ = ["DatasetValue", "Measurement", "ModelValue", "RuntimeValue", "SplitValue", "Table"]


@dataclass(frozen=True, eq=False)
class ModelValue:
    """A model: ``artifact`` is its content identity (sha256 hex)."""

    checkpoint: Checkpoint
    artifact: str


@dataclass(frozen=True, eq=False)
class AdapterValue:
    """An adapter: PEFT's configuration and tensors."""

    checkpoint: Checkpoint
    artifact: str


@dataclass(frozen=True, eq=False)
class TokenizerValue:
    """A tokenizer."""

    files: Mapping[str, bytes]
    artifact: str

    def load(self) -> RustTokenizer:
        """The tokenizer itself."""
        from tokenizers import Tokenizer as RustTokenizer

        return RustTokenizer.from_str(self.files["tokenizer.json"].decode())


class DatasetValue(Protocol):
    """A dataset: rows of ``format``; ``artifact`` is its content identity (sha256 hex of the
    source's content and the operations on it)."""

    @property
    def artifact(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def length(self) -> int | None: ...
    def rows(self) -> Sequence[Mapping[str, object]]: ...


@dataclass(frozen=True, eq=False)
class SplitValue:
    """The two parts of a dataset."""

    train: DatasetValue
    holdout: DatasetValue


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured number with its 95 % bootstrap interval. ``count`` is the number of units (tokens,
    examples) it rests on."""

    metric: str
    value: float
    low: float
    high: float
    count: int
    direction: str
    detail: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, eq=False)
class Table:
    """What ``evaluate`` gives: ``cells[model][dataset][metric]`` and ``samples[model][prompt]``."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Mapping[str, Measurement]]]
    samples: Mapping[str, Mapping[str, str]]


RuntimeValue: TypeAlias = (
    "ModelValue | AdapterValue | TokenizerValue | DatasetValue | SplitValue | Measurement | Table"
)
