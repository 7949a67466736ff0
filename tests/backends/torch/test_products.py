"""Products of narrow types: widened and native ones are the same numbers but for the order of a
sum."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from recipelang_torch import backend, products
from recipelang_torch.arrays import XP, from_numpy, to_numpy, uniform_bits
from tests.backends.torch.jobs import job, lora, train
from tests.conformance import tiny

Set = Callable[[bool], None]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Says whether bfloat16 products are widened, whatever this machine would do."""

    def say(value: bool) -> None:
        monkeypatch.setattr(products, "_FEW", 1)
        monkeypatch.setattr(
            products, "widens", lambda dtype, device: value and dtype == torch.bfloat16
        )

    return say


@pytest.mark.parametrize("architecture", ["llama", "llama3", "mistral", "gemma2", "gemma3"])
def test_widened_logits_equal_native_ones_to_rounding(architecture: str, wide: Set) -> None:
    """Both ways of computing bfloat16 are as near to each other as to the float32 model."""
    checkpoint, batch = tiny.checkpoint(architecture, "BF16"), tiny.batch(rows=6, length=20)
    results = []
    for value in (False, True):
        wide(value)
        results.append(backend().load(checkpoint, "BF16").logits(batch))
    exact = backend().load(checkpoint, "F32").logits(batch)
    native, widened = (np.sqrt(np.mean((x - exact) ** 2)) for x in results)
    assert not np.array_equal(results[0], results[1])
    assert widened <= 1.5 * native < 0.2 * exact.std()


@pytest.mark.parametrize("adapted", [True, False])
def test_widened_gradients_equal_native_ones_to_rounding(adapted: bool, wide: Set) -> None:
    """One step's loss and gradient norm agree to bfloat16's resolution, adapters or full
    training."""
    checkpoint = tiny.checkpoint("llama3", "BF16")
    given = job("llama3", "BF16", steps=1, adapter=lora(checkpoint, 0.2) if adapted else None)
    found = []
    for value in (False, True):
        wide(value)
        found.append(train(given)[1][0])
    assert found[0].loss == pytest.approx(found[1].loss, rel=2e-2)
    assert found[0].grad_norm == pytest.approx(found[1].grad_norm, rel=4e-2)


def test_a_widened_output_matrix_follows_its_training(wide: Set) -> None:
    """The widened copy of a trained output matrix is made again after each step."""
    wide(True)
    held = tiny.batch(rows=8, length=14)
    given = job("llama3", "BF16", steps=5, lr=[0.02] * 5, batch=lambda _: held,
                trainable=frozenset({"lm_head.weight"}))  # fmt: skip
    losses = [entry.loss for entry in train(given)[1]]
    assert all(later < earlier - 0.01 for earlier, later in itertools.pairwise(losses))


def test_float16_products_are_widened_on_a_cpu() -> None:
    """float16 adds up in float32 on any processor; other types and devices are left alone."""
    assert products.widens(torch.float16, "cpu")
    assert not products.widens(torch.float32, "cpu")
    assert not products.widens(torch.bfloat16, "cuda")
    logits = backend().load(tiny.checkpoint("qwen2", "F16"), "F16").logits(tiny.batch())
    exact = backend().load(tiny.checkpoint("qwen2", "F16"), "F32").logits(tiny.batch())
    assert np.abs(logits - exact).mean() < 0.005


def test_random_bits_are_the_shared_ones() -> None:
    """torch's words equal the numpy reference for small and large indices."""
    from recipelang.weights.kernels import uniform_bits as shared

    key = shared.keys("seed", "name")
    for high in (0, 1, 2**31 + 5):
        start = high << 32
        words = uniform_bits(key, torch.arange(1000), torch.tensor(high))
        np.testing.assert_array_equal(words.numpy(), shared.uniform_bits(key, start, start + 1000))


def test_bfloat16_goes_to_numpy_and_back() -> None:
    """Arrays keep their bits on the way in, and come out in float32."""
    import ml_dtypes

    array = np.linspace(-3, 3, 20).astype(ml_dtypes.bfloat16).reshape(4, 5)
    tensor = from_numpy(array)
    assert tensor.dtype == torch.bfloat16
    np.testing.assert_array_equal(to_numpy(tensor), array.astype(np.float32))


def test_the_namespace_follows_numpy() -> None:
    """Each function that objectives may call gives numpy's result, with axes and plain numbers."""
    x = np.linspace(-2, 3, 24).reshape(4, 6)
    t = torch.from_numpy(x)
    index = np.array([[1], [0], [5], [2]])
    pairs = [
        (XP.sum(t), x.sum()), (XP.sum(t, axis=-1), x.sum(-1)), (XP.mean(t, axis=0), x.mean(0)),
        (XP.max(t, axis=-1, keepdims=True), x.max(-1, keepdims=True)), (XP.min(t), x.min()),
        (XP.maximum(t, 0.5), np.maximum(x, 0.5)), (XP.minimum(0.5, t), np.minimum(0.5, x)),
        (XP.where(t > 0, t, 0.0), np.where(x > 0, x, 0.0)), (XP.clip(t, -1, 1), x.clip(-1, 1)),
        (XP.take_along_axis(t, torch.from_numpy(index), axis=-1), np.take_along_axis(x, index, -1)),
        (XP.logaddexp(t, t + 1), np.logaddexp(x, x + 1)), (XP.cumsum(t, axis=0), x.cumsum(0)),
        (XP.log_softmax(t, axis=-1), x - np.log(np.exp(x).sum(-1, keepdims=True))),
    ]  # fmt: skip
    for ours, expected in pairs:
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)
    grown = t.clone().requires_grad_(True)
    assert not XP.stop_gradient(grown).requires_grad
