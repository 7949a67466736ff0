"""Each architecture on JAX against transformers: logits, gradients, greedy decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

import recipelang_jax
import recipelang_torch
from recipelang_jax.arrays import Arithmetic
from recipelang_jax.models import Decoder, Inputs, read_params, unstack_params
from recipelang_jax.spec import expected_tensors, make_spec
from tests.conformance import tiny

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in tiny.ARCHITECTURES},
    "linear": ("mistral", {"rope_scaling": {"type": "linear", "factor": 4.0}, "head_dim": 16}),
    "qwen2-sliding": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "layer_types": None,
        },
    ),
}
"""Name -> architecture and changes of its configuration. The text is longer than every window."""

ROWS, LENGTH, PADDING = 2, 24, 5


def reference(model: tiny.MemoryCheckpoint, folder: Path) -> Any:
    """The transformers model of a checkpoint, through its folder."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        tiny.write(model, folder), attn_implementation="eager", dtype=torch.float32
    ).eval()


def cross_entropy(decoder: Decoder, params: Any, inputs: Inputs) -> Any:
    """The mean cross-entropy of the next tokens outside padding, and the logits."""
    logits = decoder.logits(decoder.head(params), decoder.hidden(params, inputs))
    log_p = jax.nn.log_softmax(logits[:, :-1], -1)
    of_next = jnp.take_along_axis(log_p, inputs.tokens[:, 1:, None], -1)[..., 0]
    counted = inputs.segments[:, 1:]
    return -(of_next * counted).sum() / counted.sum(), logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    """Logits agree to 2e-5 (or 1e-5 of the largest) and every gradient to 2e-6, or 1e-5 of its
    tensor's largest, or 1e-4 of it."""
    architecture, changes = VARIANTS[variant]
    model = tiny.checkpoint(architecture, "F32", **changes)
    theirs = reference(model, tmp_path)
    tokens = np.random.Generator(np.random.Philox(key=3)).integers(
        3, tiny.VOCABULARY, (ROWS, LENGTH)
    )
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[1, -PADDING:] = 0
    ids, mask = torch.from_numpy(tokens), torch.from_numpy(segments)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).logits
    real = mask[:, 1:].bool()
    torch.nn.functional.cross_entropy(expected[:, :-1][real], ids[:, 1:][real]).backward()

    spec = make_spec(model.config)
    decoder = Decoder(spec, Arithmetic("F32"), recompute=None)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH))
    inputs = Inputs(tokens.astype(np.int32), segments, positions, np.arange(ROWS, dtype=np.int32))
    program = jax.jit(jax.value_and_grad(lambda p: cross_entropy(decoder, p, inputs), has_aux=True))
    (_, logits), gradient = program(read_params(model, spec))
    found = unstack_params(gradient, frozenset(expected_tensors(spec)))

    inside = segments != 0
    np.testing.assert_allclose(
        np.asarray(logits)[inside], expected.detach().numpy()[inside], rtol=0,
        atol=max(2e-5, 1e-5 * float(expected.detach().abs().max())),
    )  # fmt: skip
    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert set(found) == set(wanted)
    for name, gradient_of in wanted.items():
        tolerance = max(2e-6, 1e-5 * float(np.abs(gradient_of).max()))
        np.testing.assert_allclose(found[name], gradient_of, 1e-4, tolerance, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_logits_are_those_of_the_torch_backend(variant: str) -> None:
    """At F64, where both compute everything in float64, packed rows give logits equal to 1e-12."""
    architecture, changes = VARIANTS[variant]
    model = tiny.checkpoint(architecture, "F32", **changes)
    batch = tiny.batch(rows=2, length=24, packed=True)
    found, expected = (
        kind.backend().load(model, "F64").logits(batch)[batch.segments > 0]
        for kind in (recipelang_jax, recipelang_torch)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ["llama3", "gemma2", "gemma3"])
def test_greedy_decoding_is_that_of_transformers(architecture: str, tmp_path: Path) -> None:
    """With a cache and prompts of several lengths at once, the tokens are transformers' own
    argmax."""
    model = tiny.checkpoint(architecture, "F32")
    theirs = reference(model, tmp_path)
    prompts = [[5], [9, 4, 77, 31, 8, 12, 60], [3, 90]]
    found = (
        recipelang_jax.backend().load(model, "F32").decode(prompts, max_tokens=9, stop=frozenset())
    )
    for prompt, tokens in zip(prompts, found, strict=True):
        line = list(prompt)
        with torch.no_grad():
            for _ in range(9):
                line.append(int(theirs(input_ids=torch.tensor([line])).logits[0, -1].argmax()))
        assert tokens == line[len(prompt) :]
