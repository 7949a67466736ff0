"""Objectives against float64 references: values, gradients, splits of a batch, sums of terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.objectives import Objective, Positions, Term, objective, resolve
from recipelang.values import Form


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """x - log sum exp x."""
    top = x.max(axis=axis, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=axis, keepdims=True))


XP = SimpleNamespace(
    exp=np.exp,
    log=np.log,
    sum=np.sum,
    where=np.where,
    abs=np.abs,
    maximum=np.maximum,
    log_softmax=log_softmax,
    take_along_axis=np.take_along_axis,
    stop_gradient=lambda x: x,
    zeros_like=np.zeros_like,
)
"""The namespace that a backend hands to an objective, in numpy."""

NAMES = ("cross_entropy", "forward_kl", "reverse_kl")
SEEDS = st.integers(0, 10_000)


def problem(
    seed: int, n: int = 5, words: int = 7, teachers: int = 1
) -> tuple[Positions, np.ndarray, Any]:
    """Random positions, student logits and teachers' logits; one position is masked out."""
    rng = np.random.default_rng(seed)
    mask = np.ones(n)
    mask[-1] = 0
    positions = Positions(rng.integers(0, words, n), mask, np.arange(n))
    student = 3 * rng.normal(size=(n, words))
    return positions, student, tuple(3 * rng.normal(size=(n, words)) for _ in range(teachers))


def value(
    name: str, positions: Positions, student: np.ndarray, teachers: Any, **parameters: Any
) -> float:
    """The numerator of an objective."""
    (term,) = resolve(Form(name))
    return float(term.objective.terms(XP, positions, student, teachers, {}, **parameters))


