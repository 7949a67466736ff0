"""The score of every window behind the tables of a recipe that has run, and what resampling the
windows says of means over datasets.

Example: two datasets of one window each leave nothing to chance.
    >>> sums = {"d": Sums((8.0,), (4.0,)), "e": Sums((9.0,), (3.0,))}
    >>> interval(resampled_means(sums))
    (2.5, 2.5)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recipelang.ir.graph import Node
    from recipelang.run.scoring import Scores
    from recipelang.run.session import Session

__all__ = ["Sums", "interval", "mean", "resampled_means", "window_sums"]

RESAMPLES = 10_000
SEED = 17


@dataclass(frozen=True, slots=True)
class Sums:
    """Of each window of a dataset in order: the bits that a model needs, and the UTF-8 bytes."""

    bits: tuple[float, ...]
    bytes: tuple[float, ...]

    @property
    def bits_per_byte(self) -> float:
        """Of the dataset."""
        return sum(self.bits) / sum(self.bytes)


def mean(sums: Mapping[str, Sums]) -> float:
    """The plain mean over the datasets of a model's bits per byte."""
    return sum(each.bits_per_byte for each in sums.values()) / len(sums)


def resampled_means(sums: Mapping[str, Sums]) -> NDArray[np.float64]:
    """The mean over the datasets in 10,000 bootstrap resamples (Efron 1979), (10000,).

    Windows are drawn with replacement within their dataset. The draws depend on the names of the
    datasets and their numbers of windows alone, so two models are resampled alike and the
    difference of their means is a paired one.
    """
    import numpy as np

    total = np.zeros(RESAMPLES)
    for name, each in sums.items():
        count = len(each.bits)
        drawn = np.random.default_rng([SEED, *name.encode()]).integers(0, count, (RESAMPLES, count))
        bits, size = np.asarray(each.bits), np.asarray(each.bytes)
        total += bits[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return total / len(sums)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the values."""
    import numpy as np

    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def window_sums(
    recipe: Path, settings: Mapping[str, str], backend: str
) -> dict[str, dict[str, Sums]]:
    """Model -> dataset -> the sums of its windows, for every `evaluate` of a recipe whose models
    are in the store. Raises RecipeError where one is not."""
    import recipelang
    from recipelang.lineage.lockfile import lock_path, read_lock
    from recipelang.plan.make import make_plan
    from recipelang.run.session import Session
    from recipelang.store import Store
    from recipelang.store.view import View

    program = recipelang.load(recipe, settings)
    store = Store.open_for(recipe)
    view = View(store, read_lock(lock_path(recipe)), recipe.absolute().parent)
    plan = make_plan(program, (), view, backend=backend)
    session = Session(plan, store, view, lambda event: None, "", wanted=backend, named=backend)
    session.ids.update({s.node: s.artifact for s in plan.steps if s.artifact is not None})
    found: dict[str, dict[str, Sums]] = {}
    for step in plan.steps:
        if step.node.op == "evaluate":
            found |= _of_table(session, step.node)
    return found


def _of_table(session: Session, node: Node) -> dict[str, dict[str, Sums]]:
    """Measure a table again, for the scores that it is made of."""
    from recipelang.run.measuring import measure
    from recipelang.run.opening import open_value, operand_names

    inputs: Any = {
        role: tuple(open_value(session, n) for n in nodes) for role, nodes in node.operands
    }
    scores: dict[str, Scores] = {}
    names = operand_names(session, node)
    draws = session.step(node).draws
    measure(node, inputs, draws=draws, backend=session.backend, names=names, scores=scores)
    return {
        model: {
            dataset: _sums(scores, f"{value.artifact} {data.artifact} ")
            for dataset, data in zip(names["data"], inputs["data"], strict=True)
        }
        for model, value in zip(names["models"], inputs["models"], strict=True)
    }


def _sums(scores: Mapping[str, Scores], start: str) -> Sums:
    """The one score of a model and a dataset."""
    (found,) = (each for key, each in scores.items() if key.startswith(start))
    return Sums(tuple((found.nats / log(2)).tolist()), tuple(map(float, found.bytes.tolist())))
