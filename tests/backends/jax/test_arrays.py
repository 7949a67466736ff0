"""The arithmetic of a precision, random words, and what importing the backend brings along."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from recipelang.weights.kernels import uniform_bits as reference
from recipelang_jax.adapters import apply, stack, unstack
from recipelang_jax.arrays import Arithmetic, scoped, uniform_bits


def test_the_reference_is_two_rounds_of_lowbias32() -> None:
    """The numpy words equal the definition in Python's own integers."""

    def mix(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    key, start = reference.keys("seed", 7), 2**33 - 2
    found = reference.uniform_bits(key, start, start + 5)
    for word, index in zip(found.tolist(), range(start, start + 5), strict=True):
        low, high = index & 0xFFFFFFFF, index >> 32
        assert word == mix(mix(low ^ key[0]) ^ key[1] ^ high * 0x9E3779B9 & 0xFFFFFFFF)


def test_words_are_those_of_the_reference() -> None:
    """Random words equal the numpy definition, also past 2**32 elements."""
    key = reference.keys("seed", "name")
    for start in (0, 2**32 - 3):
        index = np.arange(start, start + 7, dtype=np.uint64)
        low, high = (index & 0xFFFFFFFF).astype(np.uint32), (index >> 32).astype(np.uint32)
        found = uniform_bits(jnp.array(key, jnp.uint32), jnp.asarray(low), jnp.asarray(high))
        np.testing.assert_array_equal(found, reference.uniform_bits(key, start, start + 7))


@pytest.mark.parametrize(("precision", "kind"), [("BF16", ml_dtypes.bfloat16), ("F16", np.float16)])
def test_products_take_rounded_inputs(precision: str, kind: type) -> None:
    """Inputs and cotangents are rounded to the precision, the sums are not."""
    generator = np.random.Generator(np.random.Philox(key=1))
    x, w, g = (generator.standard_normal(s).astype(np.float32) for s in ((5, 7), (3, 7), (5, 3)))
    arithmetic = Arithmetic(precision)  # type: ignore[arg-type]
    y, pull_back = jax.vjp(arithmetic.linear, jnp.asarray(x), jnp.asarray(w))
    dx, dw = pull_back(jnp.asarray(g))
    rx, rw, rg = (a.astype(kind).astype(np.float64) for a in (x, w, g))
    np.testing.assert_allclose(y, rx @ rw.T, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dx, rg @ rw, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dw, rg.T @ rx, rtol=0, atol=2e-6)
    assert y.dtype == dx.dtype == dw.dtype == np.float32


def test_float64_is_scoped() -> None:
    """64-bit types exist inside an F64 block only."""
    with scoped("F64"):
        assert jnp.ones(1, jnp.float64).dtype == np.float64
    with scoped("F32"):
        assert jnp.asarray(np.ones(1)).dtype == np.float32
    assert jnp.asarray(np.ones(1)).dtype == np.float32


def test_adapters_survive_stacking() -> None:
    """Pairs of different ranks on some layers come back as they went in; others are zero."""
    generator = np.random.Generator(np.random.Philox(key=2))
    pairs = {
        name: (generator.standard_normal((rank, 6)), generator.standard_normal((4, rank)))
        for name, rank in [
            ("model.layers.0.mlp.up_proj.weight", 2), ("model.layers.2.mlp.up_proj.weight", 3),
            ("lm_head.weight", 1),
        ]
    }  # fmt: skip
    tree = stack(pairs, 3, np.float64)
    back = unstack(tree, pairs)
    for name, (a, b) in pairs.items():
        np.testing.assert_array_equal(back[f"{name}.lora_A"], a)
        np.testing.assert_array_equal(back[f"{name}.lora_B"], b)
    assert not tree["layers"]["mlp.up_proj"]["A"][1].any()


def test_dropout_follows_row_and_token() -> None:
    """A mask is that of the row's place in the step and of the token, not of the micro-batch."""
    key = reference.dropout_keys("draws", "name", 4)
    x = np.ones((2, 3, 8), np.float32)
    pair = {"A": np.eye(8, dtype=np.float32), "B": np.eye(8, dtype=np.float32)}
    rows, token = np.array([[5], [9]], np.uint32), np.arange(3, dtype=np.uint32)[None]
    drop = (0.5, jnp.array(key, jnp.uint32), jnp.asarray(token), jnp.asarray(rows))
    found = apply(Arithmetic("F32"), jnp.asarray(x), pair, 1.0, drop)
    for place, row in enumerate((5, 9)):
        words = reference.uniform_bits(key, row << 32, (row << 32) + 24).reshape(3, 8)
        np.testing.assert_array_equal(found[place], np.where(words >= 2**31, 2.0, 0.0))


def test_neither_torch_nor_transformers_is_imported() -> None:
    """The backend stands on JAX alone."""
    code = (
        "import sys, recipelang_jax; recipelang_jax.backend().version; "
        "sys.exit(bool({'torch', 'transformers', 'optax', 'flax'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )
