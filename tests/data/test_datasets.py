"""Data steps: splits that share nothing, mixtures in their shares, ids that follow the meaning."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.data import draws
from recipelang.diagnostics import RecipeError
from recipelang.ir.graph import Graph, Node
from recipelang.run.data import Rows, evaluate_data, held_out, mixture
from recipelang.run.values import SplitValue
from recipelang.values import Attr, Quantity


def node(op: str, **attrs: Attr) -> Node:
    """A data node with these fields."""
    return Graph().node(op, 1, {}, attrs)


def rows(name: str, count: int, **changes: int | None) -> Rows:
    """A dataset of so many different texts."""
    return Rows(
        name, "text", None, lambda: [{"text": f"{name}{i}"} for i in range(count)], **changes
    )  # type: ignore[arg-type]


def texts(data: object) -> list[str]:
    """The texts of a dataset."""
    assert isinstance(data, Rows)
    return [str(row["text"]) for row in data.rows()]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.floats(0.05, 0.6))
def test_equal_rows_stay_together(kinds: list[int], share: float) -> None:
    """Both parts together are the whole; no row is in both, nor a copy of one; neither is empty."""
    data = [{"text": str(k)} for k in kinds]
    try:
        held = held_out(data, Quantity(share, "fraction"), "ab")
    except RecipeError:
        assert len(set(kinds)) < 2 or round(share * len(kinds)) >= len(kinds)
        return
    assert 0 < len(held) < len(kinds)
    inside = {kinds[i] for i in held}
    assert inside.isdisjoint(kinds[i] for i in range(len(kinds)) if i not in held)
    assert held == held_out(data, Quantity(share, "fraction"), "ab")


def test_split_parts() -> None:
    """A split is keyed by its draws, keeps the order, and takes a share or a number."""
    data = rows("a", 100)
    one = evaluate_data(node("split", holdout=Quantity(0.05, "fraction")), {"data": (data,)}, "ab")
    two = evaluate_data(node("split", holdout=Quantity(7, "examples")), {"data": (data,)}, "ac")
    assert isinstance(one, SplitValue)
    assert isinstance(two, SplitValue)
    assert (len(texts(one.holdout)), len(texts(two.holdout))) == (5, 7)
    order = texts(data)
    assert sorted(texts(one.train), key=order.index) == texts(one.train)
    part = evaluate_data(node("part", name="holdout"), {"of": (one,)}, None)
    assert texts(part) == texts(one.holdout)
    assert len({one.train.artifact, one.holdout.artifact, data.artifact}) == 3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.1, 5)), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_mixture_shares(parts: list[tuple[int, float]], total: int) -> None:
    """Each part has its share of the rows to within one, in its own order, and starts at its first
    row.
    """
    sizes, weights = [n for n, _ in parts], [w for _, w in parts]
    found = mixture(sizes, weights, total)
    assert len(found) == total
    counts = Counter(i for i, _ in found)
    for i, weight in enumerate(weights):
        assert abs(counts[i] - total * weight / sum(weights)) < 1
        assert [j for part, j in found if part == i] == list(range(counts[i]))


def test_mixture_without_a_total_repeats_nothing() -> None:
    """Weights alone take as many rows as come without repeating any; without weights it is all
    rows.
    """
    assert Counter(i for i, _ in mixture([10, 10], [2.0, 1.0], None)) == {0: 10, 1: 5}
    assert mixture([2, 3], None, None) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert Counter(i for i, _ in mixture([30, 10], None, 8)) == {0: 6, 1: 2}


def test_mix_step() -> None:
    """An input without a weight beside one with has weight one; rows come round where more are
    asked for.
    """
    found = evaluate_data(
        node("mix", weight=(3.0, None), examples=8), {"data": (rows("a", 4), rows("b", 4))}, None
    )
    assert Counter(text[0] for text in texts(found)) == {"a": 6, "b": 2}
    assert texts(found).count("a0") == 2


def test_cut_to_tokens_is_neither_split_nor_mixed() -> None:
    """A dataset whose rows depend on a tokenizer cannot be cut by rows."""
    data = rows("a", 4, take_tokens=10)
    with pytest.raises(RecipeError, match="E0782"):
        evaluate_data(node("mix", weight=(None, None), examples=None), {"data": (data, data)}, None)
    with pytest.raises(RecipeError, match="E0782"):
        evaluate_data(node("split", holdout=Quantity(0.5, "fraction")), {"data": (data,)}, "ab")


def test_dataset_step(tmp_path: Path) -> None:
    """`take` keeps the start, `shuffle` comes before it; ids follow content and fields."""
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_text("".join(json.dumps({"text": str(i)}) + "\n" for i in range(20)))
    take = Quantity(5, "examples")
    plain = evaluate_data(node("dataset", uri=str(paths[0]), take=take), {}, "ab")
    moved = evaluate_data(node("dataset", uri=str(paths[1]), take=take), {}, "cd")
    mixed = evaluate_data(node("dataset", uri=str(paths[0]), take=take, shuffle=True), {}, "ab")
    whole = evaluate_data(node("dataset", uri=str(paths[0])), {}, "ab")
    assert texts(plain) == ["0", "1", "2", "3", "4"]
    assert texts(mixed) == [str(i) for i in draws.permutation("ab", "shuffle", 0, 20)[:5]]
    found = [d.artifact for d in (plain, mixed, whole) if isinstance(d, Rows)]
    assert len(set(found)) == 3
    assert isinstance(moved, Rows)
    assert moved.artifact == found[0]


def test_draws_are_pinned() -> None:
    """The words are those of Philox-4x64 under a sha256 key: no numpy may change them."""
    assert draws.bits("00", "order", 0, 2).tolist() == [8735824219353931529, 742216862512170134]
    assert (
        draws.permutation("00", "order", 0, 6).tolist()
        != draws.permutation("00", "order", 1, 6).tolist()
    )
    uniform = draws.uniform("00", "x", 0, 1000)
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.05
    assert set(draws.integers("00", "x", 0, 1000, 7).tolist()) == set(range(7))
