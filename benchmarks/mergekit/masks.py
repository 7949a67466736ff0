"""Merges with random masks, compared given their masks: dare and della.

Mergekit draws from torch's global generator, recipelang from a function of seed, name and index, so
the masks differ and the results with them. What can be compared is what each makes of its masks:
mergekit's are recorded, and recipelang's show where an input is merged alone.

Example:
    >>> kept = kept_entries(bench, bench.step(case.recipe))            # doctest: +SKIP
    >>> expected(bench.step(case.recipe), kept)                        # doctest: +SKIP
    {'lm_head.weight': array(...), ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.mergekit.cases import Case
from benchmarks.mergekit.compare import Bench
from recipelang.values import Attr
from recipelang.weights.region import Step

__all__ = ["expected", "kept_entries", "recorded_entries", "task_vectors"]

Masks = Sequence[Mapping[str, Any]]
"""For each input: tensor -> which entries were kept, booleans of the tensor's shape."""

ALONE: Mapping[str, Attr] = {"rescale": "none", "normalize": False, "scale": 1.0}
CONSENSUS = ("dare-ties-merge", "della-ties-merge")


def task_vectors(step: Step) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The base's tensors and every input's difference to them, float32."""
    base = _arrays(step.operands["base"][0])
    models = [_arrays(operand) for operand in step.operands["inputs"]]
    return base, [{name: model[name] - base[name] for name in base} for model in models]


def kept_entries(bench: Bench, step: Step) -> Masks:
    """The masks that a step draws, found by merging one input at a time. An entry that an input
    does not change counts as dropped."""
    base, vectors = task_vectors(step)
    masks: list[dict[str, Any]] = []
    for i in range(len(vectors)):
        weight = tuple(float(i == j) for j in range(len(vectors)))
        alone = replace(step, fields={**step.fields, **ALONE, "weight": weight})
        result = bench.run(alone).tensors
        masks.append({name: result[name] != base[name] for name in base})
    return masks


def recorded_entries(bench: Bench, case: Case, step: Step) -> Masks:
    """The masks that mergekit drew."""
    base, vectors = task_vectors(step)
    names = bench.fixtures.names(case)
    ends = np.cumsum([base[name].size for name in names])[:-1]
    parts = np.split(bench.fixtures.masks[case.name], ends)
    bits = {n: part.reshape(base[n].shape) for n, part in zip(names, parts, strict=True)}
    return [{n: (bits[n] >> i & 1).astype(bool) for n in names} for i in range(len(vectors))]


def expected(step: Step, masks: Masks) -> dict[str, Any]:
    """What the step gives in float64 where these entries are kept.

    With V_i the kept entries of task vector D_i, times sum|D_i| / sum|V_i| for `rescale = l1`:
    their weighted sum on the base, of those alone that have an elected sign where there is one,
    divided by the weights that took part when `normalize`.
    """
    base, vectors = task_vectors(step)
    weights = step.fields["weight"]
    scale, rescale = step.fields["scale"], step.fields["rescale"]
    assert isinstance(weights, tuple)
    assert isinstance(scale, int | float)
    result: dict[str, Any] = {}
    for name in base:
        parts: list[Any] = []
        for weight, vector, mask in zip(weights, vectors, masks, strict=True):
            assert isinstance(weight, int | float)
            whole = vector[name].astype(np.float64)
            kept = whole * mask[name]
            if rescale == "l1" and np.abs(kept).sum():
                kept *= np.abs(whole).sum() / np.abs(kept).sum()
            parts.append(weight * kept)
        part = np.ones_like(parts, bool)
        if step.operation.verb in CONSENSUS:
            part = np.sign(parts) == np.where(np.sum(parts, 0) >= 0, 1, -1)
        total = np.sum(parts * part, 0)
        if step.fields["normalize"]:
            shares = np.reshape(np.array(weights, np.float64), (-1,) + (1,) * total.ndim) * part
            total /= np.where(shares.sum(0), shares.sum(0), 1)
        result[name] = base[name] + scale * total
    return result


def _arrays(operand: Any) -> dict[str, Any]:
    return {n: operand.read(n).reshape(info.shape) for n, info in operand.tensors.items()}
