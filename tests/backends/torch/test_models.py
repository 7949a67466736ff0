"""Models on torch: equal to plain transformers, packing without leaks, precision, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from recipelang.data.batch import Batch
from recipelang.diagnostics import RecipeError
from recipelang_torch import backend, exact, models
from tests.conformance import tiny

CPU = torch.device("cpu")


def reference(checkpoint: tiny.MemoryCheckpoint, attention: str | None = None):
    """The plain transformers model with these weights, loaded without this project's code."""
    config = dict(checkpoint.config)
    parsed = transformers.CONFIG_MAPPING[config.pop("model_type")].from_dict(config)
    made = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(parsed)](parsed)
    if attention:
        made.set_attn_implementation(attention)
    weights = {name: torch.from_numpy(np.array(a)) for name, a in checkpoint.arrays.items()}
    made = made.to(next(iter(weights.values())).dtype)
    made.load_state_dict(weights, strict=False)
    return made.eval()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_logits_are_those_of_plain_transformers(architecture: str) -> None:
    """A float32 model gives the logits that the library's own forward pass gives."""
    checkpoint, batch = tiny.checkpoint(architecture), tiny.batch(packed=False)
    ours = backend().load(checkpoint, "F32").logits(batch)
    with torch.no_grad():
        theirs = reference(checkpoint)(torch.from_numpy(batch.tokens).long()).logits.numpy()
    real = batch.segments > 0
    np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_packed_documents_leak_nothing(architecture: str) -> None:
    """A packed document's logits do not move by a bit when the other's tokens change, and equal
    those of the document alone."""
    model, batch = (
        backend().load(tiny.checkpoint(architecture), "F32"),
        tiny.batch(rows=3, length=17),
    )
    plain = model.logits(batch)
    for number in (1, 2):
        changed = np.where(
            batch.segments == number, (batch.tokens + 7) % tiny.VOCABULARY, batch.tokens
        )
        moved = model.logits(
            Batch(changed.astype(np.int32), batch.segments, batch.positions, batch.supervised)
        )
        others = (batch.segments != number) & (batch.segments > 0)
        assert np.array_equal(moved[others], plain[others])
        assert not np.array_equal(moved, plain)
    second = batch.segments[0] == 2
    alone = Batch(
        *(x[:1, second] for x in (batch.tokens, batch.segments, batch.positions, batch.supervised))
    )
    np.testing.assert_allclose(model.logits(alone)[0], plain[0, second], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_isolation_probe_accepts_attention(architecture: str) -> None:
    """The probe sees that attention models keep documents apart."""
    assert backend().isolates_documents(tiny.config(architecture))


def test_isolation_probe_rejects_a_recurrent_model() -> None:
    """A model whose state runs through the whole row leaks, and the probe says so."""
    config = {
        "model_type": "rwkv", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97,
        "attention_hidden_size": 32, "intermediate_size": 48, "context_length": 64,
    }  # fmt: skip
    assert not backend().isolates_documents(config)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_float64_is_float64_throughout(architecture: str) -> None:
    """At F64 no step rounds to float32: moving an input by 1e-12 moves the logits smoothly, by as
    much as the gradient says."""
    decoder = models.load(tiny.checkpoint(architecture, "F64"), "F64", CPU)
    given = models.inputs(tiny.batch(rows=1, packed=False), CPU)
    weight = decoder.module.base_model.layers[0].self_attn.q_proj.weight
    direction = torch.linspace(-1, 1, weight.numel(), dtype=torch.float64).view_as(weight)
    weight.requires_grad_(True)
    weights = torch.linspace(-1, 1, tiny.VOCABULARY, dtype=torch.float64)

    def value() -> torch.Tensor:
        return (decoder.logits(decoder.hidden(given)[0, -1:]) @ weights).sum()

    slope = float((torch.autograd.grad(value(), weight)[0] * direction).sum())
    with torch.no_grad():
        step = 1e-7
        weight.add_(direction, alpha=step)
        after = value()
        weight.add_(direction, alpha=-2 * step)
        before = value()
    assert float(after - before) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_float64_rotary_and_norm_replacements_are_used() -> None:
    """Each kind of norm and rotary table of the tiny models has its float64 replacement."""
    for architecture in tiny.ARCHITECTURES:
        module = models.load(tiny.checkpoint(architecture, "F64"), "F64", CPU).module
        for part in module.modules():
            if type(part).__name__.endswith(("RMSNorm", "RotaryEmbedding")):
                assert "forward" in vars(part), type(part).__name__


def test_bfloat16_models_keep_their_dtype_and_give_float32_logits() -> None:
    """At BF16 the weights stay bfloat16 and what leaves the model is float32."""
    decoder = models.load(tiny.checkpoint("gemma2", "BF16"), "BF16", CPU)
    assert {w.dtype for w in decoder.named_weights().values()} == {torch.bfloat16}
    logits = backend().load(tiny.checkpoint("gemma2", "BF16"), "BF16").logits(tiny.batch())
    assert logits.dtype == np.float32


def test_soft_capped_attention_is_the_eager_one() -> None:
    """The attention with soft caps equals transformers' own slow path, sliding windows included."""
    checkpoint, batch = tiny.checkpoint("gemma2"), tiny.batch(packed=False, length=20)
    assert (
        exact.attention_for(transformers.Gemma2ForCausalLM, transformers.Gemma2Config())
        == exact.SOFTCAP
    )
    ours = backend().load(checkpoint, "F32").logits(batch)
    with torch.no_grad():
        theirs = reference(checkpoint, "eager")(
            torch.from_numpy(batch.tokens).long()
        ).logits.numpy()
    real = batch.segments > 0
    np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=1e-5)


