"""What an extraction leaves out of its adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.ops.registry import lookup
from recipelang.weights import blocks
from recipelang.weights.left_out import left_out
from recipelang.weights.region import Operand, Step, make_step
from tests.weights.models import Memory, near, random_model
from tests.weights.test_vocabularies import permuted
from tests.weights.words import WORDS, model_of_words

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"
UP, BIAS = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.bias"
LAYERS = ("model.layers.0.mlp.w", "model.layers.1.mlp.w")
SHAPES: dict[str, tuple[int, ...]] = {EMBEDDING: (20, 6), UP: (9, 6), BIAS: (9,), NORM: (6,)}


def step(verb: str, roles: dict[str, tuple[Operand, ...]], **fields: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, roles, fields)


def extraction(model: Operand, base: Operand, **fields: Any) -> Step:
    """An adapter of rank 2."""
    return step("extract-adapter", {"model": (model,), "base": (base,)}, rank=2, **fields)


def changed(base: Memory, *names: str, dtype: Any = None) -> Memory:
    """The base with the last number of these tensors changed, in this dtype."""
    arrays: dict[str, Any] = {}
    for name, array in base.arrays.items():
        arrays[name] = array.astype(dtype or array.dtype)
        if name in names:
            arrays[name].reshape(-1)[-1] += 1
    return Memory(arrays, base.config)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_what_differs_and_is_not_adapted(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms and biases always, embeddings unless they are targets; a block that comes last too."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 12)
    base = random_model(1, SHAPES, dtype)
    tuned = changed(base, EMBEDDING, UP, BIAS, NORM)
    assert left_out(extraction(tuned, base)) == (EMBEDDING, BIAS, NORM)
    targets = ("all-linear", "embed_tokens")
    assert left_out(extraction(tuned, base, targets=targets)) == (BIAS, NORM)
    assert left_out(extraction(changed(base, UP), base)) == ()


def test_numbers_are_compared_whatever_they_are_stored_in() -> None:
    """A wider copy is no change; a sign of zero and a NaN in the same place are none either."""
    base = random_model(1, SHAPES, "BF16")
    base.arrays[NORM][:2] = [0.0, np.nan]
    wider = changed(base, dtype=np.float32)
    wider.arrays[NORM][0] = -0.0
    assert left_out(extraction(wider, base)) == ()
    wider.arrays[NORM][1] = 1.0
    assert left_out(extraction(wider, base)) == (NORM,)


def test_what_is_known_to_be_one_is_not_read() -> None:
    """The base itself has no changes, and is not looked at."""
    base = random_model(1, SHAPES, "F32")
    base.counts.clear()
    assert left_out(extraction(base, base)) == ()
    assert not base.counts


@pytest.mark.parametrize("trim", ["tensor", "model"])
def test_merges_are_computed(trim: str) -> None:
    """What is extracted may be a merge that nobody wrote."""
    base = random_model(1, SHAPES, "F32")
    a, b = near(base, 2), near(base, 3)
    roles: dict[str, tuple[Operand, ...]] = {"inputs": (a, b), "base": (base,)}
    merge = step("ties-merge", roles, trim=trim, density=0.5)
    assert left_out(extraction(merge, base)) == (EMBEDDING, BIAS, NORM)
    same: dict[str, tuple[Operand, ...]] = {"inputs": (base, base), "base": (base,)}
    assert left_out(extraction(step("task-arithmetic-merge", same), base)) == ()


def test_rows_are_compared_by_token(tmp_path: Path) -> None:
    """An embedding in another order of tokens is the same embedding."""
    base = model_of_words(tmp_path / "base", WORDS)
    turned = permuted(base, list(range(len(WORDS)))[::-1], tmp_path / "turned")
    fields = {"targets": ("embed_tokens",)}
    assert left_out(extraction(turned, base, **fields)) == ()
    moved = Memory(near(base, 2).arrays, base.config, base.files)
    other = permuted(moved, list(range(len(WORDS)))[::-1], tmp_path / "other")
    found = left_out(extraction(other, base, **fields))
    assert found == ("lm_head.bias", "lm_head.weight", *LAYERS, NORM)
