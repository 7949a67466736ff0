"""Models with random weights: the type from sizes, and a checkpoint that draws when it is read.

Example:
    >>> sizes = {"num_hidden_layers": 0, "hidden_size": 4, "vocab_size": 8, "intermediate_size": 8}
    >>> heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2}
    >>> llama = {"model_type": "llama", "tie_word_embeddings": True, **sizes, **heads}
    >>> sorted(table(llama, "F32"))
    ['model.embed_tokens.weight', 'model.norm.weight']
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.types import DTYPE_NAMES, ModelType, TensorInfo, TokenizerType
from recipelang.values import Attr
from recipelang.weights.config import set_dtype
from recipelang.weights.vocabulary import table_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ARCHITECTURES", "InitialModel", "initial_type", "table"]

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
STANDARD_DEVIATION = 0.02


def initial_type(
    architecture: str, tokenizer: TokenizerType | None, fields: Mapping[str, Attr]
) -> ModelType:
    """The model that ``init`` makes; without a tokenizer at hand its table is unknown."""
    hidden, heads = fields["hidden"], fields["heads"]
    assert isinstance(hidden, int)
    assert isinstance(heads, int)
    dtype = DTYPE_NAMES[str(fields["dtype"])]
    if tokenizer is None:
        return ModelType()
    config: dict[str, object] = {
        "architectures": [f"{CLASSES[architecture]}ForCausalLM"],
        "model_type": architecture,
        "hidden_size": hidden,
        "num_hidden_layers": fields["layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("kv_heads") or heads,
        "head_dim": hidden // heads,
        "intermediate_size": fields.get("intermediate") or -(-hidden * 8 // 3 // 8) * 8,
        "max_position_embeddings": fields["context"],
        "vocab_size": max(table_of(tokenizer)) + 1,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "use_cache": True,
        "tie_word_embeddings": fields["tied"],
        "attention_dropout": 0.0,
        "initializer_range": STANDARD_DEVIATION,
    }
    extra: dict[str, dict[str, object]] = {
        "llama": {"attention_bias": False, "mlp_bias": False},
        "mistral": {"sliding_window": None},
        "qwen2": {"use_sliding_window": False},
        "qwen3": {"use_sliding_window": False, "attention_bias": False},
    }
    config = set_dtype(config | extra[architecture], dtype)
    return ModelType(config, table(config, dtype), tokenizer)


def table(config: Mapping[str, object], dtype: str) -> dict[str, TensorInfo]:
    """The tensors of a decoder of one of :data:`ARCHITECTURES`, in name order."""

    def size(key: str) -> int:
        value = config[key]
        assert isinstance(value, int)
        return value

    hidden, inner, dim = size("hidden_size"), size("intermediate_size"), size("head_dim")
    q, kv = size("num_attention_heads") * dim, size("num_key_value_heads") * dim
    block: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden), "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden), "self_attn.o_proj.weight": (hidden, q),
        "mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }  # fmt: skip
    if config["model_type"] == "qwen2":
        block |= {f"self_attn.{p}_proj.bias": (n,) for p, n in (("q", q), ("k", kv), ("v", kv))}
    if config["model_type"] == "qwen3":
        block |= {"self_attn.q_norm.weight": (dim,), "self_attn.k_norm.weight": (dim,)}
    shapes = {
        "model.embed_tokens.weight": (size("vocab_size"), hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (size("vocab_size"), hidden)
    rows: dict[str, tuple[int, ...]] = dict(shapes)
    for layer in range(size("num_hidden_layers")):
        rows |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    return {name: TensorInfo(dtype, shape) for name, shape in sorted(rows.items())}


@dataclass(frozen=True, eq=False)
class InitialModel:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` whose numbers are drawn when they are
    read.

    ``key`` is any text that names the draws (seed and step); each tensor has its own stream.
    ``files`` are the tokenizer's.
    """

    type: ModelType
    key: str
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])

    @property
    def config(self) -> Mapping[str, object]:
        """The configuration."""
        assert self.type.config is not None
        return self.type.config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table."""
        assert self.type.tensors is not None
        return self.type.tensors

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``: normal(0, 0.02) for matrices, 1 for norms, 0 for biases."""
        import numpy as np

        from recipelang.weights.numbers import narrow

        info = self.tensors[name]
        stop = info.elements if stop is None else stop
        if len(info.shape) == 1:
            value = 0.0 if name.endswith(".bias") else 1.0
            return narrow(np.full(stop - start, value, np.float32), info.dtype)
        seed = int.from_bytes(hashlib.sha256(f"{self.key}/{name}".encode()).digest()[:16], "little")
        columns = info.shape[-1]
        first, last = start // columns, -(-stop // columns)
        rows = [self._row(seed, row, columns) for row in range(first, last)]
        values = np.concatenate(rows) if rows else np.empty(0)
        return narrow(values[start - first * columns : stop - first * columns], info.dtype)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""

    @staticmethod
    def _row(seed: int, row: int, columns: int) -> NDArray[np.float64]:
        """A row has its own counter range, so a part of a tensor is drawn without the rest."""
        import numpy as np

        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, row, 0]))
        return generator.standard_normal(columns) * STANDARD_DEVIATION
