"""Tiny random models with every trait that goes wrong quietly: what both backends are tested on.

Norms and biases are perturbed (a norm of ones hides a missing weight), rope bases are not the
defaults, sliding windows are shorter than the text. Neither torch nor JAX is imported.

Example:
    >>> model = checkpoint("gemma3", "F32")
    >>> model.config["model_type"], len(model.tensors) > 20
    ('gemma3_text', True)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from recipelang.data.batch import Batch
from recipelang.types import TensorInfo

VOCABULARY = 97
DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
}  # fmt: skip
PRECISION_DTYPE: dict[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
}  # fmt: skip

_COMMON: dict[str, object] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.02,
}  # fmt: skip
_GEMMA: dict[str, object] = {
    "tie_word_embeddings": True, "head_dim": 16, "rms_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip

CONFIGS: dict[str, dict[str, object]] = {
    "llama": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 5000.0,
        "tie_word_embeddings": True,
    },
    "llama3": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": True,
        "rope_theta": 50000.0, "rope_scaling": _LLAMA3,
    },
    "mistral": {
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "rope_theta": 3000.0,
        "sliding_window": 5,
    },
    "qwen2": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
        "use_sliding_window": False,
    },
    "qwen3": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 900.0},
        "tie_word_embeddings": True, "attention_bias": False,
    },
    "gemma": {
        "model_type": "gemma", "architectures": ["GemmaForCausalLM"], "rope_theta": 700.0, **_GEMMA,
    },
    "gemma2": {
        "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], **_GEMMA,
        "rope_theta": 800.0, "num_hidden_layers": 4, "sliding_window": 5,
        "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0,
    },
    "gemma3": {
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], **_GEMMA,
        "num_hidden_layers": 4, "sliding_window": 5, "query_pre_attn_scalar": 24,
        "rope_theta": 70000.0, "rope_local_base_freq": 500.0,
        "layer_types": [
            "sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
        ],
    },
}  # fmt: skip
"""Architecture name -> what its config.json holds beside the common keys."""

ARCHITECTURES = tuple(CONFIGS)


def config(architecture: str, **changes: object) -> dict[str, object]:
    """The config.json of a tiny model."""
    return {**_COMMON, **CONFIGS[architecture], **changes}


def shapes(of: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the decoder families above, as Hugging Face names them."""
    kind, hidden, inner = of["model_type"], of["hidden_size"], of["intermediate_size"]
    width = of.get("head_dim") or hidden // of["num_attention_heads"]
    query, key = width * of["num_attention_heads"], width * of["num_key_value_heads"]
    table: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (of["vocab_size"], hidden)}
    for layer in range(of["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        rows = {"q_proj": (query, hidden), "k_proj": (key, hidden), "v_proj": (key, hidden)}
        for name, shape in rows.items():
            table[f"{at}self_attn.{name}.weight"] = shape
            if kind == "qwen2" or of.get("attention_bias"):
                table[f"{at}self_attn.{name}.bias"] = shape[:1]
        table[f"{at}self_attn.o_proj.weight"] = (hidden, query)
        if of.get("attention_bias"):
            table[f"{at}self_attn.o_proj.bias"] = (hidden,)
        if kind in ("qwen3", "gemma3_text"):
            table |= {f"{at}self_attn.{n}_norm.weight": (width,) for n in "qk"}
        table |= {f"{at}mlp.{n}_proj.weight": (inner, hidden) for n in ("gate", "up")}
        table[f"{at}mlp.down_proj.weight"] = (hidden, inner)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if kind in ("gemma2", "gemma3_text"):
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        table |= {f"{at}{norm}.weight": (hidden,) for norm in norms}
    table["model.norm.weight"] = (hidden,)
    if not of["tie_word_embeddings"]:
        table["lm_head.weight"] = (of["vocab_size"], hidden)
    return dict(sorted(table.items()))


@dataclass(frozen=True, eq=False)
class MemoryCheckpoint:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` whose tensors are numpy arrays."""

    config: Mapping[str, object]
    arrays: Mapping[str, np.ndarray[Any, Any]]
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name -> dtype and shape."""
        names = {np.dtype(v): k for k, v in DTYPES.items()}
        return {n: TensorInfo(names[a.dtype], a.shape) for n, a in sorted(self.arrays.items())}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray[Any, Any]:
        """Elements of the flattened tensor, read-only as those of a mapped file."""
        part = self.arrays[name].reshape(-1)[start:stop]
        part.flags.writeable = False
        return part

    def release(self, name: str) -> None:
        """Nothing is mapped."""


def checkpoint(
    architecture: str, dtype: str = "F32", seed: int = 0, **changes: object
) -> MemoryCheckpoint:
    """A tiny random model; the values are the same for every dtype but for rounding from
    float64."""
    settings = config(architecture, torch_dtype=PRECISION_DTYPE[dtype], **changes)
    generator = np.random.Generator(np.random.Philox(key=seed))
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, shape in shapes(settings).items():
        values = generator.standard_normal(shape)
        if name.endswith("norm.weight"):
            around = 0.0 if str(settings["model_type"]).startswith("gemma") else 1.0
            values = around + 0.3 * values
        elif "embed" in name:
            values = 0.5 * values
        elif len(shape) == 2:
            values = values * 1.5 / np.sqrt(shape[1])
        else:
            values = 0.3 * values
        arrays[name] = values.astype(DTYPES[dtype])
    return MemoryCheckpoint(settings, arrays)


def write(model: MemoryCheckpoint, folder: Path) -> Path:
    """Save the model as a Hugging Face folder (config.json, model.safetensors); gives the
    folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(model.config)), encoding="utf-8")
    save_file(dict(model.arrays), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def batch(rows: int = 4, length: int = 12, seed: int = 0, packed: bool = True) -> Batch:
    """Rows of random tokens: with ``packed`` two documents a row (sizes differ by row) and padding
    in every second row; a prefix of each document is unsupervised, by an uneven amount."""
    generator = np.random.Generator(np.random.Philox(key=seed + 1000))
    tokens = generator.integers(3, VOCABULARY, (rows, length)).astype(np.int32)
    segments = np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    supervised = np.zeros((rows, length), np.bool_)
    for row in range(rows):
        end = length - (row % 2) * 2
        cut = 3 + row % 3 if packed else 0
        for number, (start, stop) in enumerate(((0, cut), (cut, end)), 1):
            segments[row, start:stop] = number
            positions[row, start:stop] = np.arange(stop - start)
            supervised[row, start + 1 + (row + number) % 2 : stop] = True
        tokens[row, end:] = 0
    return Batch(tokens, segments, positions, supervised)