def altered(
    checkpoint: tiny.MemoryCheckpoint, **arrays: np.ndarray | None
) -> tiny.MemoryCheckpoint:
    """The checkpoint with tensors replaced, added or (None) removed; ``__`` stands for a dot."""
    changed = {name.replace("__", "."): array for name, array in arrays.items()}
    kept = {**checkpoint.arrays, **changed}
    return tiny.MemoryCheckpoint(
        checkpoint.config, {k: v for k, v in kept.items() if v is not None}
    )


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("model__norm__weight", None, "a checkpoint without `model.norm.weight`"),
        ("model__extra__weight", np.zeros((2, 2), np.float32), "the tensor `model.extra.weight`"),
        ("model__norm__weight", np.zeros(3, np.float32), "another shape of `model.norm.weight`"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_tensor(name, array, words) -> None:
    """A missing, unknown or misshaped tensor is named, never guessed."""
    broken = altered(tiny.checkpoint("llama"), **{name: array})
    with pytest.raises(RecipeError, match=words.replace(".", r"\.")) as caught:
        backend().load(broken, "F32")
    assert caught.value.diagnostics[0].code == "E0803"


def test_an_output_matrix_beside_a_tied_embedding_is_used() -> None:
    """A checkpoint of a tied configuration that brings its own output matrix means it, as in
    transformers."""
    own = altered(tiny.checkpoint("llama"), lm_head__weight=np.zeros((97, 32), np.float32))
    assert not backend().load(own, "F32").logits(tiny.batch()).any()
    same = tiny.checkpoint("llama")
    same = altered(same, lm_head__weight=same.arrays["model.embed_tokens.weight"])
    assert np.array_equal(
        backend().load(same, "F32").logits(tiny.batch()),
        backend().load(tiny.checkpoint("llama"), "F32").logits(tiny.batch()),
    )


def test_refuse_names_the_part() -> None:
    """Unknown model types, quantised weights and missing tensors are named without loading
    anything."""
    checkpoint = tiny.checkpoint("qwen2")
    torch_backend = backend()
    assert torch_backend.refuse(checkpoint.config, checkpoint.tensors) is None
    assert "`abacus`" in str(torch_backend.refuse({"model_type": "abacus"}, {}))
    quantised = {**checkpoint.config, "quantization_config": {"bits": 4}}
    assert "`quantization_config`" in str(torch_backend.refuse(quantised, checkpoint.tensors))
    fewer = {n: t for n, t in checkpoint.tensors.items() if n != "model.norm.weight"}
    assert "`model.norm.weight`" in str(torch_backend.refuse(checkpoint.config, fewer))
    assert "`t5`" in str(torch_backend.refuse({"model_type": "t5"}, {}))


def test_a_saved_folder_is_what_transformers_reads(tmp_path) -> None:
    """The tiny checkpoints are well-formed Hugging Face folders."""
    folder = tiny.write(tiny.checkpoint("gemma3"), tmp_path / "m")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gemma3_text"
    assert (folder / "model.safetensors").exists()
