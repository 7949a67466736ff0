"""Tiny tokenizers, models with a row a token of theirs, and the rules for rows, token by token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from recipelang.ops.registry import lookup
from recipelang.weights.numbers import narrow
from recipelang.weights.region import Operand, Step, make_step
from tests.weights.models import Memory

TEXT = ["the cat sat on the mat and the dog sat on the log", "a zebra ate the mat"]
WORDS = [chr(ord("a") + i) for i in range(20)]
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def write_tokenizer(
    folder: Path, words: Sequence[str], added: Sequence[str] = ()
) -> dict[str, Path | bytes]:
    """A folder with a ``tokenizer.json`` of byte-level BPE: its files."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    document: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [
            {"id": len(words) + i, "content": token, **FLAGS, "special": True}
            for i, token in enumerate(added)
        ],
        "pre_tokenizer": {**level, "use_regex": True}, "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": {word: i for i, word in enumerate(words)},
            "merges": [],
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": words[0]})
    )
    return {name: folder / name for name in ("tokenizer.json", "tokenizer_config.json")}


def model_of_words(
    folder: Path, words: Sequence[str], added: Sequence[str] = (), *, padding: int = 0,
    seed: int = 0, dtype: str = "BF16", columns: int = 5, head: bool = True,
    config: Mapping[str, object] | None = None,
) -> Memory:  # fmt: skip
    """A model with a row for each of these tokens, and ``padding`` rows behind them; with a head
    and its bias, or tied."""
    rows = len(words) + len(added) + padding
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return narrow(rng.standard_normal(shape).astype(np.float32) * 0.1, dtype)

    arrays = {
        "model.embed_tokens.weight": draw(rows, columns),
        "model.layers.0.mlp.w": draw(7, columns),
        "model.layers.1.mlp.w": draw(7, columns),
        "model.norm.weight": draw(columns),
    }
    if head:
        arrays |= {"lm_head.weight": draw(rows, columns), "lm_head.bias": draw(rows)}
    settings = {"vocab_size": rows, "num_hidden_layers": 2, "tie_word_embeddings": not head}
    files = write_tokenizer(folder, words, added)
    return Memory(arrays, settings | dict(config or {}), files)


def family(folder: Path, dtype: str = "BF16") -> tuple[Memory, Memory, Memory, Memory]:
    """Three fine-tunes and a base that share most tokens, in other orders and with more of them."""
    a = model_of_words(folder / "a", WORDS[:14], ["<x>"], seed=1, dtype=dtype, padding=1)
    b = model_of_words(
        folder / "b", [*WORDS[10:18], *WORDS[:10]], ["<y>"], seed=2, dtype=dtype, padding=4
    )
    c = model_of_words(folder / "c", [*WORDS[19:11:-1], *WORDS[:9]], ["<y>"], seed=3, dtype=dtype)
    base = model_of_words(folder / "base", WORDS[2:16], seed=4, dtype=dtype, padding=2)
    return a, b, c, base


def step(verb: str, operands: Mapping[str, Sequence[Operand]], **fields: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, operands, fields)


def tokens_of(model: Operand) -> list[str]:
    """The tokens of a model in order of their ids, from its tokenizer's file."""
    file = model.files["tokenizer.json"]
    document = json.loads(file if isinstance(file, bytes) else file.read_bytes())
    table = {i: word for word, i in document["model"]["vocab"].items()}
    table |= {entry["id"]: entry["content"] for entry in document["added_tokens"]}
    assert sorted(table) == list(range(len(table)))
    return [table[i] for i in range(len(table))]


def aligned(
    name: str, tokens: Sequence[str], rows: int, models: Sequence[Memory], base: Memory | None
) -> list[Any]:
    """The tensor of every model in the order of these tokens, token by token, in float64; each
    is rounded to its model's dtype where rows are means. By the rules that mergekit documents."""
    known = [
        {token: m.arrays[name][i].astype(np.float64) for i, token in enumerate(tokens_of(m))}
        for m in models
    ]
    result: list[Any] = []
    for model, mine in zip(models, known, strict=True):
        dtype, own = model.arrays[name].dtype, len(tokens_of(model))
        lines: list[Any] = []
        for token in tokens:
            owners = [k for k in known if token in k]
            if token in mine:
                row = mine[token]
            elif len(owners) == 1:
                row = owners[0][token]
            elif base is not None and token in known[models.index(base)]:
                row = known[models.index(base)][token]
            else:
                row = np.mean([k[token] for k in owners], axis=0)
            lines.append(row.astype(dtype).astype(np.float64))
        mean = np.mean(lines, axis=0).astype(dtype).astype(np.float64)
        for i in range(len(tokens), rows):
            is_padding = own <= i < len(model.arrays[name])
            lines.append(model.arrays[name][i].astype(np.float64) if is_padding else mean)
        result.append(np.stack(lines))
    return result


def trained(text: list[str], *added: str, size: int = 290) -> Tokenizer:
    """Byte-level BPE with tokens behind the model's own."""
    found = Tokenizer(BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    found.add_special_tokens([AddedToken(token, normalized=False) for token in added])
    return found
