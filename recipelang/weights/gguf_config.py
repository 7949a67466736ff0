"""The Hugging Face configuration that a GGUF file's fields amount to.

Example:
    >>> config_of(read_gguf(Path("model.gguf")))["num_hidden_layers"]      # doctest: +SKIP
    30
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

from recipelang.diagnostics import fault
from recipelang.weights.config import check_config
from recipelang.weights.gguf_header import GgufHeader
from recipelang.weights.gguf_names import ARCHITECTURES
from recipelang.weights.safetensors import open_regular
from recipelang.weights.strict_json import as_list, readable

__all__ = ["config_of", "shortest"]


def config_of(header: GgufHeader) -> dict[str, object]:
    """config.json of the model. Raises RecipeError E0731 for what is not known, E0730 for
    damage."""
    architecture = header.value("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise fault(
            "E0731",
            f"`{header.path}` holds the architecture `{readable(str(architecture))}`, "
            "which is not read from GGUF",
            help=f"known: {', '.join(ARCHITECTURES)}; other models are read from safetensors "
            f"folders",
        )
    heads = _whole(header, "attention.head_count")
    hidden = _whole(header, "embedding_length")
    dimensions = _whole(header, "rope.dimension_count", 0)
    head_dim = _whole(header, "attention.key_length", 0) or dimensions or hidden // heads
    if dimensions not in (0, head_dim):
        raise _unknown(header, f"a rotary embedding of {dimensions} of {head_dim} dimensions")
    config: dict[str, object] = {
        "architectures": [ARCHITECTURES[architecture]], "model_type": architecture,
        "hidden_size": hidden, "intermediate_size": _whole(header, "feed_forward_length"),
        "num_hidden_layers": _whole(header, "block_count"), "num_attention_heads": heads,
        "num_key_value_heads": _whole(header, "attention.head_count_kv", heads),
        "head_dim": head_dim, "hidden_act": "silu",
        "rms_norm_eps": shortest(_number(header, "attention.layer_norm_rms_epsilon", 1e-5)),
        "max_position_embeddings": _whole(header, "context_length"),
        "vocab_size": _vocabulary(header),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "rope_theta": _number(header, "rope.freq_base", 10000.0),
        "attention_bias": architecture != "qwen2" and "blk.0.attn_q.bias" in header.tensors,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
    }  # fmt: skip
    if architecture == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    if architecture in ("qwen2", "qwen3"):
        config["use_sliding_window"] = False
    scaling = _scaling(header, head_dim, config)
    if scaling:
        config["rope_scaling"] = scaling
    for key, field in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        value = header.value(f"tokenizer.ggml.{field}_token_id")
        if isinstance(value, int):
            config[f"{key}_token_id"] = value
    check_config(config, str(header.path))
    return config


def shortest(value: float) -> float:
    """The shortest decimal that is this float32: GGUF stores 1e-5 as 9.999999747378752e-06.

    >>> shortest(9.999999747378752e-06)
    1e-05
    """
    bits = struct.pack("<f", value)
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == bits:
            return short
    return value


def _key(header: GgufHeader, key: str) -> str:
    return f"{header.value('general.architecture')}.{key}"


def _whole(header: GgufHeader, key: str, default: int | None = None) -> int:
    value = header.value(_key(header, key), default)
    each = as_list(value)
    if each is not None:
        if len(set(each)) != 1:
            raise _unknown(header, f"`{key}` that differs from layer to layer")
        value = each[0]
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise fault(
            "E0730", f"`{header.path}`: the field `{_key(header, key)}` is missing or no size"
        )
    return value


def _number(header: GgufHeader, key: str, default: float) -> float:
    value = header.value(_key(header, key), default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise fault(
            "E0730", f"`{header.path}`: the field `{_key(header, key)}` is not a positive number"
        )
    return shortest(float(value))


def _vocabulary(header: GgufHeader) -> int:
    """Rows of the embedding: the tokenizer's list may be padded."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise fault("E0730", f"`{header.path}` has no tensor `token_embd.weight`")
    return embedding.shape[0]


def _scaling(
    header: GgufHeader, head_dim: int, config: Mapping[str, object]
) -> dict[str, object] | None:
    kind = header.value(_key(header, "rope.scaling.type"), "none")
    original = header.value(_key(header, "rope.scaling.original_context_length"))
    if "rope_freqs.weight" in header.tensors:
        return _llama3(header, head_dim, config)
    if kind == "none":
        return None
    factor = _number(header, "rope.scaling.factor", 1.0)
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and isinstance(original, int):
        return {
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
        }  # fmt: skip
    raise _unknown(header, f"the rope scaling `{kind}`")


def _llama3(header: GgufHeader, head_dim: int, config: Mapping[str, object]) -> dict[str, object]:
    """Llama 3.1's scaling is stored as one factor a frequency; find the parameters that give them.

    The formula (Llama 3.1 model code, Meta 2024): wavelengths longer than original/low are divided
    by ``factor``, shorter than original/high stay, between them is a smooth blend.
    """
    tensor = header.tensors["rope_freqs.weight"]
    if tensor.kind != "F32" or tensor.shape != (head_dim // 2,):
        raise _unknown(header, "a `rope_freqs.weight` that is not one float32 a frequency")
    descriptor = open_regular(header.path, "E0730")
    raw = os.pread(descriptor, tensor.stop - tensor.start, tensor.start)
    os.close(descriptor)
    factors = struct.unpack(f"<{head_dim // 2}f", raw)
    theta, factor = config["rope_theta"], shortest(max(factors))
    assert isinstance(theta, float)
    for original in (8192, 4096, 16384, 32768):
        expected = _llama3_factors(theta, head_dim, factor, original)
        if all(abs(a - b) <= 1e-4 * b for a, b in zip(factors, expected, strict=True)):
            return {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": original,
            }  # fmt: skip
    raise _unknown(header, "rope factors that are not those of Llama 3.1")


def _llama3_factors(theta: float, head_dim: int, factor: float, original: int) -> list[float]:
    """What llama.cpp's converter stores for low and high frequency factors 1 and 4."""
    from math import pi

    result: list[float] = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * pi * theta ** (i / head_dim)
        if wavelength < original / 4:
            result.append(1.0)
        elif wavelength > original:
            result.append(factor)
        else:
            smooth = (original / wavelength - 1) / 3
            result.append(1 / ((1 - smooth) / factor + smooth))
    return result


def _unknown(header: GgufHeader, what: str) -> Exception:
    return fault(
        "E0731", f"`{header.path}` has {readable(what, 200)}, which is not read from GGUF",
        help="use the safetensors folder of the same model",
    )  # fmt: skip
