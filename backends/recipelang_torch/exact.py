"""Where transformers computes in less than the recipe's precision: attention with soft caps, and
float64.

transformers casts norms, rotary tables and some softmaxes to float32, also in a float64 model. At
F64 these are replaced by float64 ones; a replacement is used only where it agrees with the original
on a random input to float32's accuracy, so an unknown norm is left as it is. At other precisions
nothing changes but attention with soft caps, which else would fall back to a slower path.

Example:
    >>> from transformers import Gemma2Config, Gemma2ForCausalLM
    >>> attention_for(Gemma2ForCausalLM, Gemma2Config())
    'recipelang_softcap'
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from recipelang_torch import products
from recipelang_torch.arrays import wide
from recipelang_torch.shard import place

__all__ = ["attention_for", "sharpen"]

SOFTCAP = "recipelang_softcap"


def _softcap_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, *, scaling: float, softcap: float | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Softmax attention with scores ``c tanh(x / c)`` (Gemma 2): query (B, N, S, D), key and value
    (B, K, T, D), mask (B or 1, 1, S, T) bool or None for causal; gives (B, S, N, D)."""
    rows, heads, length, width = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, length, width)
    scores = (
        torch.matmul(grouped, key[:, :, None].transpose(-1, -2)).to(wide(query.dtype)) * scaling
    )
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is None:
        attention_mask = torch.ones(
            length, key.shape[2], dtype=torch.bool, device=query.device
        ).tril(key.shape[2] - length)[None, None]
    hidden = torch.finfo(
        scores.dtype
    ).min  # not -inf: a row of padding sees nothing, and must stay finite
    scores = scores.masked_fill(~attention_mask[:, :, None], hidden)
    mixed = torch.matmul(torch.softmax(scores, -1).to(value.dtype), value[:, :, None])
    return mixed.reshape(rows, heads, length, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(SOFTCAP, _softcap_attention)
AttentionMaskInterface.register(SOFTCAP, sdpa_mask)


def attention_for(model_class: Any, config: Any, dtype: torch.dtype = torch.float32) -> str:
    """The attention a model's class is built with: torch's fused one wherever the class allows
    it."""
    if model_class._supports_sdpa:
        return (
            products.ATTENTION
            if products.widens(dtype, "cpu") and place().type == "cpu"
            else "sdpa"
        )
    return SOFTCAP if getattr(config, "attn_logit_softcapping", None) else "eager"


def sharpen(module: nn.Module, dtype: torch.dtype) -> None:
    """At float64, replace what would compute in float32; at other dtypes do nothing."""
    if dtype != torch.float64:
        return
    for part in module.modules():
        if hasattr(part, "scalar_embed_scale"):
            part.register_buffer(
                "embed_scale", torch.tensor(part.scalar_embed_scale, dtype=dtype), False
            )
        if type(part).__name__.endswith("RotaryEmbedding"):
            _sharpen_rotary(part)
        elif type(part).__name__.endswith("RMSNorm"):
            _sharpen_norm(part)


def _sharpen_norm(norm: Any) -> None:
    """Root-mean-square norm (Zhang & Sennrich 2019, arXiv 1910.07467) times ``w``, or ``1 + w``
    (Gemma)."""
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if weight is None or eps is None:
        return
    probe = torch.linspace(-2.0, 3.0, weight.shape[-1], dtype=torch.float64, device=weight.device)
    for offset in (0.0, 1.0):

        def forward(x: torch.Tensor, offset: float = offset) -> torch.Tensor:
            scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
            factor: torch.Tensor = norm.weight + offset
            return scaled * factor

        with torch.no_grad():
            if torch.allclose(norm(probe), forward(probe), rtol=1e-5, atol=1e-5):
                norm.forward = forward
                return


def _sharpen_rotary(rotary: Any) -> None:
    """Rotary tables (Su et al. 2021, arXiv 2104.09864) of every layer type, with float64
    frequencies."""
    settings = rotary.config.rope_parameters
    by_type: dict[str | None, Any] = (
        dict(settings) if hasattr(rotary, "layer_types") else {None: settings}
    )
    tables: dict[str | None, torch.Tensor] = {}
    for kind, parameters in by_type.items():
        held = getattr(rotary, "inv_freq" if kind is None else f"{kind}_inv_freq", None)
        if held is None or parameters is None:
            return
        found = _frequencies(parameters, 2 * held.shape[0]).to(held.device)
        if not torch.allclose(found, held.double(), rtol=1e-5, atol=0.0):
            return
        tables[kind] = found

    def forward(x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None) -> Any:
        angle = position_ids[..., None].double() * tables[layer_type]
        name = "attention_scaling" if layer_type is None else f"{layer_type}_attention_scaling"
        scale, angle = getattr(rotary, name), torch.cat((angle, angle), dim=-1)
        return (angle.cos() * scale).to(x.dtype), (angle.sin() * scale).to(x.dtype)

    rotary.forward = forward


def _frequencies(parameters: Any, width: int) -> torch.Tensor:
    """Radians a position, (width / 2,) float64; kinds other than default, linear and llama3 will
    not agree."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    inverse: torch.Tensor = 1.0 / parameters["rope_theta"] ** exponent
    factor: float = parameters.get("factor", 1.0)
    if parameters.get("rope_type") == "linear":
        return inverse / factor
    if parameters.get("rope_type") == "llama3":
        turns: torch.Tensor = (
            parameters["original_max_position_embeddings"] * inverse / (2 * math.pi)
        )
        low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
        smooth: torch.Tensor = ((turns - low) / (high - low)).clamp(0.0, 1.0)
        blended: torch.Tensor = inverse * ((1.0 - smooth) / factor + smooth)
        return blended
    return inverse
