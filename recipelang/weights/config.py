"""What ``config.json`` may hold: sane sizes. What names code is left out.

Example:
    >>> is_tied({"tie_word_embeddings": True})
    True
"""

from __future__ import annotations

from collections.abc import Mapping

from recipelang.diagnostics import fault
from recipelang.types import DTYPE_NAMES, Remark
from recipelang.weights.strict_json import AGAIN, as_list, as_object, readable

__all__ = [
    "LAYER_LISTS", "LAYER_NUMBERS", "LEADING_LAYERS", "check_config", "is_tied", "set_dtype",
    "without_code",
]  # fmt: skip

NAMES_CODE = ("auto_map", "model_file", "custom_pipelines", "trust_remote_code")
SIZES = {
    "num_hidden_layers": 10_000, "hidden_size": 1 << 24, "intermediate_size": 1 << 26,
    "num_attention_heads": 1 << 16, "num_key_value_heads": 1 << 16, "head_dim": 1 << 16,
    "vocab_size": 1 << 26, "max_position_embeddings": 1 << 40, "n_layer": 10_000,
    "n_layers": 10_000,
}  # fmt: skip
LAYER_LISTS = ("layer_types", "no_rope_layers", "sliding_window_layers", "mlp_layer_types")
"""Keys whose value is a list with one element a layer."""
LAYER_NUMBERS = ("mlp_only_layers", "moe_layers", "full_attn_idxs")
"""Keys whose value is a list of the numbers of the layers that are of another kind: without experts
(Qwen), with them (Llama 4), with attention (LFM2)."""
LEADING_LAYERS = ("max_window_layers", "first_k_dense_replace")
"""Keys that say how many of the first layers are of another kind: without a sliding window (Qwen),
without experts (DeepSeek)."""


def without_code(
    config: Mapping[str, object], where: str
) -> tuple[dict[str, object], tuple[Remark, ...]]:
    """The configuration without the keys that name code, at any depth, and a remark (W0729) where
    there are any.

    >>> without_code({"model_type": "llama", "auto_map": {"AutoModel": "x.Y"}}, "config.json")[0]
    {'model_type': 'llama'}
    """
    found: dict[str, None] = {}

    def kept(value: object) -> object:
        table, items = as_object(value), as_list(value)
        if table is not None:
            found.update(dict.fromkeys(key for key in table if _names_code(key, table[key])))
            return {k: kept(v) for k, v in table.items() if not _names_code(k, v)}
        return [kept(item) for item in items] if items is not None else value

    cleaned = as_object(kept(config)) or {}
    if not found:
        return cleaned, ()
    names = ", ".join(f"`{readable(key)}`" for key in sorted(found))
    message = f"`{where}` asks to run code ({names}), which is never done"
    help = "what is made of it does not name the code; see that its source is one that you trust"
    return cleaned, (Remark("W0729", message, help),)


def _names_code(key: str, value: object) -> bool:
    named = key in NAMES_CODE or key.endswith("_implementation_internal")
    return named and value not in (None, False, {}, [], "")


def check_config(config: Mapping[str, object], where: str) -> None:
    """Refuse sizes out of range (E0728)."""
    for key, limit in SIZES.items():
        value = config.get(key)
        if value is None:
            continue
        if type(value) is not int or not 0 < value <= limit:
            shown = readable(repr(value), 40)
            raise fault(
                "E0728", f"`{where}`: `{key}` is {shown}, expected a whole number in [1, {limit}]",
                help=AGAIN,
            )  # fmt: skip
    model_type = config.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise fault("E0728", f"`{where}`: `model_type` is not a text", help=AGAIN)


def is_tied(config: Mapping[str, object]) -> bool:
    """Whether the output head is the embedding itself."""
    return config.get("tie_word_embeddings") is True


def set_dtype(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    """The configuration with the dtype (a safetensors name) that its weights are stored in now."""
    long = next(name for name, short in DTYPE_NAMES.items() if short == dtype and "float" in name)
    changed = dict(config)
    changed.pop("torch_dtype", None)
    return changed | {"dtype": long}
