"""What ``config.json`` may hold: sane sizes, and nothing that names code.

Example:
    >>> is_tied({"tie_word_embeddings": True})
    True
"""

from __future__ import annotations

from collections.abc import Mapping

from recipelang.diagnostics import fault
from recipelang.types import DTYPE_NAMES
from recipelang.weights.strict_json import readable

__all__ = ["LAYER_LISTS", "LEADING_LAYERS", "check_config", "is_tied", "set_dtype"]

NAMES_CODE = ("auto_map", "model_file", "custom_pipelines", "trust_remote_code")
SIZES = {
    "num_hidden_layers": 10_000, "hidden_size": 1 << 24, "intermediate_size": 1 << 26,
    "num_attention_heads": 1 << 16, "num_key_value_heads": 1 << 16, "head_dim": 1 << 16,
    "vocab_size": 1 << 26, "max_position_embeddings": 1 << 40,
}  # fmt: skip
LAYER_LISTS = ("layer_types", "no_rope_layers", "sliding_window_layers", "mlp_layer_types")
"""Keys whose value is a list with one element a layer."""
LEADING_LAYERS = ("max_window_layers", "first_k_dense_replace")
"""Keys that say how many of the first layers are of another kind: without a sliding window (Qwen),
without experts (DeepSeek)."""


def check_config(config: Mapping[str, object], where: str) -> None:
    """Refuse configurations that name code (E0729) or sizes out of range (E0728)."""
    for key, value in config.items():
        names_code = key in NAMES_CODE or key.endswith("_implementation_internal")
        if names_code and value not in (None, False, {}, [], ""):
            raise fault(
                "E0729", f"`{where}` asks to run code (`{readable(key)}`), which is never done",
                help=f"remove `{readable(key)}` if the architecture is one that the backend knows",
            )  # fmt: skip
    for key, limit in SIZES.items():
        value = config.get(key)
        if value is None:
            continue
        if type(value) is not int or not 0 < value <= limit:
            shown = readable(repr(value), 40)
            raise fault(
                "E0728", f"`{where}`: `{key}` is {shown}, expected a whole number in [1, {limit}]"
            )
    model_type = config.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise fault("E0728", f"`{where}`: `model_type` is not a text")


def is_tied(config: Mapping[str, object]) -> bool:
    """Whether the output head is the embedding itself."""
    return config.get("tie_word_embeddings") is True


def set_dtype(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    """The configuration with the dtype (a safetensors name) that its weights are stored in now."""
    long = next(name for name, short in DTYPE_NAMES.items() if short == dtype and "float" in name)
    changed = dict(config)
    changed.pop("torch_dtype", None)
    return changed | {"dtype": long}
