"""ties-merge: keep each task vector's largest changes, elect a sign, add what agrees (Yadav et al.
2023, arXiv 2306.01708)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any, Literal

from recipelang.ops.merge._fields import Density, Rescale, merging
from recipelang.ops.merge._task_vectors import thinned_cost, thinnings
from recipelang.ops.spec import (
    BY_ORIGIN,
    FROM,
    SUBJECT,
    WITH,
    Fault,
    Model,
    PerInput,
    PerTensor,
    Typed,
    operation,
)  # fmt: skip
from recipelang.types import ModelType
from recipelang.values import Form
from recipelang.weights.compatibility import merged_type
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.task_vectors import combine, difference
from recipelang.weights.kernels.thinning import Thinning, entries, largest, largest_of_model


def ties_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0537 for densities that vary by tensor in a trim over the
    whole model, E0601 to E0603."""
    densities = typed.fields.get("density")
    whole = typed.fields.get("trim") == "model"
    if whole and isinstance(densities, tuple) and any(isinstance(d, Form) for d in densities):
        raise Fault(
            "E0537",
            "`trim = model` takes one density for the whole model, found one that varies",
            at="density",
            help="write a number, or trim tensor by tensor: `trim = tensor`",
        )
    return merged_type(typed)


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=ties_result,
    cost=thinned_cost(levels=1),
)
def ties_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    density: Density = 0.5,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    normalize: Annotated[bool, "divide by the weights that took part in an entry"] = True,
    rescale: Rescale = "none",
    trim: Annotated[
        Literal["tensor", "model"], "what the largest entries are taken from"
    ] = "tensor",
    **shared: Any,
) -> Kernel:
    """With D_i = X_i - B and V_i = w_i times the floor(density N) largest entries of D_i (at least
    one, lowest index first among equals), tensor by tensor: an entry's elected sign is that of
    sum_i V_i (plus where it is zero), and R = B + scale * sum of the V_i that have that sign,
    divided by the sum of their |w_i| when `normalize`.

    With `trim = model` the floor(density M) largest of all M entries of the task vector are kept
    (those of tensors with weight zero left out), as in the paper; tensor by tensor is mergekit's
    rule. mergekit divides by the sum of w_i, which differs for negative weights only, and rounds
    task vectors to the stored dtype.

        student = mine -> ties-merge with chat(weight = 0.4) { density = 60% }
    """
    first: Any = base
    count, exact = first.elements, shared.get("compat") != "mergekit"

    def thin(i: int) -> Thinning:
        if trim == "model":
            factor = 1 / density[i] if rescale == "inverse" else 1.0
            return largest_of_model(i, difference(i), density[i], factor)
        k = max(1, entries(density[i], count, exact=exact))
        return largest(difference(i), k, count / k if rescale == "inverse" else 1.0)

    return combine(
        weight, thinnings(density, rescale, thin), scale=scale, normalize=normalize, elect=True,
        signed=not exact,
    )  # fmt: skip
