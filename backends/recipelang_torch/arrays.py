"""Numbers on torch: the namespace that objectives see, dtypes, the way to and from numpy, random
bits.

Example:
    >>> float(XP.sum(XP.exp(torch.zeros(3))))
    3.0
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipelang.weights.kernels.uniform_bits import GOLDEN, MIX

__all__ = ["DTYPES", "XP", "from_numpy", "to_numpy", "uniform_bits", "wide"]

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16,
}  # fmt: skip
"""The precisions of a recipe."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """What masters, losses and reductions are held in: float64 beside float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _binary(function: Any) -> Any:
    """The function on arrays and plain numbers, in either place."""

    def apply(a: Any, b: Any) -> Any:
        like = a if isinstance(a, torch.Tensor) else b
        return function(*(torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (a, b)))

    return apply


def _reduction(function: Any) -> Any:
    def apply(x: torch.Tensor, axis: int | None = None, keepdims: bool = False) -> torch.Tensor:
        dims = tuple(range(x.ndim)) if axis is None else axis
        result: torch.Tensor = function(x, dim=dims, keepdim=keepdims)
        return result

    return apply


def _where(condition: torch.Tensor, a: Any, b: Any) -> torch.Tensor:
    return torch.where(condition, a, b)


def _clip(x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    return torch.clamp(x, min=low, max=high)


def _log_softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return torch.log_softmax(x, dim=axis)


def _take_along_axis(x: torch.Tensor, indices: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return torch.gather(x, axis, indices.long())


def _cumsum(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return torch.cumsum(x, dim=axis)


XP = SimpleNamespace(
    abs=torch.abs, clip=_clip, cumsum=_cumsum, exp=torch.exp, expm1=torch.expm1, log=torch.log,
    log1p=torch.log1p, log_softmax=_log_softmax, logaddexp=_binary(torch.logaddexp),
    max=_reduction(torch.amax), maximum=_binary(torch.maximum), mean=_reduction(torch.mean),
    min=_reduction(torch.amin), minimum=_binary(torch.minimum), ones_like=torch.ones_like,
    sqrt=torch.sqrt, stop_gradient=torch.Tensor.detach, sum=_reduction(torch.sum),
    take_along_axis=_take_along_axis, tanh=torch.tanh, where=_where, zeros_like=torch.zeros_like,
)  # fmt: skip
"""What an objective may call; ``recipelang_jax`` offers the same names."""


def from_numpy(array: NDArray[Any], device: torch.device | str = "cpu") -> torch.Tensor:
    """A tensor that owns a copy of the array's elements, in the same dtype (bfloat16 included)."""
    if array.dtype.name == "bfloat16":
        copy = torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    else:
        copy = torch.from_numpy(array.copy())
    return copy.to(device)


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """The elements on the host, float32 or wider."""
    array: NDArray[Any] = tensor.detach().to(wide(tensor.dtype)).cpu().numpy()
    return array


def _mix(x: torch.Tensor) -> torch.Tensor:
    first, multiplier, second, other, last = MIX
    x = x ^ (x >> first)
    x = (x * multiplier) & 0xFFFFFFFF
    x = x ^ (x >> second)
    x = (x * other) & 0xFFFFFFFF
    return x ^ (x >> last)


def uniform_bits(key: tuple[int, int], low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The words of :mod:`recipelang.weights.kernels.uniform_bits` at indices ``high:low``.

    Words and indices are int64 holding 32 bits: torch has no arithmetic on uint32.
    """
    return _mix(_mix(low ^ key[0]) ^ key[1] ^ ((high * GOLDEN) & 0xFFFFFFFF))
