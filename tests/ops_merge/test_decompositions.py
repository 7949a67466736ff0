"""tsv-merge and iso-merge: against LAPACK in float64, their laws, and what they do at the edges."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.values import Form
from recipelang.weights import blocks
from recipelang.weights.region import Operand, Step, make_step
from tests.ops_merge import decompositions as reference
from tests.weights.models import Memory, bits, compute, near, random_model
from tests.weights.words import model_of_words

SHAPES = {
    "model.embed_tokens.weight": (70, 12),
    "model.layers.0.tall.weight": (17, 9),
    "model.layers.0.wide.weight": (8, 31),
    "model.layers.1.row.weight": (1, 6),
    "model.layers.1.square.weight": (10, 10),
    "model.layers.1.cube": (2, 3, 4),
    "model.norm.weight": (12,),
    "model.scale": (),
}
MATRICES = [name for name, shape in SHAPES.items() if len(shape) == 2]
VERBS = ["tsv-merge", "iso-merge"]


def step(verb: str, base: Operand, *inputs: Operand, **fields: Any) -> Step:
    """A merge of these inputs from the base."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, {"inputs": inputs, "base": (base,)}, fields)


def family(dtype: str, count: int = 3) -> tuple[Memory, list[Memory]]:
    """A base and fine-tunes of it."""
    base = random_model(0, SHAPES, dtype)
    return base, [near(base, i + 1) for i in range(count)]


def moved(base: Memory, change: Any, name: str = "model.layers.1.square.weight") -> Memory:
    """The base with a change of one matrix."""
    arrays = dict(base.arrays)
    arrays[name] = (arrays[name] + change).astype(arrays[name].dtype)
    return Memory(arrays, base.config)


def close(got: Any, expected: Any, dtype: str) -> None:
    """Equal up to one rounding to the stored dtype (below 6e-5, f16 has no more bits) and what
    float32 loses in products of factors: entries are about 0.02, changes a tenth of it."""
    relative, absolute = {
        "F64": (1e-10, 1e-12), "F32": (4e-7, 2e-8), "BF16": (2**-8, 2e-8), "F16": (2**-10, 6e-8)
    }[dtype]  # fmt: skip
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=relative, atol=absolute)


