"""How GGUF names a decoder's tensors, and which of them its writer reordered.

llama.cpp's converter interleaves the two halves of each head in the q and k projections of
``llama`` (its rotary embedding turns neighbours); Hugging Face turns halves, so those rows are put
back.

Example:
    >>> hugging_face_name("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["ARCHITECTURES", "hugging_face_name", "is_interleaved"]

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip
"""GGUF architecture (also the Hugging Face ``model_type``) -> class name."""
TOP = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}  # fmt: skip
PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "ffn_down": "mlp.down_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}  # fmt: skip
BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def hugging_face_name(name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor, or None for one that has none here."""
    if name in TOP:
        return TOP[name]
    match = BLOCK.fullmatch(name)
    if match is None or match[2] not in PARTS:
        return None
    return f"model.layers.{int(match[1])}.{PARTS[match[2]]}.{match[3]}"


def is_interleaved(architecture: str, name: str) -> bool:
    """Whether the rows of this GGUF tensor are in llama.cpp's order."""
    return (architecture == "llama" and ".attn_q." in name) or (
        architecture == "llama" and ".attn_k." in name
    )
