"""shrink: which layers stay, and what the configuration says then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault, Typed
from recipelang.types import ModelType, TensorInfo
from recipelang.weights.layers import evenly_spaced
from recipelang.weights.region import make_step
from tests.weights.models import Memory, compute


def shrunk(count: int, **fields: Any) -> ModelType:
    """The type of a shrunken model of this many layers."""
    table = {f"model.layers.{i}.w": TensorInfo("F32", (i + 1,)) for i in range(count)} | {
        "model.norm.weight": TensorInfo("F32", (3,))
    }
    config = {
        "num_hidden_layers": count,
        "layer_types": [f"kind{i}" for i in range(count)],
        "max_window_layers": 3,
        "no_rope_layers": list(range(count)),
        "mlp_only_layers": [0, 1, 5],
    }
    found = lookup("shrink")
    assert found is not None
    assert found.result_type is not None
    result = found.result_type(
        Typed(
            {"model": (ModelType(config, table),)},
            {"layers": None, "keep": None, "drop": None, **fields},
        )
    )
    assert isinstance(result, ModelType)
    return result


@pytest.mark.parametrize(("count", "wanted"), [(30, 18), (12, 1), (12, 2), (7, 7), (100, 33)])
def test_evenly_spaced_layers(count: int, wanted: int) -> None:
    """As many as asked for, first and last among them, gaps that differ by at most one."""
    layers = evenly_spaced(count, wanted)
    assert len(set(layers)) == wanted
    assert layers[0] == 0
    if wanted > 1:
        assert layers[-1] == count - 1
        gaps = np.diff(layers)
        assert gaps.max() - gaps.min() <= 1


def test_configuration_and_table_follow() -> None:
    """Tensors are renumbered, per-layer lists are cut, numbers of layers follow, windows are
    counted anew."""
    made = shrunk(6, drop=(1, 4))
    assert made.config is not None
    assert made.config["num_hidden_layers"] == 4
    assert made.config["layer_types"] == ["kind0", "kind2", "kind3", "kind5"]
    assert made.config["no_rope_layers"] == [0, 2, 3, 5]
    assert made.config["max_window_layers"] == 2
    assert made.config["mlp_only_layers"] == [0, 3]
    assert {n: i.shape for n, i in (made.tensors or {}).items()} == {
        "model.layers.0.w": (1,),
        "model.layers.1.w": (3,),
        "model.layers.2.w": (4,),
        "model.layers.3.w": (6,),
        "model.norm.weight": (3,),
    }
    assert shrunk(6, keep=(5, 0, 2, 3)).config == made.config


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "E0540"),
        ({"layers": 2, "keep": (1,)}, "E0540"),
        ({"keep": (1, 1)}, "E0540"),
        ({"drop": tuple(range(6))}, "E0540"),
        ({"keep": (6,)}, "E0611"),
        ({"drop": (-1,)}, "E0611"),
        ({"layers": 7}, "E0611"),
    ],
)
def test_wrong_layers_are_named(fields: dict[str, Any], code: str) -> None:
    """One of the three fields, layers that exist, and at least one of them left."""
    with pytest.raises(Fault, match=code):
        shrunk(6, **fields)


def test_tensors_are_copied_from_their_layers(tmp_path: Path) -> None:
    """Each tensor of the result has the bits of its layer in the larger model."""
    arrays = {f"model.layers.{i}.w": np.full(2, i, np.float32) for i in range(5)} | {
        "model.norm.weight": np.ones(2, np.float32)
    }
    found = lookup("shrink")
    assert found is not None
    made = make_step(found, {"model": (Memory(arrays, {"num_hidden_layers": 5}),)}, {"layers": 3})
    got, stats = compute(made, tmp_path)
    assert [got[f"model.layers.{i}.w"][0] for i in range(3)] == [0, 2, 4]
    assert stats.passes == (1.0,)
