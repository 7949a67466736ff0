"""What merges that decompose task matrices share: which tensors are matrices, what becomes of the
others, what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from recipelang.ops.spec import Cost, Fault, Typed
from recipelang.types import ModelType, TensorInfo
from recipelang.weights.compatibility import streaming_cost
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.svd import svd_flops
from recipelang.weights.kernels.task_vectors import combine
from recipelang.weights.metadata import FLOATS

__all__ = ["check_finite", "decomposing_cost", "is_matrix", "mean_of_tasks"]


def is_matrix(info: TensorInfo) -> bool:
    """Whether a tensor is decomposed: two axes, none of them empty, of floating-point numbers.

    >>> is_matrix(TensorInfo("BF16", (4, 3))), is_matrix(TensorInfo("BF16", (4,)))
    (True, False)
    """
    return len(info.shape) == 2 and info.elements > 0 and info.dtype in FLOATS


def mean_of_tasks(weights: Sequence[float], scale: float) -> Kernel:
    """R = B + scale * sum_i w_i D_i / n, where inputs of weight 0 do not count."""
    count = max(1, sum(1 for weight in weights if weight))
    whole = [None] * len(weights)
    return combine(weights, whole, scale=scale / count, normalize=False, elect=False)


def check_finite(typed: Typed, verb: str) -> None:
    """Fault E0557 where infinities and NaN are to be let through: they have no singular values."""
    if typed.fields.get("nonfinite") == "allow":
        raise Fault(
            "E0557", f"`{verb}` decomposes matrices, which infinities and NaN do not allow",
            at="nonfinite", help="leave it out, and mend the model that holds them",
        )  # fmt: skip


def decomposing_cost(
    typed: Typed, result: ModelType, count: int, memory: Callable[[TensorInfo], int]
) -> Cost:
    """A pass with ``count`` decompositions of every matrix, by the eigenvectors of its Gram
    matrix; ``memory`` says what one takes, in bytes."""
    matrices = [info for info in (result.tensors or {}).values() if is_matrix(info)]
    flops = sum(count * svd_flops((info.shape[0], info.shape[1])) for info in matrices)
    cost = streaming_cost(typed, result)
    peak = max((memory(info) for info in matrices), default=0)
    return replace(cost, flops=flops, memory_bytes=max(cost.memory_bytes, peak))
