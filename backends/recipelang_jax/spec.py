"""The frozen configuration of a decoder, read from config.json; what is not known is refused by
name.

Seven architectures that differ in a few switches: llama, mistral, qwen2, qwen3, gemma, gemma2,
gemma3_text. Every key of the configuration is consumed, or known not to change the computation, or
refused; every tensor of the checkpoint is expected, with its shape, or refused. The rules and the
defaults are those of transformers 5 (its ``configuration_*.py``), which also reads the older
spelling of the rotary settings (``rope_theta`` and ``rope_scaling`` at the top level).

Example:
    >>> make_spec({"model_type": "mamba"})
    Traceback (most recent call last):
    ...
    recipelang_jax.spec.Unsupported: the model type `mamba`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipelang.types import TensorInfo

__all__ = ["ARCHITECTURES", "Rope", "Spec", "Unsupported", "expected_tensors", "make_spec"]


class Unsupported(Exception):
    """The model is outside what this backend computes exactly; the text names the part."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): ``theta`` and an optional scaling.

    ``kind`` is ``default``, ``linear`` (Chen et al. 2023, arXiv 2306.15595) or ``llama3`` (Llama
    3.1).
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: float = 8192.0

    def inverse_frequencies(self, head_dim: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Radians a position for each pair of a head, (head_dim / 2,) float64."""
        exponent = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
        inverse = 1.0 / self.theta**exponent
        if self.kind == "linear":
            return inverse / self.factor
        if self.kind == "llama3":
            turns = self.original_length * inverse / (2 * math.pi)
            smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
            smooth = np.clip(smooth, 0.0, 1.0)
            return inverse * ((1.0 - smooth) / self.factor + smooth)
        return inverse


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything static of a decoder; hashable, so it may be a static argument of a compiled
    function.

    ``sliding[i]`` says that layer i sees only the last ``window`` tokens; ``rope[i]`` is its index
    into ``ropes``. ``plus_one``: norms multiply by ``1 + weight`` (gemma). ``sandwich``: norms also
    after attention and after the feed-forward part (gemma2, gemma3). ``softcap`` c maps x to c
    tanh(x / c).
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    eps: float
    activation: str
    tied: bool
    scale: float
    sliding: tuple[bool, ...]
    window: int
    rope: tuple[int, ...]
    ropes: tuple[Rope, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich: bool = False
    plus_one: bool = False
    embedding_scale: float = 1.0
    attention_softcap: float = 0.0
    final_softcap: float = 0.0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What a model type adds to the common keys: its own keys, and the defaults of missing ones."""

    keys: frozenset[str]
    defaults: Mapping[str, Any]


_COMMON = _words(
    "model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads"
    " num_key_value_heads head_dim rms_norm_eps tie_word_embeddings rope_parameters rope_theta"
    " rope_scaling max_position_embeddings"
)
_GEMMA = {
    "tie_word_embeddings": True, "head_dim": 256, "attention_bias": False,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
_WINDOWS = "sliding_window layer_types"
_CAPS = "query_pre_attn_scalar final_logit_softcapping attn_logit_softcapping"

ARCHITECTURES: Mapping[str, _Architecture] = {
    "llama": _Architecture(
        _words("hidden_act attention_bias mlp_bias pretraining_tp"), {"pretraining_tp": 1}
    ),
    "mistral": _Architecture(
        _words("hidden_act sliding_window"), {"sliding_window": 4096, "num_key_value_heads": 8}
    ),
    "qwen2": _Architecture(
        _words(f"hidden_act use_sliding_window max_window_layers {_WINDOWS}"),
        {"sliding_window": 4096, "max_window_layers": 28, "num_key_value_heads": 32},
    ),
    "qwen3": _Architecture(
        _words(f"hidden_act attention_bias use_sliding_window max_window_layers {_WINDOWS}"),
        {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128,
         "num_key_value_heads": 32},
    ),
    "gemma": _Architecture(
        _words("hidden_act hidden_activation attention_bias use_bidirectional_attention"),
        {**_GEMMA, "num_key_value_heads": 16},
    ),
    "gemma2": _Architecture(
        _words(
            "hidden_activation hidden_act attention_bias use_bidirectional_attention"
            f" cache_implementation {_WINDOWS} {_CAPS}"
        ),
        {**_GEMMA, "sliding_window": 4096, "query_pre_attn_scalar": 256, "num_key_value_heads": 4,
         "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    ),
    "gemma3_text": _Architecture(
        _words(
            "hidden_activation hidden_act attention_bias use_bidirectional_attention"
            f" cache_implementation sliding_window_pattern rope_local_base_freq {_WINDOWS} {_CAPS}"
        ),
        {**_GEMMA, "sliding_window": 4096, "query_pre_attn_scalar": 256, "num_key_value_heads": 4},
    ),
}  # fmt: skip
"""The model types this backend computes."""

_NEUTRAL = _words(
    "architectures auto_map torch_dtype dtype use_cache initializer_range bos_token_id"
    " eos_token_id pad_token_id attention_dropout output_hidden_states output_attentions"
    " return_dict id2label label2id chunk_size_feed_forward is_encoder_decoder problem_type"
    " cache_implementation is_llama_config do_sample temperature top_k top_p repetition_penalty"
    " max_length max_new_tokens tokenizer_class name_or_path add_cross_attention is_decoder"
    " torchscript use_bfloat16 hidden_dropout layer_norm_eps finetuning_task task_specific_params"
    " prefix sep_token_id decoder_start_token_id"
)
"""Keys that no decoder's forward pass reads (dropout in attention is off: a recipe says what is
random)."""

_NEUTRAL_PREFIXES = ("_", "transformers", "unsloth")


def make_spec(config: Mapping[str, Any]) -> Spec:
    """The decoder that a config.json describes.

    Raises Unsupported, which names the model type, the rotary type or the key.
    """
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise Unsupported(f"the model type `{kind}`")
    known = ARCHITECTURES[kind]
    _refuse_unknown(config, known)

    def get(key: str, default: Any = None) -> Any:
        value = config.get(key) if key in config else known.defaults.get(key, default)
        return default if value is None else value

    layers, heads, hidden = (
        get("num_hidden_layers", 0),
        get("num_attention_heads", 0),
        get("hidden_size", 0),
    )
    if not (
        layers and heads and hidden and config.get("vocab_size") and config.get("intermediate_size")
    ):
        raise Unsupported("a configuration without sizes")
    head_dim = get("head_dim") or hidden // heads
    sliding, window = _sliding(config, known, kind, layers)
    ropes, rope = _ropes(config, kind, sliding)
    gemma = kind.startswith("gemma")
    bias = bool(get("attention_bias", False))
    return Spec(
        model_type=kind, layers=layers, hidden=hidden, intermediate=config["intermediate_size"],
        heads=heads, kv_heads=get("num_key_value_heads") or heads, head_dim=head_dim,
        vocabulary=config["vocab_size"], eps=float(get("rms_norm_eps", 1e-6)),
        activation=_activation(get, kind), tied=bool(get("tie_word_embeddings", False)),
        scale=float(get("query_pre_attn_scalar") or head_dim) ** -0.5,
        sliding=sliding, window=window, rope=rope, ropes=ropes,
        qkv_bias=bias or kind == "qwen2", output_bias=bias, mlp_bias=bool(get("mlp_bias", False)),
        qk_norm=kind in ("qwen3", "gemma3_text"), sandwich=kind in ("gemma2", "gemma3_text"),
        plus_one=gemma, embedding_scale=math.sqrt(hidden) if gemma else 1.0,
        attention_softcap=float(get("attn_logit_softcapping", 0.0)),
        final_softcap=float(get("final_logit_softcapping", 0.0)),
    )  # fmt: skip


def _refuse_unknown(config: Mapping[str, Any], known: _Architecture) -> None:
    """Refuse the keys that are neither consumed nor neutral, and values that ask for another
    computation."""
    for key, value in config.items():
        if (
            key in _COMMON
            or key in known.keys
            or key in _NEUTRAL
            or key.startswith(_NEUTRAL_PREFIXES)
        ):
            continue
        if value is not None and value is not False:
            raise Unsupported(f"the configuration key `{key}`")
    if config.get("use_bidirectional_attention"):
        raise Unsupported("the configuration key `use_bidirectional_attention`")
    if config.get("pretraining_tp", 1) not in (1, None):
        raise Unsupported("the configuration key `pretraining_tp`")
    if config["model_type"] == "gemma3_text" and config.get("attn_logit_softcapping"):
        raise Unsupported("the configuration key `attn_logit_softcapping`")


def _activation(get: Any, kind: str) -> str:
    """``silu`` or ``gelu_tanh``."""
    if kind == "gemma":
        name = get("hidden_act", "gelu_pytorch_tanh")
        name = "gelu_pytorch_tanh" if name == "gelu" else name
    else:
        name = get("hidden_activation" if kind.startswith("gemma") else "hidden_act", "silu")
    known = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
    if name not in known:
        raise Unsupported(f"the activation `{name}`")
    return known[name]


def _sliding(
    config: Mapping[str, Any], known: _Architecture, kind: str, layers: int
) -> tuple[tuple[bool, ...], int]:
    """Which layers slide, and the window; (all False, 0) where none does."""
    window = config.get("sliding_window", known.defaults.get("sliding_window"))
    if kind in ("qwen2", "qwen3") and not config.get("use_sliding_window"):
        window = None
    types = config.get("layer_types") if kind != "mistral" else None
    if types is not None:
        unknown = set(types) - {"full_attention", "sliding_attention"}
        if unknown or len(types) != layers:
            raise Unsupported("the configuration key `layer_types`")
        sliding = tuple(name == "sliding_attention" for name in types)
    elif not window or kind in ("llama", "gemma"):
        sliding = (False,) * layers
    elif kind == "mistral":
        sliding = (True,) * layers
    elif kind == "gemma2":
        sliding = tuple((i + 1) % 2 != 0 for i in range(layers))
    elif kind == "gemma3_text":
        pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
        sliding = tuple((i + 1) % pattern != 0 for i in range(layers))
    else:
        first = config.get("max_window_layers", known.defaults["max_window_layers"])
        sliding = tuple(i >= first for i in range(layers))
    if any(sliding) and not window:
        if kind != "gemma3_text":  # there the kind of layer also chooses the rotary base
            sliding = (False,) * layers
        window = 0
    return sliding, int(window) if window and any(sliding) else 0


def _ropes(
    config: Mapping[str, Any], kind: str, sliding: tuple[bool, ...]
) -> tuple[tuple[Rope, ...], tuple[int, ...]]:
    """The distinct rotary settings, and each layer's index into them."""
    settings = dict(config.get("rope_parameters") or {})
    scaling = dict(config.get("rope_scaling") or {})
    length = config.get("max_position_embeddings")
    if kind == "gemma3_text":
        full = {**scaling, **(settings.get("full_attention") or {})}
        local = dict(settings.get("sliding_attention") or {})
        for key in settings.keys() - {"full_attention", "sliding_attention"}:
            raise Unsupported(f"the rope setting `{key}` for all layers at once")
        full.setdefault("rope_theta", config.get("rope_theta") or 1_000_000.0)
        local.setdefault("rope_theta", config.get("rope_local_base_freq") or 10_000.0)
        return (_rope(full, length), _rope(local, length)), tuple(int(slides) for slides in sliding)
    whole = {**scaling, **settings}
    if whole.get("rope_theta") is None:
        whole["rope_theta"] = config.get("rope_theta") or 10_000.0
    return (_rope(whole, length),), (0,) * len(sliding)


_ROPE_KEYS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset(("factor",)),
    "llama3": _words("factor low_freq_factor high_freq_factor original_max_position_embeddings"),
}


def _rope(settings: Mapping[str, Any], length: int | None) -> Rope:
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind not in _ROPE_KEYS:
        raise Unsupported(f"the rope type `{kind}`")
    for key, value in settings.items():
        neutral = key in ("rope_type", "type", "rope_theta") or key in _ROPE_KEYS[kind]
        if (
            not neutral
            and value is not None
            and not (key == "partial_rotary_factor" and value == 1)
        ):
            if kind == "default" and key in ("factor", "original_max_position_embeddings"):
                continue
            raise Unsupported(f"the rope setting `{key}`")
    theta = float(settings["rope_theta"])
    if kind == "default":
        return Rope(theta)
    try:
        factor = float(settings["factor"])
        if kind == "linear":
            return Rope(theta, "linear", factor)
        original = float(settings.get("original_max_position_embeddings") or length or 0)
        low, high = float(settings["low_freq_factor"]), float(settings["high_freq_factor"])
    except KeyError as missing:
        raise Unsupported(f"the rope type `{kind}` without `{missing.args[0]}`") from missing
    return Rope(theta, "llama3", factor, low, high, original)


def expected_tensors(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a checkpoint of this decoder; the head only where it is not
    tied."""
    hidden, inner, wide = spec.hidden, spec.intermediate, spec.heads * spec.head_dim
    narrow = spec.kv_heads * spec.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (wide, hidden), "self_attn.k_proj.weight": (narrow, hidden),
        "self_attn.v_proj.weight": (narrow, hidden), "self_attn.o_proj.weight": (hidden, wide),
        "mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,),
    }  # fmt: skip
    if spec.qkv_bias:
        layer |= {f"self_attn.{x}_proj.bias": (wide if x == "q" else narrow,) for x in "qkv"}
    if spec.output_bias:
        layer["self_attn.o_proj.bias"] = (hidden,)
    if spec.mlp_bias:
        layer |= {
            "mlp.gate_proj.bias": (inner,),
            "mlp.up_proj.bias": (inner,),
            "mlp.down_proj.bias": (hidden,),
        }
    if spec.qk_norm:
        layer |= {f"self_attn.{x}_norm.weight": (spec.head_dim,) for x in "qk"}
    if spec.sandwich:
        layer |= {f"{x}_feedforward_layernorm.weight": (hidden,) for x in ("pre", "post")}
    table = {"model.embed_tokens.weight": (spec.vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not spec.tied:
        table["lm_head.weight"] = (spec.vocabulary, hidden)
    table |= {
        f"model.layers.{i}.{name}": shape
        for i in range(spec.layers)
        for name, shape in layer.items()
    }
    return table


def check_tensors(spec: Spec, tensors: Mapping[str, TensorInfo]) -> None:
    """Raises Unsupported for a missing, unknown or wrongly shaped tensor, or a dtype that is no
    float."""
    expected = expected_tensors(spec)
    for name in expected.keys() - tensors.keys():
        raise Unsupported(f"a checkpoint without the tensor `{name}`")
    for name, info in tensors.items():
        if name not in expected:
            if (spec.tied and name == "lm_head.weight") or name.endswith(".rotary_emb.inv_freq"):
                continue  # a second copy of the tied head; buffers that old files carry
            raise Unsupported(f"the tensor `{name}`")
        if tuple(info.shape) != expected[name]:
            raise Unsupported(f"the tensor `{name}` of shape {list(info.shape)}")
        if info.dtype not in ("F64", "F32", "F16", "BF16"):
            raise Unsupported(f"the tensor `{name}` of dtype {info.dtype}")
