"""What a training step tells: facts of its data first, evaluations on the way, a summary at the
end.

Example:
    >>> Evaluated(8, 2.5, 1.2).step
    8
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from recipelang.backend import Progress
from recipelang.data.batch import Batch
from recipelang.data.encoder import Encoder
from recipelang.data.packing import Counts

__all__ = [
    "Evaluated",
    "Facts",
    "Report",
    "Summary",
    "read_evaluations",
    "sample_of",
    "write_evaluations",
]

SAMPLE = 256
"""Tokens that a sample shows."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is trained on. ``rows`` of the dataset, what became of its documents, ``steps`` to do,
    and the first row's text in pieces, each with whether it is supervised."""

    rows: int
    counts: Counts
    steps: int
    sample: tuple[tuple[str, bool], ...]

    @property
    def supervised_share(self) -> float:
        """The share of the tokens that the loss counts."""
        return self.counts.supervised / self.counts.tokens

    def lines(self) -> list[str]:
        """A few sentences for a report."""
        c = self.counts
        found = [
            f"{self.rows:,} rows, {c.documents:,} documents, {c.tokens:,} tokens "
            f"in {c.rows:,} packed rows; {self.supervised_share:.1%} supervised",
        ]
        if c.long:
            kept = (
                f"{c.lost_tokens:,} tokens are left out"
                if c.lost_tokens
                else "they are split into pieces"
            )
            found.append(f"{c.long:,} documents are longer than a row; {kept}")
        if c.lost_ends:
            found.append(
                f"{c.lost_ends:,} documents lost their end, so the model does not see them stop"
            )
        if c.unsupervised:
            found.append(f"{c.unsupervised:,} pieces have nothing supervised and are left out")
        return found


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation after ``step`` steps: nats a token and bits a byte on the data of `over`."""

    step: int
    loss: float
    bits_per_byte: float


def read_evaluations(path: Path) -> dict[int, Evaluated]:
    """The evaluations of an interrupted training, by step; a damaged file is as good as none."""
    try:
        rows = [Evaluated(**json.loads(line)) for line in path.read_text().splitlines()]
    except (OSError, ValueError, TypeError):
        return {}
    return {row.step: row for row in rows}


def write_evaluations(path: Path, found: Mapping[int, Evaluated]) -> None:
    """Keep the evaluations beside the training's checkpoint, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(asdict(found[step])) + "\n" for step in sorted(found)))
    temporary.replace(path)


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole history of a training step."""

    facts: Facts
    history: tuple[Progress, ...]
    evaluations: tuple[Evaluated, ...]

    def to_jsonl(self) -> str:
        """A line a step: ``{"step": 1, "loss": …, "grad_norm": …, "lr": …, "tokens": …}``;
        evaluations follow as ``{"step": …, "over": {"loss": …, "bits_per_byte": …}}``."""
        rows: list[dict[str, object]] = [asdict(progress) for progress in self.history]
        for e in self.evaluations:
            over = {"loss": e.loss, "bits_per_byte": e.bits_per_byte}
            rows.append({"step": e.step, "over": over})
        return "".join(json.dumps(row) + "\n" for row in rows)


Report: TypeAlias = "Callable[[Facts | Progress | Evaluated | Summary], None]"


def sample_of(batch: Batch, encoder: Encoder) -> tuple[tuple[str, bool], ...]:
    """The first document of a batch in runs of equal supervision, special tokens shown."""
    first = batch.segments[0] == 1
    ids, mask = (
        batch.tokens[0][first][:SAMPLE].tolist(),
        batch.supervised[0][first][:SAMPLE].tolist(),
    )
    runs: list[tuple[list[int], bool]] = []
    for token, supervised in zip(ids, mask, strict=True):
        if not runs or runs[-1][1] != supervised:
            runs.append(([], supervised))
        runs[-1][0].append(token)
    return tuple((encoder.text(tokens, specials=True), supervised) for tokens, supervised in runs)
