"""Figures of a merge, layer by layer: how far its result is from what it was made of.

For a result R, inputs X_i and, where the operation has one, a base B, with D_i = X_i - B:

- *norm ratio* of an input: ||R|| / ||X_i||, of a layer: ||R|| / mean_i ||X_i||;
- *cosine* of an input: <R, X_i> / (||R|| ||X_i||);
- *change ratio* and *change cosine*: the same of R - B and the D_i;
- *conflicts*: the share of elements where some D_i is positive and some D_j negative (what TIES
  resolves: Yadav et al. 2023, arXiv 2306.01708);
- *non-finite*: how many numbers of R are infinities or NaN.

All but the last are estimates from a fixed sample of each tensor (:mod:`recipelang.weights.report`
takes it); sums are added over the tensors of a layer before a ratio is taken. Nothing here needs
numpy, so a stored report is shown without it.

Example:
    >>> one = InputSums(squares=4.0, dot=2.0, change_squares=0.0, change_dot=0.0, equal=False)
    >>> w = TensorSums("model.layers.0.w", 8, 8, 0, 1.0, 0.0, None, None, (one,))
    >>> row = merge_report("linear-merge", (Origin("a"),), None, [w], 1).layers[0]
    >>> row.label, row.inputs[0].norm_ratio, row.inputs[0].cosine
    ('0', 0.5, 1.0)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, sqrt
from typing import Any

from recipelang.weights.layers import NUMBER, stands_before

__all__ = [
    "InputFigures",
    "InputSums",
    "LayerFigures",
    "MergeReport",
    "Origin",
    "TensorSums",
    "merge_report",
    "read_report",
]

SCHEMA = "recipelang/merge-report/1"
NAMED = 20
"""Tensors with infinities or NaN that a report names."""


@dataclass(frozen=True, slots=True)
class InputSums:
    """Sums over the sampled elements of a tensor, of one input X with D = X - B: ||X||^2, <R, X>,
    ||D||^2, <R - B, D> (0 without base). ``equal``: R is X in every one of them."""

    squares: float
    dot: float
    change_squares: float
    change_dot: float
    equal: bool


@dataclass(frozen=True, slots=True)
class TensorSums:
    """Sums over a tensor of the result. ``sampled`` of its ``elements`` are in ``squares``
    (||R||^2), ``change_squares`` (||R - B||^2), ``conflicts`` and ``inputs``; ``nonfinite`` counts
    all of them. ``conflicts`` is None where fewer than two inputs have a difference to the base,
    ``equal_base`` where there is none; an input is None where it was not read."""

    name: str
    elements: int
    sampled: int
    nonfinite: int
    squares: float
    change_squares: float
    conflicts: int | None
    equal_base: bool | None
    inputs: tuple[InputSums | None, ...]

    def to_json(self) -> list[object]:
        """As a journal's line has it: the fields in order."""
        return [
            self.name, self.elements, self.sampled, self.nonfinite, self.squares,
            self.change_squares, self.conflicts, self.equal_base,
            [i and [i.squares, i.dot, i.change_squares, i.change_dot, i.equal]
             for i in self.inputs],
        ]  # fmt: skip

    @classmethod
    def from_json(cls, row: Any) -> TensorSums:
        """What :meth:`to_json` gave. Raises TypeError, ValueError."""
        inputs = tuple(None if one is None else InputSums(*one) for one in row[-1])
        fields: list[Any] = [*row[:-1], inputs]
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class InputFigures:
    """Of one input in one layer; None where it was not read there, or has only zeros."""

    norm_ratio: float | None
    cosine: float | None
    change_ratio: float | None
    change_cosine: float | None


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One row. ``label`` is the layer's number (after the name of its stack where a model has
    several), ``before`` or ``after`` for what is in no layer, ``all`` for the whole model.
    ``conflicts`` is a share in [0, 1]."""

    label: str
    tensors: int
    elements: int
    sampled: int
    nonfinite: int
    norm_ratio: float | None
    change_ratio: float | None
    conflicts: float | None
    inputs: tuple[InputFigures, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """What went in: its name in the recipe and its content id (empty where it was not stored)."""

    name: str
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The report of one merge by the operation ``op``.

    ``whole`` is over all layers. ``unseen`` tensors were written by an earlier run that was killed
    and whose figures are lost. ``nonfinite`` names the first tensors that hold infinities or NaN,
    with how many. ``equal_to`` is the place in :attr:`origins` of the input or base that the result
    equals in every sampled element although another input differs from it; None otherwise.
    """

    op: str
    inputs: tuple[Origin, ...]
    base: Origin | None
    layers: tuple[LayerFigures, ...]
    whole: LayerFigures
    unseen: int
    nonfinite: tuple[tuple[str, int], ...]
    equal_to: int | None

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The inputs, then the base if there is one."""
        return self.inputs if self.base is None else (*self.inputs, self.base)

    def renamed(self, names: Mapping[str, str]) -> MergeReport:
        """The report with the names that content ids have now."""

        def now(origin: Origin) -> Origin:
            return replace(origin, name=names.get(origin.artifact, origin.name))

        base = None if self.base is None else now(self.base)
        return replace(self, inputs=tuple(now(o) for o in self.inputs), base=base)

    def to_json(self) -> dict[str, object]:
        """As ``merge-NAME.json`` holds it (docs/merge-report.md)."""
        return {"schema": SCHEMA, **asdict(self)}


def read_report(document: object) -> MergeReport | None:
    """What :meth:`MergeReport.to_json` gave; None for anything else."""
    try:
        body: Any = dict(document)  # type: ignore[call-overload]
        if body.pop("schema") != SCHEMA:
            return None
        base = body["base"]
        return MergeReport(
            body["op"], tuple(Origin(**o) for o in body["inputs"]),
            None if base is None else Origin(**base), tuple(_row(r) for r in body["layers"]),
            _row(body["whole"]), body["unseen"],
            tuple((name, count) for name, count in body["nonfinite"]), body["equal_to"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _row(body: Mapping[str, Any]) -> LayerFigures:
    fields = dict(body)
    fields["inputs"] = tuple(InputFigures(**i) for i in body["inputs"])
    return LayerFigures(**fields)


def merge_report(
    op: str, inputs: Sequence[Origin], base: Origin | None, sums: Iterable[TensorSums], tensors: int
) -> MergeReport:
    """Gather the sums of a result that has this many tensors."""
    found = sorted(sums, key=lambda t: t.name)
    labels = _labels([t.name for t in found])
    rows: dict[str, list[TensorSums]] = {label: [] for label in labels.values()}
    for tensor in found:
        rows[labels[tensor.name]].append(tensor)
    count, based = len(inputs), base is not None
    bad = [(t.name, t.nonfinite) for t in found if t.nonfinite]
    return MergeReport(
        op, tuple(inputs), base,
        tuple(_figures(label, row, count, based) for label, row in rows.items()),
        _figures("all", found, count, based), tensors - len(found), tuple(bad[:NAMED]),
        _equal_to(found, count),
    )  # fmt: skip


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Tensor name -> label of its row, in the order of rows."""
    numbered = {name: match for name in names if (match := NUMBER.search(name))}
    several = len({name[: match.start()] for name, match in numbered.items()}) > 1
    places: dict[str, tuple[int, str, int, str]] = {}
    for name in names:
        match = numbered.get(name)
        if match is None:
            before = stands_before(name)
            places[name] = (0, "", 0, "before") if before else (2, "", 0, "after")
        else:
            stack = name[: match.start()]
            places[name] = (1, stack, int(match[1]), (stack if several else "") + match[1])
    return {name: place[-1] for name, place in sorted(places.items(), key=lambda item: item[1])}


