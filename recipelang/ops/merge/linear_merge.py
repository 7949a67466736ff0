"""linear-merge: the weighted mean of models (model soups, Wortsman et al. 2022, arXiv
2203.05482)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import check_weights, merging, truthy
from recipelang.ops.spec import SUBJECT, WITH, Cost, Model, PerInput, PerTensor, Typed, operation
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results
from recipelang.weights.kernels.task_vectors import check_sum


def linear_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0541 for weights that cancel, E0601 to E0603,
    E0640 to E0642."""
    check_weights(typed, normalized=truthy(typed.fields.get("normalize")))
    return merged_type(typed)


def linear_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, merged_type(typed))


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("permutation_invariant", "ignores_zero_weight", "idempotent_when_normalized"),
    include=merging,
    refuses=(("from", "to add differences to a base write `task-arithmetic-merge`"),),
    result_type=linear_result,
    cost=linear_cost,
)
def linear_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the models to average"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each model"] = 1.0,
    normalize: Annotated[bool, "divide by the sum of the weights"] = True,
    **shared: Any,
) -> Kernel:
    """R = sum_i w_i X_i, divided by sum_i w_i when `normalize`. Without weights it is the uniform
    soup.

    The sum runs over the inputs in the recipe's order in float32 (F64 tensors: float64) and is
    rounded once. Another order of the inputs gives the same up to that rounding.

        soup = a -> linear-merge with b(weight = 0.5) and c
    """
    check_sum(weight, normalize)
    total = sum(weight)
    shares = [w / total if normalize else w for w in weight]
    used = [i for i, share in enumerate(shares) if share]

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        parts = (blocks["inputs"][i] * shares[i] for i in used)
        result = next(parts, None)
        if result is None:
            return xp.zeros_like(blocks["inputs"][0])
        for part in parts:
            result += part
        return result

    return Kernel(combine, unread=frozenset(("inputs", i) for i, w in enumerate(shares) if not w))
