"""Data steps: what `dataset`, `split`, `mix` and the parts of a split give when they run.

Nothing is stored: rows are read when they are asked for, and an artifact id is a hash of the
source's content and of the operations on it.

Example:
    >>> evaluate_data(node, {}, "00").format  # doctest: +SKIP
    'text'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from recipelang.canonical import canonical_json
from recipelang.data import source
from recipelang.diagnostics.diagnostic import fault
from recipelang.ir.graph import Node
from recipelang.run.values import RuntimeValue, SplitValue
from recipelang.values import Attr, Quantity, canonical

if TYPE_CHECKING:
    from recipelang.data.encoder import Encoder
    from recipelang.data.tokenise import Documents

__all__ = ["Rows", "evaluate_data"]

Row: TypeAlias = Mapping[str, object]
Inputs: TypeAlias = "Mapping[str, tuple[RuntimeValue, ...]]"


@dataclass(frozen=True, eq=False)
class Rows:
    """A :class:`~recipelang.run.values.DatasetValue`.

    ``take_tokens`` cuts the dataset when it is tokenised; ``template`` is its own chat template, if
    any.
    """

    artifact: str
    format: str
    length: int | None
    load: Callable[[], Sequence[Row]]
    take_tokens: int | None = None
    template: str | None = None

    @cached_property
    def _rows(self) -> Sequence[Row]:
        return self.load()

    def rows(self) -> Sequence[Row]:
        """All rows, by the columns of the format. Raises RecipeError of band E07."""
        return self._rows

    @cached_property
    def _documents(self) -> dict[tuple[object, ...], Documents]:
        return {}

    def documents(self, encoder: Encoder, supervise: str, *, terminate: bool = True) -> Documents:
        """The rows as tokens, made once for all steps that read them alike: see
        :func:`~recipelang.data.tokenise.tokenise`.
        """
        from recipelang.data.tokenise import tokenise

        key = (*encoder.key, supervise, terminate)
        if key not in self._documents:
            self._documents[key] = tokenise(
                self.rows(), self.format, supervise, encoder,
                take_tokens=self.take_tokens, terminate=terminate,
            )  # fmt: skip
        return self._documents[key]


def identity(op: str, **parts: object) -> str:
    """The artifact id (sha256 hex) of a data step."""
    document = canonical_json({"op": op, **parts})
    return hashlib.sha256(b"recipelang/data/1\n" + document).hexdigest()


def evaluate_data(node: Node, inputs: Inputs, draws: str | None) -> Rows | SplitValue:
    """The value of a data step; ``draws`` is the step's draw key (see
    :mod:`recipelang.data.draws`).

    Raises RecipeError of band E07 where a file cannot be read or is not what it should be.
    """
    match node.op:
        case "dataset":
            return _dataset(node, draws or "")
        case "split":
            return _split(node, _one(inputs, "data"), draws or "")
        case "mix":
            return _mix(node, [v for v in inputs["data"] if isinstance(v, Rows)])
        case "part":
            whole = inputs["of"][0]
            assert isinstance(whole, SplitValue)
            found = whole.train if node.attr("name") == "train" else whole.holdout
            assert isinstance(found, Rows)
            return found
        case _:
            raise ValueError(f"{node.op} is no data step")


def _one(inputs: Inputs, role: str) -> Rows:
    found = inputs[role][0]
    assert isinstance(found, Rows)
    return found


def _dataset(node: Node, draws: str) -> Rows:
    fields: dict[str, Attr] = {**dict(node.hints), **dict(node.attrs)}
    shuffled, take = bool(fields.get("shuffle")), fields.get("take")
    kept = {
        name: canonical(fields.get(name))
        for name in ("format", "text", "prompt", "completion", "messages", "length", "take", "join")
    }
    artifact = identity(
        "dataset", content=source.content(fields), draws=draws if shuffled else "", **kept
    )
    format = source.inspect_columns(fields).format
    length = fields.get("length")
    examples = int(take.value) if isinstance(take, Quantity) and take.unit != "tokens" else None

    def load() -> Sequence[Row]:
        rows: Sequence[Row] = source.load(fields)[1]
        if shuffled:
            from recipelang.data.draws import permutation

            order: list[int] = permutation(draws, "shuffle", 0, len(rows)).tolist()
            rows = [rows[i] for i in order]
        return rows[:examples]

    tokens = int(take.value) if isinstance(take, Quantity) and take.unit == "tokens" else None
    return Rows(
        artifact,
        format,
        length if isinstance(length, int) else None,
        load,
        tokens,
        source.template_text(fields),
    )


def _split(node: Node, data: Rows, draws: str) -> SplitValue:
    """Equal rows stay together: a drawn order of the distinct ones decides who is held out."""
    if data.take_tokens is not None:
        raise fault(
            "E0782",
            "a dataset cut to a number of tokens cannot be split",
            help="take examples instead: `take = 500 examples`",
        )
    holdout = node.attr("holdout")
    assert isinstance(holdout, Quantity)

    def load(held: bool) -> Sequence[Row]:
        rows = data.rows()
        chosen = held_out(rows, holdout, draws)
        return [row for i, row in enumerate(rows) if (i in chosen) == held]

    def part(name: str) -> Rows:
        artifact = identity(
            "split", of=data.artifact, holdout=canonical(holdout), draws=draws, part=name
        )
        return replace(data, artifact=artifact, load=lambda: load(name == "holdout"))

    return SplitValue(part("train"), part("holdout"))


def held_out(rows: Sequence[Row], holdout: Quantity, draws: str) -> frozenset[int]:
    """Which rows are held out: at least one, at most all but one kind of row.

    Raises RecipeError E0782 when all rows are equal, or there are fewer than asked for.
    """
    from recipelang.data.draws import permutation

    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(json.dumps(row, sort_keys=True, ensure_ascii=False), []).append(i)
    wanted = max(
        1, round(holdout.value * len(rows) if holdout.unit == "fraction" else holdout.value)
    )
    if len(groups) < 2 or wanted >= len(rows):
        raise fault(
            "E0782",
            f"{len(rows)} rows, {len(groups)} of them different, cannot be split so",
            help="hold out less, or add rows",
        )
    members = list(groups.values())
    chosen: list[int] = []
    order: list[int] = permutation(draws, "split", 0, len(members)).tolist()
    for place in order[:-1]:
        if len(chosen) >= wanted:
            break
        chosen += members[place]
    return frozenset(chosen)


def _mix(node: Node, parts: list[Rows]) -> Rows:
    if any(part.take_tokens is not None for part in parts):
        raise fault(
            "E0782",
            "a dataset cut to a number of tokens cannot be mixed",
            help="take examples instead: `take = 500 examples`",
        )
    templates = {part.template for part in parts}
    if len(templates) > 1:
        raise fault(
            "E0779",
            "the datasets of a mixture name different chat templates",
            help="give all of them the same",
        )
    given, examples = node.attr("weight"), node.attr("examples")
    weights = (
        [w if isinstance(w, int | float) else None for w in given]
        if isinstance(given, tuple)
        else []
    )
    weighted = any(w is not None for w in weights)
    shares = [1.0 if w is None else float(w) for w in weights] if weighted else None
    total = examples if isinstance(examples, int) else None
    artifact = identity(
        "mix",
        of=[p.artifact for p in parts],
        weight=canonical(tuple(shares) if shares else None),
        examples=canonical(total),
    )
    lengths = {part.length for part in parts}

    def load() -> Sequence[Row]:
        rows = [part.rows() for part in parts]
        return [
            rows[i][j % len(rows[i])] for i, j in mixture([len(r) for r in rows], shares, total)
        ]

    length = lengths.pop() if len(lengths) == 1 else None
    return Rows(artifact, parts[0].format, length, load, None, parts[0].template)


def mixture(
    sizes: Sequence[int], shares: Sequence[float] | None, total: int | None
) -> list[tuple[int, int]]:
    """(part, row) of each row of a mixture; a row number beyond a part's size means its rows come
    again.

    Without shares and total it is the concatenation. Otherwise part i has its share of the total
    (largest remainders, so that they add up), evenly spread; without a total, as many rows as come
    without repeating any.
    """
    if shares is None and total is None:
        return [(i, j) for i, size in enumerate(sizes) for j in range(size)]
    weights = [float(size) for size in sizes] if shares is None else list(shares)
    whole = sum(weights)
    if total is None:
        total = int(min(n * whole / w for n, w in zip(sizes, weights, strict=True) if w > 0) + 1e-9)
    exact = [total * w / whole for w in weights]
    counts = [int(e) for e in exact]
    for i in sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))[
        : total - sum(counts)
    ]:
        counts[i] += 1
    places = [((j + 0.5) / count, i, j) for i, count in enumerate(counts) for j in range(count)]
    return [(i, j) for _, i, j in sorted(places)]
