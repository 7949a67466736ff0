"""breadcrumbs-ties-merge: task vectors without their extreme entries, with an elected sign (Davari
and Belilovsky 2023, arXiv 2312.06795)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import Density, LargestDropped, Rescale, merging
from recipelang.ops.merge._task_vectors import elected_result, thinned_cost, thinnings
from recipelang.ops.spec import (
    BY_ORIGIN,
    FROM,
    SUBJECT,
    WITH,
    Model,
    PerInput,
    PerTensor,
    operation,
)  # fmt: skip
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.task_vectors import combine, difference
from recipelang.weights.kernels.thinning import Thinning, between, entries


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=elected_result,
    cost=thinned_cost(levels=1),
)
def breadcrumbs_ties_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    density: Density = 0.5,
    gamma: LargestDropped = 0.01,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    normalize: Annotated[bool, "divide by the weights that took part in an entry"] = False,
    rescale: Rescale = "none",
    **shared: Any,
) -> Kernel:
    """`ties-merge` over D_i without its floor(gamma_i N) largest entries.

    As many of those as the density leaves room for; of the others the floor(density_i N) largest
    are kept, at least one, lowest index first among equals, tensor by tensor.

        student = mine -> breadcrumbs-ties-merge with chat { density = 90%, gamma = 1% }
    """
    first: Any = base
    count, exact = first.elements, shared.get("compat") != "mergekit"

    def thin(i: int) -> Thinning:
        k = max(1, entries(density[i], count, exact=exact))
        top = min(entries(gamma[i], count, exact=exact), count - k)
        return between(difference(i), top, k, count / k if rescale == "inverse" else 1.0)

    return combine(
        weight,
        thinnings(density, rescale, thin),
        scale=scale,
        normalize=normalize,
        elect=True,
        signed=not exact,
    )