def _figures(
    label: str, tensors: Sequence[TensorSums], count: int, based: bool
) -> LayerFigures:  # fmt: skip
    inputs = tuple(_input(tensors, i, based) for i in range(count))
    voted = [t for t in tensors if t.conflicts is not None]
    votes = sum(t.sampled for t in voted)
    conflicts = sum(t.conflicts or 0 for t in voted) / votes if votes else None
    return LayerFigures(
        label, len(tensors), sum(t.elements for t in tensors), sum(t.sampled for t in tensors),
        sum(t.nonfinite for t in tensors), _mean_ratio([i.norm_ratio for i in inputs]),
        _mean_ratio([i.change_ratio for i in inputs]), _short(conflicts), inputs,
    )  # fmt: skip


def _input(tensors: Sequence[TensorSums], index: int, based: bool) -> InputFigures:
    """Over the tensors that have this input."""
    pairs = [(t, i) for t in tensors if (i := t.inputs[index]) is not None]
    norm = _ratio_cosine(
        sum(t.squares for t, _ in pairs), sum(i.squares for _, i in pairs),
        sum(i.dot for _, i in pairs),
    )  # fmt: skip
    if not based:
        return InputFigures(*norm, None, None)
    change = _ratio_cosine(
        sum(t.change_squares for t, _ in pairs), sum(i.change_squares for _, i in pairs),
        sum(i.change_dot for _, i in pairs),
    )  # fmt: skip
    return InputFigures(*norm, *change)


def _ratio_cosine(mine: float, other: float, dot: float) -> tuple[float | None, float | None]:
    """||r|| / ||x|| and <r, x> / (||r|| ||x||), from squared norms and the dot product."""
    if not other:
        return None, None
    ratio = sqrt(mine) / sqrt(other)
    if not mine:
        return 0.0, None
    return _short(ratio), _short(max(-1.0, min(1.0, dot / (sqrt(mine) * sqrt(other)))))


def _mean_ratio(ratios: Sequence[float | None]) -> float | None:
    """||r|| / mean_i ||x_i|| from the ||r|| / ||x_i||."""
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return None
    return 0.0 if 0.0 in known else _short(len(known) / sum(1 / ratio for ratio in known))


def _short(value: float | None) -> float | None:
    """Six significant digits, more than the sample gives; None for what is not finite."""
    return float(f"{value:.6g}") if value is not None and isfinite(value) else None


def _equal_to(tensors: Sequence[TensorSums], count: int) -> int | None:
    """The one input, or the base, that the result is, although another input differs."""

    def equal(place: int) -> bool:
        """In every tensor; it was read in each."""
        if place == count:
            return all(t.equal_base is True for t in read)
        return all((i := t.inputs[place]) is not None and i.equal for t in read)

    def differs(place: int) -> bool:
        return any((i := t.inputs[place]) is not None and not i.equal for t in read)

    read = [t for t in tensors if t.sampled]
    if not read or not any(differs(i) for i in range(count)):
        return None
    return next((place for place in (*range(count), count) if equal(place)), None)
