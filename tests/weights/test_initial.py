"""init: sizes become a model that transformers loads, and draws do not depend on how they are
read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault, Typed
from recipelang.types import ModelType, TokenizerType
from recipelang.weights.initial import ARCHITECTURES, InitialModel


def made(tmp_path: Path, architecture: str, **fields: Any) -> ModelType:
    """The type of a small model."""
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": {f"w{i}": i for i in range(40)}}}))
    found = lookup("init")
    assert found is not None
    assert found.result_type is not None
    defaults = {f.name: f.default for f in found.fields if not f.required}
    given = {
        **defaults,
        "architecture": architecture,
        "hidden": 32,
        "heads": 4,
        "layers": 2,
        **fields,
    }
    result = found.result_type(Typed({"tokenizer": (TokenizerType("d", str(file)),)}, given))  # type: ignore[arg-type]
    assert isinstance(result, ModelType)
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_table_is_what_transformers_builds(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    """Names and shapes are those of the library's own model of this configuration."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    made_type = made(tmp_path, architecture, kv_heads=2, tied=tied)
    config = dict(made_type.config or {})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(str(config.pop("model_type")), **config)
        )
    expected = {
        n: tuple(t.shape)
        for n, t in model.state_dict().items()
        if not (tied and n == "lm_head.weight")
    }
    assert {n: i.shape for n, i in (made_type.tensors or {}).items()} == expected


def test_draws_are_normal_and_the_same_in_pieces(tmp_path: Path) -> None:
    """Standard deviation 0.02, ones for norms, zeros for biases; another key gives another
    model."""
    model = InitialModel(made(tmp_path, "qwen2"), "seed")
    name = "model.layers.0.mlp.up_proj.weight"
    whole = model.read(name)
    assert np.array_equal(whole[45:200], model.read(name, 45, 200))
    assert abs(float(whole.std()) - 0.02) < 0.002
    assert (model.read("model.norm.weight") == 1).all()
    assert (model.read("model.layers.0.self_attn.q_proj.bias") == 0).all()
    assert not np.array_equal(whole, InitialModel(model.type, "other").read(name))
    assert not np.array_equal(whole, model.read("model.layers.1.mlp.up_proj.weight"))


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"architecture": "x"}, "E0545"), ({"heads": 5}, "E0544"), ({"kv_heads": 3}, "E0544")],
)
def test_sizes_that_do_not_divide_are_named(
    fields: dict[str, Any], code: str, tmp_path: Path
) -> None:
    """An unknown architecture, and heads that do not divide the width or each other."""
    with pytest.raises(Fault, match=code):
        made(tmp_path, str(fields.pop("architecture", "llama")), **fields)
