"""Steps in float64: for every verb the reference that is written from its formula, tensor by
tensor, on the numbers that its operands store.

A verb without a reference is a KeyError, so that a new one cannot go without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from recipelang.weights.region import Operand, Step
from tests.ops_merge import (
    decompositions,
    reference,
    reference_mergekit,
    reference_selecting,
    reference_spherical,
    reference_thinning,
)

Tensors: TypeAlias = "dict[str, Any]"
"""Names -> float64 arrays."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a step: the operands' arrays by role, the fields, what draws are keyed by."""

    verb: str
    name: str
    roles: Mapping[str, list[Any]]
    fields: Mapping[str, Any]
    draws: tuple[str, ...]

    @property
    def inputs(self) -> list[Any]:
        """The models that are merged."""
        return self.roles["inputs"]

    @property
    def base(self) -> Any:
        """What task vectors are taken from, None without one."""
        return self.roles.get("base", [None])[0]

    @property
    def mergekit(self) -> bool:
        """Whether the field ``compat`` asks for its rule."""
        return self.fields["compat"] == "mergekit"

    def take(self, *names: str) -> dict[str, Any]:
        """These fields."""
        return {name: self.fields[name] for name in names}


Rule: TypeAlias = "Callable[[Tensor], Any]"


def expected(step: Step, fields: Callable[[str], Mapping[str, Any]] | None = None) -> Tensors:
    """The step's tensors before they are rounded. ``fields`` gives a tensor's own numbers where
    they differ from tensor to tensor."""
    roles = {role: [wide(o) for o in items] for role, items in step.operands.items()}
    if step.fields.get("trim") == "model":
        return ties_of_model(step, roles)
    found: Tensors = {}
    for name in step.tensors:
        own = {**step.fields, **(fields(name) if fields else {})}
        arrays = {role: [tensors[name] for tensors in items] for role, items in roles.items()}
        found[name] = RULES[step.operation.verb](
            Tensor(step.operation.verb, name, arrays, own, step.draws)
        )
    return found


def wide(operand: Operand) -> Tensors:
    """The numbers of an operand: as stored, and rounded as they would be if they were."""
    if isinstance(operand, Step):
        return expected(operand)
    return {n: operand.read(n).reshape(i.shape).astype(np.float64)
            for n, i in operand.tensors.items()}  # fmt: skip


def ties_of_model(step: Step, roles: dict[str, list[Tensors]]) -> Tensors:
    """`trim = model`: all of a model's tensors, in the order of their names, as one."""
    names, fields = sorted(step.tensors), step.fields
    ends = np.cumsum([roles["base"][0][name].size for name in names])[:-1]

    def flat(tensors: Tensors) -> Any:
        return np.concatenate([tensors[name].reshape(-1) for name in names])

    weights: Any = fields["weight"]
    densities: Any = fields["density"]
    base, vectors = flat(roles["base"][0]), []
    for weight, p, tensors in zip(weights, densities, roles["inputs"], strict=True):
        delta = flat(tensors) - base
        thin = reference_thinning.without_extremes(
            delta, 0, reference_thinning.count(p, delta.size)
        )
        if fields["rescale"] == "l1":
            pairs = zip(np.split(delta, ends), np.split(thin, ends), strict=True)
            thin = np.concatenate([reference_thinning.l1(d, t) for d, t in pairs])
        vectors.append(weight * thin / (p if fields["rescale"] == "inverse" else 1.0))
    scale: Any = fields["scale"]
    divide = fields["normalize"] is True
    made = reference_thinning.merged(base, vectors, weights, scale, elect=True, divide=divide)
    return {
        name: part.reshape(roles["base"][0][name].shape)
        for name, part in zip(names, np.split(made, ends), strict=True)
    }


def of_task_vectors(t: Tensor) -> Any:
    """TIES, DARE, breadcrumbs, DELLA: thinned, weighted, elected or not."""
    f, elect = t.fields, "ties" in t.verb
    vectors: list[Any] = []
    for i, model in enumerate(t.inputs):
        own = {name: f[name][i] for name in ("epsilon", "gamma") if name in f}
        thin = reference_thinning.thinned(
            t.verb, model - t.base, t.draws[i], t.name, f["density"][i],
            rescale=f["rescale"], mergekit=t.mergekit, **own,
        )  # fmt: skip
        vectors.append(f["weight"][i] * thin)
    return reference_thinning.merged(
        t.base, vectors, f["weight"], f["scale"], elect=elect, divide=f["normalize"],
        signed=t.mergekit,
    )  # fmt: skip


