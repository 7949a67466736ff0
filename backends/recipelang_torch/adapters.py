"""LoRA inside a transformers model: trained in float32 beside frozen weights.

``y = W x + scale * B (A drop(x))`` (Hu et al. 2021, arXiv 2106.09685). W stays in its stored dtype
and gets no gradient. A (rank, in) and B (out, rank) are float32 (float64 at F64) and are rounded to
the compute dtype where they enter a product. One autograd node does a whole adapted layer: the
low-rank part is added by the matrix product itself, and the input is kept once for both.

Example:
    >>> layer = LoraLinear(nn.Linear(4, 3), torch.zeros(2, 4), torch.zeros(3, 2), 1.0)
    >>> layer(torch.ones(1, 5, 4)).shape
    torch.Size([1, 5, 3])
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from recipelang.backend import AdapterPlan
from recipelang.diagnostics import fault
from recipelang.weights.kernels.uniform_bits import dropout_keys, threshold
from recipelang_torch.arrays import from_numpy, uniform_bits, wide
from recipelang_torch.products import operand, widened

__all__ = ["Dropout", "LoraLinear", "attach"]


@dataclass(eq=False)
class Dropout:
    """Which elements of an adapter's input are dropped now: keyed by step, row of the batch and
    token.

    ``rows`` (rows,) int64: the rows' places in the step's whole batch. None: nothing is dropped.
    """

    probability: float = 0.0
    draws: str = ""
    step: int = 0
    rows: torch.Tensor | None = None

    def apply(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """``x`` (rows, length, features) with elements set to zero and the others scaled by 1 / (1
        - p)."""
        if self.rows is None or self.probability == 0.0:
            return x
        _, length, width = x.shape
        low = torch.arange(length * width, device=x.device).view(1, length, width)
        bits = uniform_bits(
            dropout_keys(self.draws, name, self.step), low, self.rows[:, None, None]
        )
        kept = bits >= threshold(self.probability)
        return torch.where(kept, x / (1.0 - self.probability), 0.0)


class _AdaptedProduct(torch.autograd.Function):
    """``x W^T + bias + scale * (z A^T) B^T``, no gradient to W; ``z`` is the dropped ``x``, or
    ``x``."""

    @staticmethod
    def forward(
        ctx: Any, x: Any, z: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float
    ) -> Any:
        flat = operand(x.reshape(-1, x.shape[-1]))
        dropped = flat if z is x else operand(z.reshape(-1, z.shape[-1]))
        low_a, low_b = operand(a.to(x.dtype)), operand(b.to(x.dtype))
        inner = operand((dropped @ low_a.T).to(x.dtype))
        out = flat @ operand(widened(weight, len(flat))).T
        out = out.addmm_(inner, low_b.T, alpha=scale).to(x.dtype)
        if bias is not None:
            out += bias
        ctx.save_for_backward(z, inner, weight, low_a, low_b)
        ctx.scale, ctx.shared = scale, z is x
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z, inner, weight, low_a, low_b = ctx.saved_tensors
        dropped = operand(z.reshape(-1, z.shape[-1]))
        grad = operand(grads[0].reshape(-1, grads[0].shape[-1]))
        back = operand((grad @ low_b).to(z.dtype))
        grad_b = (grad.T @ inner).to(z.dtype).to(wide(z.dtype)).mul_(ctx.scale)
        grad_a = (back.T @ dropped).to(z.dtype).to(wide(z.dtype)).mul_(ctx.scale)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, grad_a, grad_b, None
        grad_x = grad @ operand(widened(weight, len(grad)))
        if ctx.shared:
            grad_x.addmm_(back, low_a, alpha=ctx.scale)
            return grad_x.to(z.dtype).view(z.shape), None, None, None, grad_a, grad_b, None
        grad_z = (back @ low_a).to(z.dtype).mul_(ctx.scale).view(z.shape)
        return grad_x.to(z.dtype).view(z.shape), grad_z, None, None, grad_a, grad_b, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank part; takes the layer's place in the model."""

    def __init__(
        self, base: nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float,
        name: str = "", dropout: Dropout | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.base, self.scale, self.name, self.dropout = base, scale, name, dropout
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight: some models look at a layer's dtype."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), in the dtype of ``x``."""
        z = x if self.dropout is None else self.dropout.apply(x, self.name)
        out: torch.Tensor = _AdaptedProduct.apply(
            x, z, self.base.weight, self.base.bias, self.a, self.b, self.scale
        )
        return out


def attach(module: nn.Module, plan: AdapterPlan, dropout: Dropout) -> dict[str, nn.Parameter]:
    """Freeze the model and put the adapters on it; gives ``NAME.lora_A`` and ``NAME.lora_B``.

    The output matrix gets no dropout: only some positions pass through it. Raises RecipeError E0803
    for a tensor that is not the weight of a linear layer.
    """
    module.requires_grad_(False)
    head = module.get_output_embeddings()  # type: ignore[operator]
    trained: dict[str, nn.Parameter] = {}
    for name in sorted(plan.initial):
        path = name.removesuffix(".weight")
        try:
            base = module.get_submodule(path)
        except AttributeError:
            base = None
        if not isinstance(base, nn.Linear):
            raise fault(
                "E0803", f"the torch backend cannot put an adapter on `{name}`",
                help="only weights of linear layers take an adapter",
            )  # fmt: skip
        a, b = (
            from_numpy(x, base.weight.device).to(wide(base.weight.dtype))
            for x in plan.initial[name]
        )
        layer = LoraLinear(base, a, b, plan.scale, name, None if base is head else dropout)
        parent, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(parent), leaf, layer)
        trained[f"{name}.lora_A"], trained[f"{name}.lora_B"] = layer.a, layer.b
    return trained
