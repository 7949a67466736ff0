"""Configurations: what is read, in both spellings, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from recipelang.diagnostics import RecipeError
from recipelang.types import TensorInfo
from recipelang_jax import backend
from recipelang_jax.spec import Rope, Unsupported, expected_tensors, make_spec
from tests.conformance import tiny


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_tiny_model_is_accepted(architecture: str) -> None:
    """The expected tensors are the ones of the checkpoint, and nothing is refused."""
    model = tiny.checkpoint(architecture)
    shapes = {name: info.shape for name, info in model.tensors.items()}
    assert expected_tensors(make_spec(model.config)) == shapes
    assert backend().refuse(model.config, model.tensors) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba"}, "the model type `mamba`"),
        ({"model_type": None}, "the model type `None`"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "the rope type `yarn`"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "the rope type `dynamic`"),
        ({"rope_scaling": {"rope_type": "linear"}}, "the rope type `linear` without `factor`"),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "the rope setting `partial_rotary_factor`",
        ),
        ({"quantization_config": {"bits": 4}}, "the configuration key `quantization_config`"),
        ({"pretraining_tp": 2}, "the configuration key `pretraining_tp`"),
        ({"residual_multiplier": 0.2}, "the configuration key `residual_multiplier`"),
        ({"hidden_act": "relu"}, "the activation `relu`"),
    ],
)
def test_unknown_parts_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    """A part that would change the computation is named, with the other backend as the way out."""
    model = tiny.checkpoint("llama")
    reason = backend().refuse({**model.config, **changes}, model.tensors)
    assert reason is not None
    assert named in reason
    assert "--backend torch" in reason


def test_gemma_parts_are_refused_by_name() -> None:
    """Bidirectional attention, and a soft cap that transformers itself does not apply to gemma
    3."""
    for architecture, key in [
        ("gemma2", "use_bidirectional_attention"),
        ("gemma3", "attn_logit_softcapping"),
    ]:
        with pytest.raises(Unsupported, match=key):
            make_spec({**tiny.config(architecture), key: True})


def test_tensors_are_refused_by_name() -> None:
    """A missing, an unknown, a wrongly shaped and a quantised tensor are each named."""
    model = tiny.checkpoint("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    tables: list[dict[str, TensorInfo]] = [
        {n: info for n, info in model.tensors.items() if n != name},
        {**model.tensors, "model.layers.1.mlp.router.weight": TensorInfo("F32", (4, 32))},
        {**model.tensors, name: TensorInfo("F32", (48, 31))},
        {**model.tensors, name: TensorInfo("U8", (48, 32))},
    ]
    for table in tables:
        reason = backend().refuse(model.config, table)
        assert reason is not None
        assert "`model.layers.1.mlp." in reason


def test_a_refused_model_does_not_load() -> None:
    """Loading it is the fault E0803, not a traceback."""
    model = tiny.checkpoint("llama")
    other = tiny.MemoryCheckpoint({**model.config, "model_type": "gpt2"}, model.arrays)
    with pytest.raises(RecipeError) as raised:
        backend().load(other, "F32")
    assert raised.value.diagnostics[0].code == "E0803"


def test_a_second_head_that_differs_from_its_tie_is_refused() -> None:
    """A tied checkpoint may repeat its embedding as `lm_head.weight`, not bring another one."""
    model = tiny.checkpoint("llama")
    embedding = model.arrays["model.embed_tokens.weight"]
    same = tiny.MemoryCheckpoint(model.config, {**model.arrays, "lm_head.weight": embedding})
    backend().load(same, "F32").close()
    other = tiny.MemoryCheckpoint(model.config, {**model.arrays, "lm_head.weight": embedding + 1})
    with pytest.raises(RecipeError, match="lm_head"):
        backend().load(other, "F32")


def test_both_spellings_of_rope_are_one() -> None:
    """`rope_theta` with `rope_scaling` and `rope_parameters` give one specification."""
    old = tiny.config("llama3")
    new = {k: v for k, v in old.items() if k not in ("rope_theta", "rope_scaling")}
    scaling = old["rope_scaling"]
    assert isinstance(scaling, dict)
    new["rope_parameters"] = {"rope_theta": old["rope_theta"], **scaling}
    assert make_spec(old) == make_spec(new)
    old = tiny.config("gemma3")
    new = {k: v for k, v in old.items() if k not in ("rope_theta", "rope_local_base_freq")}
    new["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": 70000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    }
    assert make_spec(old) == make_spec(new)


def test_defaults_are_those_of_transformers() -> None:
    """What a configuration leaves out takes transformers' default, null where it says null."""
    bare = {k: tiny.config("llama")[k] for k in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads",
    )}  # fmt: skip
    llama = make_spec({**bare, "model_type": "llama"})
    assert (llama.kv_heads, llama.head_dim, llama.eps, llama.tied) == (4, 8, 1e-6, False)
    assert llama.ropes == (Rope(10_000.0),)
    assert make_spec({**bare, "model_type": "mistral"}).window == 4096
    assert make_spec({**bare, "model_type": "mistral", "sliding_window": None}).window == 0
    assert make_spec({**bare, "model_type": "qwen3"}).window == 0
    gemma = make_spec({**bare, "model_type": "gemma2"})
    assert (gemma.attention_softcap, gemma.final_softcap, gemma.tied) == (50.0, 30.0, True)
    assert gemma.sliding == (True, False, True)
    assert (
        make_spec({**bare, "model_type": "gemma2", "final_logit_softcapping": None}).final_softcap
        == 0
    )
    deep = make_spec({**bare, "model_type": "gemma3_text", "num_hidden_layers": 12})
    assert deep.sliding == ((True,) * 5 + (False,)) * 2
    assert deep.rope == tuple(int(s) for s in deep.sliding)


def test_llama3_frequencies_are_the_piecewise_ones() -> None:
    """Long waves slow down by the factor, short ones stay, those between are blended (Llama
    3.1)."""
    rope = Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 64.0)
    plain = Rope(500_000.0).inverse_frequencies(64)
    found = rope.inverse_frequencies(64)
    for inverse, scaled in zip(plain, found, strict=True):
        wave = 2 * np.pi / inverse
        if wave < 64 / 4:
            assert scaled == inverse
        elif wave > 64:
            assert scaled == pytest.approx(inverse / 8)
        else:
            smooth = (64 / wave - 1) / 3
            assert scaled == pytest.approx((1 - smooth) * inverse / 8 + smooth * inverse)