def ranks(share: float | None, count: int) -> dict[str, int]:
    """How many triplets of each matrix a task keeps."""
    small = {name: min(SHAPES[name]) for name in MATRICES}
    return {n: max(1, k // count if share is None else int(share * k)) for n, k in small.items()}


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize("share", [None, 0.5, 1.0])
def test_tsv(dtype: str, share: float | None, tmp_path: Path) -> None:
    """Tall, wide, square and one-row matrices, weights and scale; also where the tasks keep more
    vectors than a side is long."""
    base, models = family(dtype)
    weights = (0.5, 1.0, -0.7)
    made = step("tsv-merge", base, *models, weight=weights, rank_share=share, scale=0.8)
    got, _ = compute(made, tmp_path)
    rank = ranks(share, 3)
    for name in SHAPES:
        arrays = [m.arrays[name] for m in models]
        expected = reference.tsv(base.arrays[name], arrays, weights, rank.get(name, 0), 0.8)
        close(got[name], expected, dtype)


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
def test_iso(dtype: str, tmp_path: Path) -> None:
    """The singular vectors of the sum, all with the mean of its singular values."""
    base, models = family(dtype)
    weights = (0.5, 1.0, -0.7)
    got, _ = compute(step("iso-merge", base, *models, weight=weights, scale=0.8), tmp_path)
    for name in SHAPES:
        arrays = [m.arrays[name] for m in models]
        close(got[name], reference.iso(base.arrays[name], arrays, weights, 0.8), dtype)


def test_one_task_gives_its_model_back(tmp_path: Path) -> None:
    """tsv of one model, all ranks kept, is that model up to float32's rounding."""
    base, (model,) = family("F32", 1)
    got, _ = compute(step("tsv-merge", base, model), tmp_path)
    for name in SHAPES:
        close(got[name], model.arrays[name].astype(np.float64), "F32")


@pytest.mark.parametrize("verb", VERBS)
def test_order_of_tasks_changes_rounding_only(verb: str, tmp_path: Path) -> None:
    """The law permutation_invariant."""
    base, models = family("F32")
    weights = (0.3, 1.0, 0.6)
    made: list[dict[str, Any]] = []
    for order in itertools.permutations(range(3)):
        merge = step(
            verb, base, *(models[i] for i in order), weight=tuple(weights[i] for i in order)
        )
        made.append(compute(merge, tmp_path / "x")[0])
    for other in made[1:]:
        for name in SHAPES:
            close(other[name], made[0][name].astype(np.float64), "F32")
    found = lookup(verb)
    assert found is not None
    assert {"permutation_invariant", "ignores_zero_weight"} <= set(found.laws)


def orthogonal_tasks(count: int, rank: int) -> list[Any]:
    """Changes of a 10 by 10 matrix whose row spaces and column spaces are orthogonal."""
    rng = np.random.default_rng(5)
    left, right = (np.linalg.qr(rng.standard_normal((10, 10)))[0] for _ in range(2))
    parts = [slice(i * rank, (i + 1) * rank) for i in range(count)]
    return [(left[:, p] * (0.01 * (1 + np.arange(rank)))) @ right[:, p].T for p in parts]


def test_tasks_in_orthogonal_subspaces_are_added_up(tmp_path: Path) -> None:
    """Nothing interferes, so tsv gives the sum; iso gives every direction the mean."""
    base = random_model(0, SHAPES, "F64")
    changes = orthogonal_tasks(3, 3)
    models = [moved(base, change) for change in changes]
    name = "model.layers.1.square.weight"
    added, _ = compute(step("tsv-merge", base, *models), tmp_path / "tsv")
    np.testing.assert_allclose(added[name] - base.arrays[name], sum(changes), atol=1e-12)
    flat, _ = compute(step("iso-merge", base, *models), tmp_path / "iso")
    strengths = np.linalg.svd(flat[name] - base.arrays[name])[1]
    np.testing.assert_allclose(strengths, [0.02] * 9 + [0], atol=1e-12)


def test_a_task_given_twice_counts_once_in_tsv(tmp_path: Path) -> None:
    """Directions that tasks share in full are one direction: two equal models give the model, cut
    to its rank."""
    base, (model,) = family("F64", 1)
    got, _ = compute(step("tsv-merge", base, model, model), tmp_path)
    for name in MATRICES:
        change = model.arrays[name] - base.arrays[name]
        expected = reference.truncated(change, max(1, min(SHAPES[name]) // 2))
        np.testing.assert_allclose(got[name] - base.arrays[name], expected, atol=1e-11)


def test_iso_keeps_the_singular_vectors_and_the_nuclear_norm(tmp_path: Path) -> None:
    """(R - B) has the singular vectors of the sum, equal singular values, and their sum."""
    base, models = family("F64")
    got, _ = compute(step("iso-merge", base, *models), tmp_path)
    for name in MATRICES:
        total = sum(m.arrays[name] - base.arrays[name] for m in models)
        u, s, vt = np.linalg.svd(total, full_matrices=False)
        turned = u.T @ (got[name] - base.arrays[name]) @ vt.T
        np.testing.assert_allclose(turned, np.eye(len(s)) * s.mean(), atol=1e-11)


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_changed_gives_the_base(verb: str, tmp_path: Path) -> None:
    """Task vectors of zeros have no directions, and merging them gives the base's bits."""
    base = random_model(0, SHAPES, "BF16")
    got, _ = compute(step(verb, base, base, base), tmp_path)
    assert all(bits(got[name]) == bits(base.arrays[name]) for name in SHAPES)


@pytest.mark.parametrize("verb", VERBS)
def test_task_vectors_of_low_rank(verb: str, tmp_path: Path) -> None:
    """What float32 leaves of directions that are not there takes no part."""
    base = random_model(0, SHAPES, "F32")
    rng = np.random.default_rng(1)
    models = [
        moved(base, 0.01 * np.outer(rng.standard_normal(10), rng.standard_normal(10)))
        for _ in range(2)
    ]
    name = "model.layers.1.square.weight"
    arrays = [m.arrays[name] for m in models]
    got, _ = compute(step(verb, base, *models), tmp_path)
    change = got[name].astype(np.float64) - base.arrays[name]
    assert np.linalg.svd(change)[1][2:].max() < 1e-6
    if verb == "tsv-merge":
        expected = reference.tsv(base.arrays[name], arrays, (1, 1), 1)
        np.testing.assert_allclose(got[name], expected, atol=1e-6)


@pytest.mark.parametrize("verb", VERBS)
def test_tasks_without_weight_are_neither_read_nor_counted(verb: str, tmp_path: Path) -> None:
    """Weight 0 gives the bits of a merge without the task, for matrices and others."""
    base, (a, b, c) = family("BF16")
    c.counts.clear()
    three, _ = compute(step(verb, base, a, b, c, weight=(1.0, 0.5, 0.0)), tmp_path / "3")
    assert not c.counts
    two, _ = compute(step(verb, base, a, b, weight=(1.0, 0.5)), tmp_path / "2")
    assert all(bits(three[name]) == bits(two[name]) for name in SHAPES)
    none, _ = compute(step(verb, base, a, b, weight=(0.0, 0.0)), tmp_path / "0")
    assert all(bits(none[name]) == bits(base.arrays[name]) for name in SHAPES)


def test_more_tasks_than_singular_values(tmp_path: Path) -> None:
    """Every task keeps one triplet at least."""
    base, models = family("F64", 12)
    got, _ = compute(step("tsv-merge", base, *models), tmp_path)
    for name in MATRICES:
        arrays = [m.arrays[name] for m in models]
        rank = max(1, min(SHAPES[name]) // 12)
        close(got[name], reference.tsv(base.arrays[name], arrays, [1] * 12, rank), "F64")


def test_fields_vary_by_tensor(tmp_path: Path) -> None:
    """A scale of 0 on the layers leaves them at the base, and the rest is as without it."""
    base, models = family("F32")
    varying = Form("per", (("layers", 0.0), ("*", 1.0)))
    got, _ = compute(step("iso-merge", base, *models, scale=varying), tmp_path / "a")
    whole, _ = compute(step("iso-merge", base, *models), tmp_path / "b")
    for name in SHAPES:
        expected = base.arrays[name] if ".layers." in name else whole[name]
        assert bits(got[name]) == bits(expected)


def chain(store: Any) -> Step:
    """A tsv merge whose result is merged further, and decomposed again."""
    base, (a, b, c) = family("BF16")
    first = store(step("tsv-merge", base, a, b))
    second = store(step("ties-merge", base, first, c, density=0.5))
    return step("iso-merge", base, second, first, dtype="f32")


@pytest.mark.parametrize(("budget", "threads"), [(1 << 30, 1), (1 << 30, 3), (1 << 14, 2), (0, 3)])
def test_fused_is_step_by_step(
    budget: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decompositions inside a region give the bits of steps one by one, for any budget and thread
    count; with blocks so small that matrices are read in several ranges."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 24)
    monkeypatch.setattr(blocks, "RANGE_BLOCKS", 3)
    number = iter(range(9))

    def stored(made: Step) -> Memory:
        arrays, _ = compute(made, tmp_path / str(next(number)))
        return Memory(arrays, made.config)

    expected, _ = compute(chain(stored), tmp_path / "steps", threads=1)
    got, _ = compute(chain(lambda made: made), tmp_path / "x", budget_bytes=budget, threads=threads)
    assert all(bits(got[name]) == bits(expected[name]) for name in SHAPES)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_rows_of_a_permuted_vocabulary_are_aligned_first(
    verb: str, budget: int, tmp_path: Path
) -> None:
    """A model whose tokens have other ids is decomposed in the subject's order: the bits are those
    of a merge with that model sorted."""
    words = [chr(ord("a") + i) for i in range(12)]
    order = [5, 2, 0, 7, 1, 11, 3, 4, 10, 6, 9, 8]
    shuffled = [words[i] for i in order]
    base, a = (model_of_words(tmp_path / n, words, seed=i) for i, n in enumerate("ba"))
    other = model_of_words(tmp_path / "o", shuffled, seed=2)
    rows = np.argsort(order)
    arrays = {n: x[rows] if len(x) == 12 else x for n, x in other.arrays.items()}
    ordered = Memory(arrays, other.config, a.files)
    made = [
        compute(step(verb, base, a, one), tmp_path / f"{i}", budget_bytes=budget)[0]
        for i, one in enumerate((other, ordered))
    ]
    assert all(bits(made[0][name]) == bits(made[1][name]) for name in made[0])


@pytest.mark.parametrize("verb", VERBS)
def test_infinities_cannot_be_let_through(verb: str, tmp_path: Path) -> None:
    """`nonfinite = allow` is refused before anything is read; an infinity stops the merge."""
    base, (a, b, _) = family("F32")
    with pytest.raises(RecipeError, match="E0557"):
        step(verb, base, a, b, nonfinite="allow")
    b.arrays["model.layers.0.wide.weight"][3, 4] = np.inf
    with pytest.raises(RecipeError, match=r"E0620.*wide") as caught:
        compute(step(verb, base, a, b), tmp_path)
    assert caught.value.diagnostics[0].help == "find out where they come from"
