"""Adapted layers of one input: together they are what each is alone."""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from recipelang.backend import AdapterPlan
from recipelang_torch import products
from recipelang_torch.adapters import Dropout, LoraLinear, attach

SIZES = {"q_proj": 12, "k_proj": 6, "v_proj": 6, "o_proj": 8}


class Attention(nn.Module):
    """The call pattern of an attention layer, without attention."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        for name, out in SIZES.items():
            layer = nn.Linear(12 if name == "o_proj" else 8, out, bias=bias)
            for weight in layer.parameters():
                weight.data = torch.randn(weight.shape, generator=generator)
            setattr(self, name, layer)

    def get_output_embeddings(self) -> None:
        """There is no head."""

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """(rows, length, 8) to the same shape; key and value may come from elsewhere."""
        source = x if other is None else other
        key, value = self.k_proj(source), self.v_proj(source)
        mixed = torch.tanh(key) * value
        result: torch.Tensor = self.o_proj(self.q_proj(x) * torch.cat([mixed, mixed], -1))
        return result


class InOrder(Attention):
    """Query first, as transformers calls them."""

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """(rows, length, 8) to the same shape."""
        source = x if other is None else other
        query, key, value = self.q_proj(x), self.k_proj(source), self.v_proj(source)
        mixed = torch.tanh(key) * value
        result: torch.Tensor = self.o_proj(query * torch.cat([mixed, mixed], -1))
        return result


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plan(dropout: float = 0.0) -> AdapterPlan:
    generator = np.random.default_rng(5)
    initial = {}
    for name, out in SIZES.items():
        inner = 12 if name == "o_proj" else 8
        initial[f"{name}.weight"] = (
            generator.standard_normal((2, inner)).astype(np.float32),
            generator.standard_normal((out, 2)).astype(np.float32),
        )
    return AdapterPlan(initial, 0.5, dropout)


def adapted(model: Attention, joined: bool, dtype: torch.dtype) -> Attention:
    made = copy.deepcopy(model).to(dtype)
    attach(made, plan(), Dropout())
    for part in made.modules():
        if isinstance(part, LoraLinear) and not joined:
            part.siblings = None
    return made


def gradients(model: Attention, x: torch.Tensor, other: torch.Tensor | None) -> list[torch.Tensor]:
    x = x.clone().requires_grad_(True)
    out = model(x, other)
    out.square().sum().backward()
    assert x.grad is not None
    found = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert all(gradient is not None for gradient in found)
    return [out.detach(), x.grad, *(g for g in found if g is not None)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [InOrder, Attention])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_siblings_do_what_the_layers_do_alone(
    kind: type[Attention], bias: bool, elsewhere: bool
) -> None:
    model = kind(bias)
    x, other = normal(3, 5, 8), None
    if elsewhere:
        other = normal(3, 5, 8, seed=1)
    together = adapted(model, True, torch.float64)
    assert isinstance(together.q_proj, LoraLinear)
    assert together.q_proj.siblings is not None
    assert together.o_proj.siblings is None
    alone = adapted(model, False, torch.float64)
    for a, b in zip(gradients(together, x, other), gradients(alone, x, other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_siblings_of_rounded_weights_in_float32_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without bfloat16 instructions: both ways round at the same places."""
    monkeypatch.setattr(products, "widens", lambda dtype, kind: dtype == torch.bfloat16)
    model, x = InOrder(True), normal(8, 16, 8).bfloat16()
    together, alone = (adapted(model, joined, torch.bfloat16) for joined in (True, False))
    for a, b in zip(gradients(together, x, None), gradients(alone, x, None), strict=True):
        scale = float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2 * scale)


def test_joined_weights_are_held_once() -> None:
    model = adapted(InOrder(False), True, torch.float32)
    assert isinstance(model.q_proj, LoraLinear)
    siblings = model.q_proj.siblings
    assert siblings is not None
    held = {layer.base.weight.untyped_storage().data_ptr() for layer in siblings.layers}
    assert held == {siblings.weight.untyped_storage().data_ptr()}


def test_nothing_of_a_forward_pass_is_kept() -> None:
    model = adapted(InOrder(False), True, torch.float32)
    model(normal(1, 2, 8).float())
    assert isinstance(model.q_proj, LoraLinear)
    assert model.q_proj.siblings is not None
    assert model.q_proj.siblings._ready is None


def test_with_dropout_every_layer_has_an_input_of_its_own() -> None:
    model = InOrder(False)
    attach(model, plan(dropout=0.5), Dropout(0.5, "00"))
    assert isinstance(model.q_proj, LoraLinear)
    assert model.q_proj.siblings is None