def gradient(
    function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Central differences."""
    found = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        found[i] = (function(up) - function(down)) / (2 * step)
    return found


def softmax(x: np.ndarray) -> np.ndarray:
    """exp x / sum exp x."""
    return np.exp(log_softmax(x))


def reference(
    name: str, positions: Positions, student: np.ndarray, teachers: Any, t: float
) -> float:
    """The formulas, written out position by position."""
    total = 0.0
    for i, target in enumerate(positions.targets):
        if not positions.mask[i]:
            continue
        if name == "cross_entropy":
            total -= float(np.log(softmax(student[i])[target]))
            continue
        p = np.mean([softmax(teacher[i] / t) for teacher in teachers], axis=0)
        q = softmax(student[i] / t)
        a, b = (p, q) if name == "forward_kl" else (q, p)
        total += t * t * sum(float(x * (np.log(x) - np.log(y))) for x, y in zip(a, b, strict=True))
    return total


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, t=st.floats(0.5, 8), count=st.integers(1, 3))
def test_values(name: str, seed: int, t: float, count: int) -> None:
    """Each objective is its formula, with one teacher or the mean of several."""
    positions, student, teachers = problem(seed, teachers=count)
    parameters = {} if name == "cross_entropy" else {"temperature": t}
    found = value(name, positions, student, teachers, **parameters)
    assert found == pytest.approx(reference(name, positions, student, teachers, t), rel=1e-10)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, t=st.floats(0.5, 5))
def test_gradients(seed: int, t: float) -> None:
    """Cross-entropy: q - onehot. Forward KL: T (q - p). Reverse KL: T q (log(q / p) - KL)."""
    positions, student, teachers = problem(seed)
    mask = positions.mask[:, None]
    p, q = softmax(teachers[0] / t), softmax(student / t)
    kl = (q * (np.log(q) - np.log(p))).sum(axis=1, keepdims=True)
    expected = {
        "cross_entropy": softmax(student) - np.eye(student.shape[1])[positions.targets],
        "forward_kl": t * (q - p),
        "reverse_kl": t * q * (np.log(q) - np.log(p) - kl),
    }
    for name, wanted in expected.items():
        parameters = {} if name == "cross_entropy" else {"temperature": t}

        def at(x: np.ndarray, name: str = name, parameters: Any = parameters) -> float:
            return value(name, positions, x, teachers, **parameters)

        assert np.allclose(gradient(at, student), mask * wanted, atol=1e-6)


def test_temperature_keeps_the_gradients_size() -> None:
    """The square of the temperature makes up for its flattening (Hinton et al. 2015)."""
    positions, student, teachers = problem(3, n=12, words=20)
    sizes = []
    for t in (10.0, 100.0):

        def at(x: np.ndarray, t: float = t) -> float:
            return value("forward_kl", positions, x, teachers, temperature=t)

        sizes.append(float(np.linalg.norm(gradient(at, student, 1e-3))))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.15)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 8), max_size=4))
def test_splits_change_nothing(name: str, seed: int, cuts: set[int]) -> None:
    """The sum over any parts of a batch is that of the whole, so the divided gradient is too."""
    positions, student, teachers = problem(seed, n=9)
    edges = [0, *sorted(cuts), 9]
    parts = 0.0
    for a, b in pairwise(edges):
        inside = Positions(*(array[a:b] for array in positions))
        parts += value(name, inside, student[a:b], tuple(t[a:b] for t in teachers))
    assert parts == pytest.approx(value(name, positions, student, teachers), rel=1e-12)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_divergences_vanish_at_the_teacher(name: str) -> None:
    """A student that says what the teacher says has nothing to learn; else it has."""
    positions, student, _ = problem(1)
    assert value(name, positions, student, (student,)) == pytest.approx(0, abs=1e-12)
    assert value(name, positions, student, (student + 1.0,)) == pytest.approx(0, abs=1e-12)
    assert value(name, positions, student, (-student,)) > 0


def test_forward_kl_survives_forbidden_tokens() -> None:
    """A token that neither can say (logit minus infinity) adds nothing, and no not-a-number."""
    positions, student, teachers = problem(2)
    student[:, 0] = -np.inf
    teachers[0][:, 0] = -np.inf
    with np.errstate(invalid="ignore"):
        found = value("forward_kl", positions, student, teachers)
    narrowed = value("forward_kl", positions, student[:, 1:], (teachers[0][:, 1:],))
    assert found == pytest.approx(narrowed, rel=1e-12)


def test_sums_carry_weights_and_temperature() -> None:
    """A weighted sum resolves to its terms; the step's temperature reaches those that have one and
    set none.
    """

    def term(weight: float, form: Form) -> Form:
        return Form("term", (("weight", weight), ("of", form)))

    form = Form(
        "sum",
        (
            ("0", term(0.7, Form("forward_kl"))),
            ("1", term(0.2, Form("reverse_kl", (("temperature", 3.0),)))),
            ("2", term(0.1, Form("cross_entropy"))),
        ),
    )
    terms = resolve(form, 2.0)
    assert [(t.weight, t.objective.name, dict(t.parameters)) for t in terms] == [
        (0.7, "forward_kl", {"temperature": 2.0}),
        (0.2, "reverse_kl", {"temperature": 3.0}),
        (0.1, "cross_entropy", {}),
    ]
    assert [t.objective.needs_teacher for t in terms] == [True, True, False]


# ---------------------------------------------------------------- the protocol's second function


def mean_statistics(
    xp: Any, positions: Positions, student: Any, teachers: Any, *, floor: float = 0.0
) -> Mapping[str, Any]:
    """Sums that give the mean loss of the step."""
    losses = -log_softmax(student)[np.arange(len(positions.targets)), positions.targets]
    return {"sum": xp.sum(positions.mask * losses), "count": xp.sum(positions.mask)}


@objective(statistics=mean_statistics)
def above_mean(
    xp: Any,
    positions: Positions,
    student: Any,
    teachers: Any,
    statistics: Any,
    *,
    floor: float = 0.0,
) -> Any:
    """A toy objective that needs the whole step: what each loss is above the step's mean, at least
    `floor`.
    """
    losses = -log_softmax(student)[np.arange(len(positions.targets)), positions.targets]
    mean = statistics["sum"] / statistics["count"]
    return xp.sum(positions.mask * xp.maximum(losses - mean, floor + xp.zeros_like(losses)))


def in_parts(
    found: Objective, positions: Positions, student: np.ndarray, edges: list[int]
) -> float:
    """What a loop does: statistics over all parts first, then the terms of each with the totals."""
    assert found.statistics is not None
    parts = [
        (Positions(*(array[a:b] for array in positions)), student[a:b]) for a, b in pairwise(edges)
    ]
    sums: dict[str, float] = {}
    for inside, logits in parts:
        for name, part in found.statistics(XP, inside, logits, ()).items():
            sums[name] = sums.get(name, 0.0) + float(part)
    return sum(float(found.terms(XP, inside, logits, (), sums)) for inside, logits in parts)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 8), max_size=4))
def test_statistics_make_batch_objectives_splittable(seed: int, cuts: set[int]) -> None:
    """An objective of the whole step is the same for every split when its sums are taken first."""
    positions, student, _ = problem(seed, n=9)
    whole = in_parts(above_mean, positions, student, [0, 9])
    assert in_parts(above_mean, positions, student, [0, *sorted(cuts), 9]) == pytest.approx(
        whole, rel=1e-12
    )
    assert whole > 0


def test_declarations() -> None:
    """Every objective has documentation, a count of positions by default, and says whether it needs
    a teacher.
    """
    for name in NAMES:
        (term,) = resolve(Form(name))
        assert isinstance(term, Term)
        assert term.objective.doc
        assert term.objective.needs_teacher == (name != "cross_entropy")
        assert (
            term.objective.count(SimpleNamespace(supervised=np.array([[True, False, True]]))) == 2.0
        )  # type: ignore[arg-type]
