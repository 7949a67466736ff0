"""Tensors that are known to be one, without reading them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from recipelang.ops.registry import lookup
from recipelang.store.artifact import Manifest, StoredTensor
from recipelang.store.objects import hash_object
from recipelang.types import TensorInfo
from recipelang.weights.adapted import Adapted
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.engine import run_region
from recipelang.weights.expression import Leaf
from recipelang.weights.folder import Folder
from recipelang.weights.region import make_step
from recipelang.weights.report import Watcher
from recipelang.weights.sharing import only_one
from recipelang.weights.stored import StoredModel
from recipelang.weights.writer import ModelWriter
from tests.weights.models import Memory, bits, compute, near, random_model, write_folder
from tests.weights.test_adapter import SHAPES, adapter

NONE: frozenset[tuple[str, int]] = frozenset()


def leaf(checkpoint: Checkpoint, name: str) -> Leaf:
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


@pytest.fixture
def folders(tmp_path: Path) -> list[Folder]:
    """Two models of which one tensor is equal."""
    made: list[Folder] = []
    for i in range(2):
        model = random_model(1, {"v": (300,), "w": (500,)})
        model.arrays["v"][0] = i
        made.append(Folder.open(write_folder(tmp_path / str(i), model, {"model_type": "toy"})))
    return made


def hashed(folder: Folder) -> Folder:
    """The same, hashed."""
    return folder.with_digests(lambda file: hash_object(file, shard=True).tensors)


def test_equal_digests_of_folders(folders: list[Folder]) -> None:
    """Of those that were hashed; of others nothing is known. A model in the store may be equal."""
    one, other = (hashed(folder) for folder in folders)
    first = leaf(one, "w")
    digest = hashlib.sha256(one.read("w").tobytes()).hexdigest()
    row = StoredTensor("BF16", (500,), digest, "a", 0)
    kept = StoredModel(Manifest("model", {"w": row}), Path, {}, {"w": one.tensors["w"]}, {})
    for second, known in ((other, True), (kept, True), (folders[1], False)):
        found = only_one({"inputs": (first, leaf(second, "w"))}, NONE)
        assert found is (first if known else None)
    assert only_one({"inputs": (first, leaf(other, "v"))}, NONE) is None


@pytest.mark.parametrize("verb", ["linear-merge", "ties-merge"])
def test_a_tensor_that_is_equal_in_all_inputs_is_read_once(
    verb: str, folders: list[Folder], tmp_path: Path
) -> None:
    """And the result is that of reading it from each."""
    operation = lookup(verb)
    assert operation is not None
    read: list[tuple[int, ...]] = []
    results: list[dict[str, bytes]] = []
    for i, models in enumerate((folders, [hashed(folder) for folder in folders])):
        roles: dict[str, Any] = {"inputs": tuple(models)}
        if operation.operand("base"):
            roles = {"inputs": (models[1],), "base": (models[0],)}
        got, stats = compute(make_step(operation, roles, {}), tmp_path / f"out{i}")
        read.append(tuple(sorted(stats.read_bytes)))
        results.append({name: bits(values) for name, values in got.items()})
    assert read == [(1600, 1600), (600, 1600)]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("linear-merge", {}),
        ("linear-merge", {"weight": (1.0, 0.0)}),
        ("task-arithmetic-merge", {}),
        ("task-arithmetic-merge", {"scale": 0.0}),
        ("task-arithmetic-merge", {"weight": (1.0, 0.0)}),
        ("ties-merge", {"density": 0.5}),
    ],
)
def test_a_report_tells_the_same_of_what_is_known_to_be_one(
    verb: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    """Its figures are of all inputs that the merge asks for, however often they are read."""
    base = random_model(1, {"model.layers.0.v": (64, 64), "model.layers.0.w": (64, 64)})
    models = [base]
    for seed in (2, 3):
        changed = dict(base.arrays)
        changed["model.layers.0.v"] = near(base, seed, 0.02).arrays["model.layers.0.v"]
        models.append(Memory(changed))
    plain = [
        Folder.open(write_folder(tmp_path / f"m{i}", model, {"model_type": "toy"}))
        for i, model in enumerate(models)
    ]
    operation = lookup(verb)
    assert operation is not None
    sums: list[Any] = []
    for i, (origin, *inputs) in enumerate((plain, [hashed(folder) for folder in plain])):
        roles: dict[str, Any] = {"inputs": tuple(inputs)}
        if operation.operand("base"):
            roles["base"] = (origin,)
        step = make_step(operation, roles, fields)
        writer = ModelWriter(tmp_path / f"out{i}", step.tensors)
        watcher = Watcher(step, tmp_path / f"{i}.jsonl")
        run_region([(step, writer)], watchers={writer: watcher})
        writer.close()
        sums.append(watcher.sums)
    assert sums[0] == sums[1]


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
