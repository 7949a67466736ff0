"""Tiny Llama models for comparing merges: a base, three fine-tunes, an unrelated model, an odd one,
two with tokenizers, and an adapter.

Everything a merge decides by is far from a tie, so that float32 rounding cannot turn it: nonzero
changes differ in magnitude, exact zeros aside. Some tensors are there for the corners:

- layer 1's second norm is untouched in a and b (zero task vectors), changed in c;
- layer 2's o_proj is zero in c (a zero tensor);
- odd is far, but for up_proj: opposite to the base's in layer 0, parallel to it in layer 1, zero in
  layer 2; and for layer 2's o_proj, whose entries are all of one magnitude;
- changes of norms are small enough for absolute epsilons to bite.
- spoken is a with a tokenizer of 25 tokens; wide is c with a tokenizer that has 24 of these in
  another order and one more, and three rows of padding.

Example:
    >>> sorted(family())
    ['a', 'b', 'base', 'c', 'far', 'odd', 'spoken', 'tuning', 'wide']
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

__all__ = ["family", "shapes", "write_model"]

Array = NDArray[np.float32]
LAYERS = 3
HIDDEN, HEAD, INTERMEDIATE, VOCABULARY = 12, 6, 10, 25
"""25 * 12 = 300 elements: 0.57 * 300 is 170.99999999999997 in float64."""

CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}

ADAPTER_CONFIG: dict[str, object] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "base",
    "r": 2,
    "lora_alpha": 3,
    "target_modules": ["q_proj", "down_proj"],
}

LETTERS = "abcdefghijklmnopqrstuvwx"
TOKENS = {"spoken": ("<unk>", *LETTERS), "wide": ("<unk>", *reversed(LETTERS[:-1]), "z")}
PADDING = 3
TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}

CHANGES = (3e-2, 1e-2, 3e-3, 1e-3)
"""Sizes of the fine-tunes' changes, one tensor after the other: slerp's arc and its chord."""
NORM_CHANGES = (1e-2, 1e-4)


def shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        found |= {
            layer + "input_layernorm.weight": (HIDDEN,),
            layer + "post_attention_layernorm.weight": (HIDDEN,),
            layer + "self_attn.q_proj.weight": (2 * HEAD, HIDDEN),
            layer + "self_attn.k_proj.weight": (HEAD, HIDDEN),
            layer + "self_attn.v_proj.weight": (HEAD, HIDDEN),
            layer + "self_attn.o_proj.weight": (HIDDEN, 2 * HEAD),
            layer + "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            layer + "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            layer + "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    return dict(sorted(found.items()))


def family(seed: int = 20) -> dict[str, dict[str, Array]]:
    """Model -> tensor -> float32 values; "tuning" holds the adapter's."""
    rng = np.random.Generator(np.random.Philox(seed))
    models: dict[str, dict[str, Array]] = {name: {} for name in ("base", "a", "b", "c", "far")}
    for place, (name, shape) in enumerate(shapes().items()):
        norm = len(shape) == 1
        base = _draw(rng, shape) * np.float32(0.1) + np.float32(norm)
        sizes = NORM_CHANGES if norm else CHANGES
        size = sizes[place % len(sizes)]
        shared = _draw(rng, shape)
        models["base"][name] = base
        for tuned in ("a", "b", "c"):
            models[tuned][name] = _distinct(rng, base, shared, size)
        models["far"][name] = _draw(rng, shape) * np.float32(0.1) + np.float32(norm)
    _corners(models)
    models["spoken"] = dict(models["a"])
    models["wide"] = _widened(rng, models["c"])
    models["tuning"] = _adapter(rng)
    return models


def write_model(folder: Path, model: str, tensors: Mapping[str, Array]) -> None:
    """The model as a folder in Hugging Face's layout, the adapter in PEFT's."""
    folder.mkdir()
    if model == "tuning":
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG))
        save_file(dict(tensors), folder / "adapter_model.safetensors")
        return
    rows = len(tensors["lm_head.weight"])
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": rows}))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    if model in TOKENS:
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(TOKENS[model])))
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))


def _tokenizer(tokens: tuple[str, ...]) -> dict[str, object]:
    """A tokenizer of single characters."""
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [],
    }
    return {"version": "1.0", "added_tokens": [], "model": model}


def _widened(rng: np.random.Generator, tuned: Mapping[str, Array]) -> dict[str, Array]:
    """The model with rows in the order of the wide tokenizer, a new one, and padding."""
    changed = dict(tuned)
    places = [TOKENS["spoken"].index(token) for token in TOKENS["wide"][:-1]]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        new = _draw(rng, (1 + PADDING, HIDDEN)) * np.float32(0.1)
        changed[name] = np.concatenate([tuned[name][places], new])
    return changed


def _adapter(rng: np.random.Generator) -> dict[str, Array]:
    """A LoRA adapter of the base, under PEFT's names."""
    factors: dict[str, Array] = {}
    for name, shape in shapes().items():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            module = "base_model.model." + name.removesuffix(".weight")
            factors[module + ".lora_A.weight"] = _draw(rng, (2, shape[1])) * np.float32(0.3)
            factors[module + ".lora_B.weight"] = _draw(rng, (shape[0], 2)) * np.float32(0.05)
    return factors


def _corners(models: dict[str, dict[str, Array]]) -> None:
    untouched = "model.layers.1.post_attention_layernorm.weight"
    for tuned in ("a", "b"):
        models[tuned][untouched] = models["base"][untouched].copy()
    models["c"]["model.layers.2.self_attn.o_proj.weight"][:] = 0
    models["odd"] = dict(models["far"])
    for layer, factor in enumerate((-1.25, 1.5, 0)):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        models["odd"][name] = models["base"][name] * np.float32(factor)
    equal = "model.layers.2.self_attn.o_proj.weight"
    models["odd"][equal] = np.sign(models["far"][equal]) * np.float32(0.125)


def _distinct(rng: np.random.Generator, base: Array, shared: Array, size: float) -> Array:
    """A fine-tune of a tensor: a fifth of the entries untouched, the others' changes all of
    different magnitude."""
    while True:
        change = (shared + _draw(rng, base.shape)) * np.float32(size)
        change *= rng.random(base.shape) > 0.2
        tuned: Array = base + change
        magnitudes = np.sort(np.abs(tuned - base)[tuned != base].astype(np.float64))
        if (np.diff(magnitudes) > 1e-6 * magnitudes[1:]).all():
            return tuned


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape).astype(np.float32)
