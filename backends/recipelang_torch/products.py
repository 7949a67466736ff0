"""Matrix products of bfloat16 and float16, on processors with and without fast instructions for
them.

A product takes rounded inputs and adds up in float32, whatever computes it. Where the processor is
slow at that (on an Intel Xeon without AMX torch's bfloat16 product ran at 70 GFLOP/s a core, its
float32 one at 125), the inputs are widened, multiplied in float32 and the result rounded: the same
numbers but for the order of the sum. The weights stay in their stored dtype; a widened one lives
only during its product.

Example:
    >>> matmul(torch.ones(2, 3).bfloat16(), torch.ones(3, 2).bfloat16()).dtype
    torch.bfloat16
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = [
    "ATTENTION",
    "joined",
    "linear_gradients",
    "matmul",
    "operand",
    "prepare",
    "widened",
    "widens",
]

ATTENTION = "recipelang_wide"
"""torch's fused attention in float32, for processors on which it is faster than in bfloat16."""

_FEW = 32
"""With fewer rows widening a weight costs more than the product."""

_SMALL = 400_000_000
"""Up to so many parameters the widened form of frozen weights is kept (4 bytes each)."""

_WIDENED: Any = WeakIdKeyDictionary()
"""The frozen weights of small models, each with its kept widened form (None before its first
product) and the version it was made of."""


@lru_cache(maxsize=8)
def widens(dtype: torch.dtype, device_type: str) -> bool:
    """Whether products of this type are done in float32 here. It depends on the processor's kind
    alone, never on a measurement, so that runs on one machine are alike."""
    if device_type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return False
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if dtype == torch.float16 or known.get("architecture", "x86_64") != "x86_64":
        return dtype == torch.float16
    fast = known.get("avx512_bf16") and "Intel" not in str(known.get("cpu_name"))
    return not (known.get("amx_bf16") or fast)


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a (n, k)`` times ``b (k, m)``, which may be widened; rounded to the dtype of ``a``."""
    if a.dtype != b.dtype or (len(a) >= _FEW and widens(a.dtype, a.device.type)):
        return (a.float() @ b.float()).to(a.dtype)
    return a @ b


def operand(x: torch.Tensor) -> torch.Tensor:
    """``x`` in the form that products of its dtype take here: made once, it serves in many."""
    return x.float() if widens(x.dtype, x.device.type) else x


def widened(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """The weight for a product with ``rows`` rows: in float32 where that is kept, else itself.

    Widening is exact, so a product has the same bits either way; keeping it spares half a
    gigabyte of conversions a step on a model of 135M parameters. A single row is a matter of
    reading the weight, which its narrow form does faster.
    """
    if rows == 1 or weight.requires_grad or weight not in _WIDENED:
        return weight
    kept = _WIDENED[weight]
    if kept is None or kept[0] != weight._version:
        kept = _WIDENED[weight] = (weight._version, weight.detach().float())
    wide: torch.Tensor = kept[1]
    return wide


def joined(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Frozen weights of one input as one matrix (sum of out, in); they become views of it."""
    whole = torch.cat([weight.detach() for weight in weights])
    for weight, part in zip(weights, whole.split([len(w) for w in weights]), strict=True):
        weight.data = part
    if all(weight in _WIDENED for weight in weights):
        _WIDENED[whole] = None
    return whole


def linear_gradients(
    needed: Any, grad: torch.Tensor, x: torch.Tensor | None, weight: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """The gradients in input, weight and bias of a linear layer, each where ``needed`` says so.

    ``grad`` (n, out), ``x`` (n, in), ``weight`` (out, in).
    """
    of_input = matmul(grad, widened(weight, len(grad))) if needed[0] else None
    of_weight = matmul(grad.T, x) if needed[1] and x is not None else None
    of_bias = grad.sum(0) if needed[2] else None
    return of_input, of_weight, of_bias


class _Linear(torch.autograd.Function):
    """A linear layer through :func:`matmul`."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        ctx.shape = x.shape
        flat = x.reshape(-1, x.shape[-1])
        out = matmul(flat, widened(weight, len(flat)).T)
        if bias is not None:
            out += bias
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        x = None if x is None else x.reshape(-1, weight.shape[1])
        of_input, of_weight, of_bias = linear_gradients(ctx.needs_input_grad, grad, x, weight)
        return None if of_input is None else of_input.view(ctx.shape), of_weight, of_bias


class _Head(torch.autograd.Function):
    """The output matrix: float32 logits, which are not rounded, of rounded hidden states."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, wide: Any) -> Any:
        ctx.save_for_backward(x if weight.requires_grad else None, wide)
        ctx.dtype = weight.dtype
        return x.float() @ wide.T

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, wide = ctx.saved_tensors
        grad = grads[0].to(ctx.dtype).float().reshape(-1, wide.shape[0])
        of_input = (grad @ wide).to(ctx.dtype).view(*grads[0].shape[:-1], -1)
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (grad.T @ x.reshape(-1, wide.shape[1]).float()).to(ctx.dtype)
        return of_input, of_weight, None


def prepare(module: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Put the model's linear layers on :func:`matmul` where that is faster; else leave them."""
    if not widens(dtype, device.type):
        return
    head = module.get_output_embeddings()
    small = sum(weight.numel() for weight in module.parameters()) <= _SMALL
    for part in module.modules():
        if type(part) is nn.Linear:
            if small and part is not head:
                _WIDENED[part.weight] = None
            vars(part)["forward"] = (
                _head(part) if part is head and part.bias is None else _layer(part)
            )


def _layer(part: nn.Linear) -> Any:
    return lambda x: _Linear.apply(x, part.weight, part.bias)


def _head(part: nn.Linear) -> Any:
    """The widened output matrix is kept, and made again when the weight has changed."""
    kept: dict[int, torch.Tensor] = {}

    def forward(x: torch.Tensor) -> Any:
        if x[..., 0].numel() == 1 and not torch.is_grad_enabled():
            return nn.functional.linear(x, part.weight).float()
        version = part.weight._version
        if version not in kept:
            kept.clear()
            kept[version] = part.weight.detach().float()
        return _Head.apply(x, part.weight, kept[version])

    return forward


def _wide_attention(
    module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **rest: Any
) -> tuple[torch.Tensor, None]:
    """Attention of widened query, key and value (B, N, S, D), rounded at the end."""
    mixed, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **rest
    )
    return mixed.to(query.dtype), None


AttentionInterface.register(ATTENTION, _wide_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
