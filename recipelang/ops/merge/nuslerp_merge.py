"""nuslerp-merge: interpolate two models, or their task vectors, along an arc for the whole tensor,
for each row or for each column (mergekit's NuSLERP, which has no paper)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, check_pair, check_weights, merging
from recipelang.ops.spec import (
    FROM,
    SUBJECT,
    WITH,
    Cost,
    Fault,
    Model,
    PerInput,
    PerTensor,
    Typed,
    operation,
)  # fmt: skip
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import (
    Array,
    Block,
    ColumnSums,
    Inputs,
    Kernel,
    Results,
    Value,
)
from recipelang.weights.kernels.gram import Matrix, gram_kernel, normalised, single, vectors
from recipelang.weights.kernels.sphere import angle, arc

HELP = "change a weight: the second's share of their sum says how far along the arc to go"
PARALLEL = 2**-21
"""mergekit goes straight where 1 - cos^2 <= 1e-16, which float32's products tell to this."""
Factors = Callable[[Any, Array, Array, Array], "tuple[Array, Array]"]
"""``factors(xp, aa, bb, ab)``: those of a and b, of the shape of the dot products."""


def nuslerp_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0541 for weights that cancel, E0542 unless there are two
    models, E0546 for columns of a flattened tensor, E0601 to E0603."""
    check_pair(typed, "nuslerp-merge")
    check_weights(typed, normalized=typed.fields.get("compat") != "mergekit", help=HELP)
    if typed.fields.get("row_wise") is True and typed.fields.get("flatten") is True:
        raise Fault(
            "E0546",
            "`row_wise` has no effect: the tensor is taken as one vector",
            at="row_wise",
            help="write `flatten = false` beside it",
        )
    return merged_type(typed)


def nuslerp_cost(typed: Typed) -> Cost:
    """One level of statistics, none by rows."""
    rows = typed.fields.get("flatten") is False and typed.fields.get("row_wise") is False
    return streaming_cost(typed, merged_type(typed), levels=0 if rows else 1)


@operation(
    kind="weights",
    result="Model",
    origin="base or common",
    laws=("permutation_invariant", "unanimous", "homogeneous"),
    include=merging,
    result_type=nuslerp_result,
    cost=nuslerp_cost,
)
def nuslerp_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "two models"],
    base: Annotated[
        Model | None, FROM, "interpolate task vectors, the differences to this model"
    ] = None,
    weight: Annotated[PerInput[PerTensor[float]], "share of each model"] = 1.0,
    row_wise: Annotated[
        PerTensor[bool],
        "with `flatten = false`: a vector for each place of the other axes along the first",
    ] = False,
    flatten: Annotated[
        PerTensor[bool], "take the tensor as one vector; else each row of the last axis is one"
    ] = True,
    **shared: Any,
) -> Kernel:
    """R = sin((1 - t) θ) / sin θ * V_1 + sin(t θ) / sin θ * V_2 with t = w_2 / (w_1 + w_2) and θ
    the angle between V_1 and V_2: the tensors as vectors, their rows, or with `row_wise` their
    columns. With a base that is written, V_i = X_i - B and B is added at the end.

    Where no direction is defined (a zero vector; opposite ones, π - θ < 0.001), (1 - t) V_1 + t
    V_2. mergekit names the axes so; it bounds norms from below by 1e-7, takes t = 0.5 where |w_1 +
    w_2| < 1e-6, and computes in the stored dtype.

    From mergekit (Goddard et al. 2024, arXiv 2403.13257), which has no paper of it.

        between = a -> nuslerp-merge with b(weight = 0.5) from base { flatten = false }
    """
    mergekit = as_mergekit(shared)
    cancel = abs(sum(weight)) < 1e-6
    t = 0.5 if mergekit and cancel else normalised(weight, HELP)[1]
    with_base = base is not None
    if t in (0, 1):
        return single(int(t), 2, base=with_base)

    def factors(xp: Any, aa: Array, bb: Array, ab: Array) -> tuple[Array, Array]:
        if not mergekit:
            return arc(xp, *angle(xp, aa, bb, ab), t)
        length = xp.maximum(xp.sqrt(aa), 1e-7) * xp.maximum(xp.sqrt(bb), 1e-7)
        cosine = xp.clip(ab / length, -1.0, 1.0)
        return arc(xp, cosine, 1 - cosine**2 <= PARALLEL, t)

    first: Any = inputs[0]
    if flatten or len(first.shape) < 2:
        return gram_kernel((0, 1), lambda gram: _pair(gram, factors), base=with_base)
    return _by_column(factors, with_base) if row_wise else _by_row(factors, with_base)


def _pair(gram: Matrix, factors: Factors) -> tuple[float, float]:
    """The factors for whole tensors."""
    import numpy as np

    left, right = factors(np, *(np.float64(x) for x in (gram[0][0], gram[1][1], gram[0][1])))
    return float(left), float(right)


def _by_row(factors: Factors, base: bool) -> Kernel:
    """Each row of the last axis is a vector; blocks are whole rows."""

    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        rows = (-1, block.shape[-1])
        a, b = (v.reshape(rows) for v in vectors(inputs, (0, 1), base))
        aa, bb, ab = (xp.sum(x * y, axis=-1, dtype=xp.float64) for x, y in ((a, a), (b, b), (a, b)))
        left, right = factors(xp, aa, bb, ab)
        return _weighted(xp, inputs, a, b, left[:, None], right[:, None], base)

    return Kernel(combine)


def _by_column(factors: Factors, base: bool) -> Kernel:
    """Each place of the axes after the first is a vector along the first."""

    def statistics(results: Results) -> tuple[ColumnSums, ...]:
        return tuple(ColumnSums(_product(i, j, base)) for i, j in ((0, 0), (1, 1), (0, 1)))

    def solve(results: Results) -> tuple[Array, Array]:
        import numpy as np

        return factors(np, *results[0])

    def combine(xp: Any, inputs: Inputs, block: Block, pair: tuple[Array, Array]) -> Array:
        width = block.shape[-1]
        a, b = (v.reshape(-1, width) for v in vectors(inputs, (0, 1), base))
        left, right = (xp.asarray(side).reshape(-1, width) for side in pair)
        if len(left) > 1:  # more axes than two: the rows of the block take those in turn
            places = (block.start // width + xp.arange(len(a))) % len(left)
            left, right = left[places], right[places]
        return _weighted(xp, inputs, a, b, left, right, base)

    return Kernel(combine, (statistics,), solve=solve)


def _weighted(
    xp: Any, inputs: Inputs, a: Array, b: Array, left: Array, right: Array, base: bool
) -> Array:
    """left * a + right * b (+ B), flat, in the blocks' dtype."""
    total = a * xp.astype(left, a.dtype)
    total += b * xp.astype(right, a.dtype)
    flat = total.reshape(-1)
    if base:
        flat += inputs["base"][0]
    return flat


def _product(i: int, j: int, base: bool) -> Value:
    def product(xp: Any, inputs: Inputs, block: Block) -> Array:
        left, right = vectors(inputs, (i, j), base)
        return left * right

    return product
