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
from typing import Any, cast

import torch
from torch import nn

from recipelang.backend import AdapterPlan
from recipelang.diagnostics import fault
from recipelang.weights.kernels.uniform_bits import dropout_keys, threshold
from recipelang_torch.arrays import from_numpy, uniform_bits, wide
from recipelang_torch.products import joined, operand, widened

__all__ = ["Dropout", "LoraLinear", "Siblings", "attach"]

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that get one input, in the order in which they are called."""


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
    """Layers of one input, each ``x W^T + bias + scale * (z A^T) B^T``, no gradient to W; ``z`` is
    the dropped ``x``, or ``x``.

    ``weight`` (sum of out, in) has the layers' weights one below the other, ``factors`` are their A
    and B in turn. The low-rank parts are added in the matrix product's own result.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Any, z: Any, weight: Any, biases: Any, scale: float, *factors: Any
    ) -> Any:
        flat = operand(x.reshape(-1, x.shape[-1]))
        dropped = flat if z is x else operand(z.reshape(-1, z.shape[-1]))
        low_a = operand(_stacked([a.to(x.dtype) for a in factors[::2]]))
        low_b = [operand(b.to(x.dtype)) for b in factors[1::2]]
        ctx.rank, ctx.sizes = len(low_a) // len(low_b), [len(b) for b in low_b]
        inner = operand((dropped @ low_a.T).to(x.dtype))
        wide_out = flat @ operand(widened(weight, len(flat))).T
        given: list[torch.Tensor] = []
        for out, own, b, bias in zip(
            wide_out.split(ctx.sizes, 1), inner.split(ctx.rank, 1), low_b, biases, strict=True
        ):
            out = out.addmm_(own, b.T, alpha=scale).to(x.dtype)
            if bias is not None:
                out += bias
            given.append(out.view(*x.shape[:-1], -1))
        ctx.save_for_backward(z, inner, weight, low_a, *low_b)
        ctx.scale, ctx.shared = scale, z is x
        return tuple(given)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z, inner, weight, low_a, *low_b = ctx.saved_tensors
        dropped = operand(z.reshape(-1, z.shape[-1]))
        grad = _side_by_side(grads, inner.dtype)
        backs: list[torch.Tensor] = []
        of_b: list[torch.Tensor] = []
        for part, own, b in zip(
            grad.split(ctx.sizes, 1), inner.split(ctx.rank, 1), low_b, strict=True
        ):
            backs.append((part @ b).to(z.dtype))
            of_b.append((part.T @ own).to(wide(z.dtype)).mul_(ctx.scale))
        back = operand(backs[0] if len(backs) == 1 else torch.cat(backs, 1))
        of_a = (back.T @ dropped).to(wide(z.dtype)).mul_(ctx.scale).split(ctx.rank)
        factors = [one for pair in zip(of_a, of_b, strict=True) for one in pair]
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, *factors
        of_x, of_z = grad @ operand(widened(weight, len(grad))), None
        if ctx.shared:
            of_x.addmm_(back, low_a, alpha=ctx.scale)
        else:
            of_z = (back @ low_a).to(z.dtype).mul_(ctx.scale).view(z.shape)
        return of_x.to(z.dtype).view(z.shape), of_z, None, None, None, *factors


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _side_by_side(parts: tuple[torch.Tensor, ...], dtype: torch.dtype) -> torch.Tensor:
    """Gradients (..., out) as one matrix (tokens, sum of out)."""
    flat = [part.reshape(-1, part.shape[-1]) for part in parts]
    if len(flat) == 1:
        return flat[0].to(dtype)
    whole = flat[0].new_empty(len(flat[0]), sum(part.shape[1] for part in flat), dtype=dtype)
    for own, part in zip(whole.split([part.shape[1] for part in flat], 1), flat, strict=True):
        own.copy_(part)
    return whole


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank part; takes the layer's place in the model."""

    def __init__(
        self, base: nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float,
        name: str = "", dropout: Dropout | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.base, self.scale, self.name, self.dropout = base, scale, name, dropout
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.siblings: Siblings | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight: some models look at a layer's dtype."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), in the dtype of ``x``."""
        if self.siblings is not None:
            return self.siblings.output(self, x)
        return self.alone(x)

    def alone(self, x: torch.Tensor) -> torch.Tensor:
        """This layer's output, whatever its siblings do."""
        z = x if self.dropout is None else self.dropout.apply(x, self.name)
        (out,) = _AdaptedProduct.apply(
            x, z, self.base.weight, (self.base.bias,), self.scale, self.a, self.b
        )
        return cast("torch.Tensor", out)


@dataclass(eq=False)
class Siblings:
    """Layers that a model calls one after another with one input, such as query, key and value: the
    first call does the products of all, and the others take what is theirs. A layer that is called
    with something else is computed alone."""

    layers: tuple[LoraLinear, ...]

    def __post_init__(self) -> None:
        self.weight = joined([layer.base.weight for layer in self.layers])
        self._ready: tuple[torch.Tensor, tuple[torch.Tensor, ...]] | None = None
        for layer in self.layers:
            layer.siblings = self

    def output(self, layer: LoraLinear, x: torch.Tensor) -> torch.Tensor:
        """What ``layer`` makes of ``x``."""
        if layer is self.layers[0]:
            factors = [factor for one in self.layers for factor in (one.a, one.b)]
            biases = tuple(one.base.bias for one in self.layers)
            outputs = _AdaptedProduct.apply(x, x, self.weight, biases, layer.scale, *factors)
            self._ready = (x, outputs)
        if self._ready is None or self._ready[0] is not x:
            return layer.alone(x)
        out = self._ready[1][self.layers.index(layer)]
        if layer is self.layers[-1]:
            self._ready = None
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
    if plan.dropout == 0.0:  # else each has an input of its own
        _join(module)
    return trained


def _join(module: nn.Module) -> None:
    """Make siblings of the adapted layers that causal language models call with one input."""
    for parent in module.modules():
        for names in TOGETHER:
            found = [getattr(parent, name, None) for name in names]
            layers = tuple(layer for layer in found if isinstance(layer, LoraLinear))
            if len(layers) > 1 and len({layer.a.shape for layer in layers}) == 1:
                Siblings(layers)
