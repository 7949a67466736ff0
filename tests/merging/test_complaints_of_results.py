"""What users of mergekit complain of in what a merge gives, and what happens here instead.

The numbers are threads of arcee-ai/mergekit; docs/complaints.md has the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from recipelang.cli.main import main
from tests.merging.family import HEAD, MLP, QUERY, of
from tests.merging.projects import (
    arrays_of,
    models,
    published,
    run,
    write_model,
)

# ---------------------------------------------------------------- 4: silent garbage


@pytest.mark.parametrize(
    ("merge", "code"),
    [
        ("m = ties-merge a with b { scale = 50 }", "W0653"),
        ("m = linear-merge a with b and base { normalize = false }", "W0651"),
        ("m = linear-merge a with b(weight = 1e-12)", "W0654"),
    ],
    ids=["far from its base", "three times too large", "an input that is lost"],
)
def test_4_a_merge_that_went_wrong_says_so(
    merge: str, code: str, tmp_path: Path, base: dict[str, Any]
) -> None:
    """#169, #437, #352, #671, #411, #276: the merge "succeeds", and the model speaks nonsense. Here
    what was merged is looked at, layer by layer, and what looks like garbage is warned of at its
    place in the recipe; a good merge says nothing."""
    outcome = run(tmp_path, f"{HEAD}{merge}\n")
    assert outcome.exit_code == 0
    assert code in [d.code for d in outcome.diagnostics]
    (warned, *_) = (d for d in outcome.diagnostics if d.code == code)
    assert warned.primary is not None
    assert warned.primary.span.source.position(warned.primary.span.start)[0] == 4
    good = run(tmp_path, HEAD + "m = linear-merge a with b\n")
    assert [d.code for d in good.diagnostics] == []


# ---------------------------------------------------------------- 7: what numbers mean


def test_7_the_result_is_the_formula_of_the_documentation(
    tmp_path: Path, base: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """#214: the result is not what the weights say, for `normalize` is on. Here the reference of
    the operation says the formula and the default, and both are what is computed."""
    assert main(["ops", "linear-merge"]) == 0
    page = capsys.readouterr().out
    assert "R = sum_i w_i X_i, divided by sum_i w_i when `normalize`" in page
    assert "normalize" in page
    a, b = of(tmp_path, "a"), of(tmp_path, "b")
    for field, total in (("", 1.5), (" { normalize = false }", 1.0)):
        text = HEAD + f"m = linear-merge a(weight = 0.5) with b(weight = 1){field}\n"
        got = published(tmp_path, text)
        for name in base:
            expected = (0.5 * a[name] + b[name]) / total
            np.testing.assert_allclose(got[name], expected, rtol=1e-5, atol=1e-6)


def test_7_a_gradient_runs_over_the_layers_from_its_first_to_its_last_value(
    tmp_path: Path, base: dict[str, Any]
) -> None:
    """#336: what a gradient does to which layer is not clear. Here it is linear over the layers;
    what stands before them has the first value, what stands behind them the last."""
    shapes = {MLP.format(i): (8, 4) for i in range(5)} | {
        "model.embed_tokens.weight": (6, 4), "lm_head.weight": (6, 4)
    }  # fmt: skip
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    ones = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    for name, arrays in (("zero", zeros), ("one", ones)):
        write_model(tmp_path / name, arrays, num_hidden_layers=5)
    text = models("zero", "one") + "m = zero -> nearswap-merge with one { t = gradient(0, 1) }\n"
    got = published(tmp_path, text)
    assert [float(got[MLP.format(i)].mean()) for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert got["model.embed_tokens.weight"].max() == 0
    assert got["lm_head.weight"].min() == 1


def test_7_densities_are_of_a_tensor_unless_the_recipe_says_of_the_model(
    tmp_path: Path, base: dict[str, Any]
) -> None:
    """#455: whether outliers and densities are of a tensor or of the model. Here the field `trim`
    says which, and exactly so many entries are kept."""
    change = {n: np.linspace(1, 2, x.size, dtype=np.float32).reshape(x.shape)
              for n, x in base.items()}  # fmt: skip
    change["model.norm.weight"] *= 1000
    write_model(tmp_path / "base", {n: np.zeros_like(x) for n, x in base.items()})
    write_model(tmp_path / "a", change)
    write_model(tmp_path / "b", change)
    for trim in ("tensor", "model"):
        fields = f"{{ density = 25%, trim = {trim} }}"
        got = published(tmp_path, HEAD + f"m = ties-merge a with b {fields}\n")
        kept = {name: int(np.count_nonzero(array)) for name, array in got.items()}
        if trim == "tensor":
            assert kept == {name: array.size // 4 for name, array in base.items()}
        else:
            assert sum(kept.values()) == sum(array.size for array in base.values()) // 4
            assert kept["model.norm.weight"] == 4


# ---------------------------------------------------------------- 12: adapters


def lora(folder: Path, seed: int) -> Any:
    """An adapter of rank 2 for one weight, and its change."""
    from safetensors.numpy import save_file

    module = "model.layers.0.mlp.up_proj"
    a, b = (arrays_of(seed, {"x": shape})["x"] for shape in ((2, 4), (8, 2)))
    folder.mkdir()
    prefix = f"base_model.model.{module}"
    save_file(
        {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return 2 * b @ a


def test_12_adapters_are_merged_without_a_baked_copy(tmp_path: Path, base: dict[str, Any]) -> None:
    """#470: merges of adapters alone write a whole model for each first. Here an adapter is an
    input, and only the result is written."""
    changes = [lora(tmp_path / f"lora{i}", i + 5) for i in range(2)]
    text = models("base") + (
        'x = adapter "lora0" from base\ny = adapter "lora1" from base\nm = linear-merge x with y\n'
    )
    got = published(tmp_path, text)
    expected = base[MLP.format(0)] + (changes[0] + changes[1]) / 2
    np.testing.assert_allclose(got[MLP.format(0)], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[QUERY.format(0)], base[QUERY.format(0)])
    objects = [p for p in tmp_path.glob(".recipe/obj/*/*") if p.stat().st_size > 500]
    assert sum(b"safetensors" in p.name.encode() or _is_shard(p) for p in objects) == 1


def _is_shard(path: Path) -> bool:
    return path.read_bytes()[8:10] == b'{"'


def test_12_an_adapter_is_taken_out_of_bfloat16(tmp_path: Path) -> None:
    """#500, #486, #521, #525: singular values of bf16 fail, on a GPU too. Here the decomposition is
    float32 on the host, and what it keeps comes back."""
    base = arrays_of(0, dtype=ml_dtypes.bfloat16)
    change = np.outer(np.arange(1, 9), [1, -1, 2, 0.5]) / 4
    changed = (base[MLP.format(0)].astype(np.float32) + change).astype(ml_dtypes.bfloat16)
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "a", base | {MLP.format(0): changed})
    text = models("base", a="base") + (
        'slim = extract-adapter a from base { rank = 2, targets = ["up_proj"] }\n'
        "m = apply slim to base\n"
    )
    got = published(tmp_path, text)[MLP.format(0)].astype(np.float32)
    np.testing.assert_allclose(got, changed.astype(np.float32), rtol=2e-2, atol=2e-2)


# ---------------------------------------------------------------- 15: overflow


def test_15_rescaling_does_not_overflow_float16(tmp_path: Path) -> None:
    """PR#704: rescaled task vectors of fp16 models become infinite. Here arithmetic is float32 and
    only the result is rounded; one that float16 cannot hold stops the merge, by name."""
    shape = {"model.layers.0.w": (64, 64)}
    zeros = {n: np.zeros(s, np.float16) for n, s in shape.items()}
    large = {n: np.full(s, 2000, np.float16) for n, s in shape.items()}
    for name, arrays in (("base", zeros), ("a", large), ("b", zeros)):
        write_model(tmp_path / name, arrays, {"model_type": "toy"})
    merge = "m = dare-merge a(weight = {}) with b {{ density = 1% }}\n"
    got = published(tmp_path, HEAD + merge.format(0.1))["model.layers.0.w"]
    assert got.dtype == np.float16
    kept = got[got != 0]
    assert 0 < kept.size < 200
    np.testing.assert_allclose(kept.astype(np.float64), 20_000, rtol=1e-3)
    outcome = run(tmp_path, HEAD + merge.format(1))
    assert outcome.exit_code == 4
    (found,) = (d for d in outcome.diagnostics if d.severity == "error")
    assert found.code == "E0620"
    assert "`model.layers.0.w`" in found.message
