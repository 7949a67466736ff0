"""Tensors that are known to be one, without reading them."""

from __future__ import annotations

from pathlib import Path

from recipelang.store.artifact import Manifest, StoredTensor
from recipelang.types import TensorInfo
from recipelang.weights.adapted import Adapted
from recipelang.weights.expression import Leaf
from recipelang.weights.sharing import only_one
from recipelang.weights.stored import StoredModel
from tests.weights.models import Memory, random_model
from tests.weights.test_adapter import SHAPES, adapter

NONE: frozenset[tuple[str, int]] = frozenset()


def leaf(checkpoint: Memory | Adapted | StoredModel, name: str) -> Leaf:
    """A tensor of a checkpoint."""
    return Leaf(checkpoint, name, checkpoint.tensors[name])


def stored(digest: str, shard: str = "a", dtype: str = "F32") -> StoredModel:
    """A model of one tensor in the store."""
    manifest = Manifest("model", {"w": StoredTensor(dtype, (3,), digest, shard, 0)})
    return StoredModel(manifest, Path, {}, {"w": TensorInfo(dtype, (3,))}, {})


def test_the_same_tensor_of_one_checkpoint() -> None:
    """Of another one with the same numbers nothing is known; what is not read does not count."""
    model = random_model(1, {"w": (3,), "v": (3,)})
    one, other = leaf(model, "w"), leaf(Memory(model.arrays), "w")
    assert only_one({"inputs": (one, leaf(model, "w")), "base": (one,)}, NONE) is one
    assert only_one({"inputs": (one, other), "base": (one,)}, NONE) is None
    assert only_one({"inputs": (one, other), "base": (one,)}, frozenset({("inputs", 1)})) is one
    assert only_one({"inputs": (one, None), "base": (one,)}, NONE) is None
    assert only_one({"inputs": (one, leaf(model, "v"))}, NONE) is None
    assert only_one({}, NONE) is None


def test_equal_digests_in_the_store() -> None:
    """Wherever they lie; equal bytes of another dtype are another tensor."""
    first = leaf(stored("d1"), "w")
    assert only_one({"inputs": (first, leaf(stored("d1", "b"), "w"))}, NONE) is first
    assert only_one({"inputs": (first, leaf(stored("d2"), "w"))}, NONE) is None
    assert only_one({"inputs": (first, leaf(stored("d1", dtype="I32"), "w"))}, NONE) is None


def test_what_an_adapter_leaves_is_its_bases() -> None:
    """And what it changes is not."""
    base = random_model(1, SHAPES)
    kept = Adapted(base, adapter())
    changed = set(kept.step.changes)
    assert changed
    assert changed < set(base.tensors)
    for name in base.tensors:
        found = only_one({"inputs": (leaf(kept, name),), "base": (leaf(base, name),)}, NONE)
        assert (found is None) == (name in changed)