def slerp(t: Tensor) -> Any:
    """Of two whole tensors."""
    arc = reference_mergekit.slerp if t.mergekit else reference_spherical.arc
    return arc(*t.inputs, t.fields["t"])


def nuslerp(t: Tensor) -> Any:
    """Of tensors, rows or columns."""
    rules = reference_mergekit if t.mergekit else reference_spherical
    axes = t.take("flatten", "row_wise")
    return rules.nuslerp(*t.inputs, t.fields["weight"], t.base, **axes)


def multislerp(t: Tensor) -> Any:
    """Of several."""
    rules = reference_mergekit if t.mergekit else reference_spherical
    return rules.multislerp(t.inputs, t.fields["weight"], t.base, **t.take("normalize"))


def karcher(t: Tensor) -> Any:
    """The mean by steps."""
    weights, iterations = t.fields["weight"], t.fields["iterations"]
    if t.mergekit:
        return reference_mergekit.karcher(t.inputs, iterations, weights)
    return reference_spherical.karcher(t.inputs, weights, iterations)


def model_stock(t: Tensor) -> Any:
    """By tensor or by row."""
    rules = reference_mergekit if t.mergekit else reference_spherical
    return rules.model_stock(t.base, t.inputs, **t.take("by_row"))


def nearswap(t: Tensor) -> Any:
    """A step of at most t."""
    rules = reference_mergekit if t.mergekit else reference_selecting
    return rules.nearswap(*t.inputs, t.fields["t"])


def fusion(t: Tensor) -> Any:
    """The outliers of the second."""
    rules = reference_mergekit if t.mergekit else reference_selecting
    return rules.fusion(*t.inputs)


def ram(t: Tensor) -> Any:
    """ram, and ram+ with its growth."""
    rules = reference_mergekit if t.mergekit else reference_selecting
    growth = t.take("r", "alpha") if "r" in t.fields else {"r": 0.0, "alpha": 0.0}
    return rules.ramplus(t.base, t.inputs, **growth, **t.take("epsilon", "scale"))


def sce(t: Tensor) -> Any:
    """Select, calculate, erase."""
    rules = reference_mergekit if t.mergekit else reference_selecting
    return rules.sce(t.base, t.inputs, **t.take("select", "scale"))


def tsv(t: Tensor) -> Any:
    """A task keeps a share of its triplets, one of so many tasks by default."""
    weights, share = t.fields["weight"], t.fields["rank_share"]
    small = min(t.base.shape) if t.base.ndim == 2 else 0
    tasks = sum(1 for weight in weights if weight)
    rank = max(1, small // tasks if share is None else reference_thinning.count(share, small))
    return decompositions.tsv(t.base, t.inputs, weights, rank, t.fields["scale"])


RULES: dict[str, Rule] = {
    "linear-merge": lambda t: reference.linear(t.inputs, **_weights(t), **t.take("normalize")),
    "slerp-merge": slerp,
    "nuslerp-merge": nuslerp,
    "multislerp-merge": multislerp,
    "karcher-merge": karcher,
    "task-arithmetic-merge": lambda t: reference.task_arithmetic(
        t.base, t.inputs, **_weights(t), **t.take("scale", "normalize")
    ),
    "ties-merge": of_task_vectors,
    "dare-merge": of_task_vectors,
    "dare-ties-merge": of_task_vectors,
    "breadcrumbs-merge": of_task_vectors,
    "breadcrumbs-ties-merge": of_task_vectors,
    "della-merge": of_task_vectors,
    "della-ties-merge": of_task_vectors,
    "sce-merge": sce,
    "model-stock-merge": model_stock,
    "nearswap-merge": nearswap,
    "fusion-merge": fusion,
    "ram-merge": ram,
    "ramplus-merge": ram,
    "magmax-merge": lambda t: reference_selecting.magmax(t.base, t.inputs, **t.take("scale")),
    "tsv-merge": tsv,
    "iso-merge": lambda t: decompositions.iso(t.base, t.inputs, **_weights(t), **t.take("scale")),
    "delta": lambda t: t.roles["of"][0] - t.roles["minus"][0],
    "scale-delta": lambda t: t.fields["factor"] * t.roles["delta"][0],
    "add-deltas": lambda t: t.roles["left"][0] + t.fields["scale"] * t.roles["right"][0],
    "add-delta": lambda t: t.roles["model"][0] + t.fields["scale"] * t.roles["delta"][0],
}


def _weights(t: Tensor) -> dict[str, Any]:
    return {"weights": t.fields["weight"]}
