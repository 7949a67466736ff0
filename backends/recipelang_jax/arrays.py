"""Numbers on JAX: the namespace that objectives see, the arithmetic of a precision, and random
bits.

Precision (the language reference, "Precision"): at ``F32`` and ``F64`` everything is computed in
that type, products with full accuracy. At ``BF16`` and ``F16`` matrix products take inputs rounded
to that type and accumulate in float32; all else is float32. On a CPU the rounded inputs are held in
float32 arrays, because XLA's bfloat16 products are slower there (on this kind of machine 130
against 200 GFLOP/s); accelerators get the hardware's own algorithm for the same thing.

Example:
    >>> arithmetic = Arithmetic("F32")
    >>> float(arithmetic.contract("i,i->", jnp.ones(3), jnp.ones(3)))
    3.0
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
from jax import lax

from recipelang.backend import Precision
from recipelang.weights.kernels.uniform_bits import GOLDEN, MIX

__all__ = ["KEPT", "XP", "Arithmetic", "Array", "Tree", "named", "scoped", "uniform_bits"]

Array: TypeAlias = Any
"""A jax.Array, or what becomes one at a compiled function's edge."""
Tree: TypeAlias = Any
"""A pytree of arrays."""

XP = SimpleNamespace(
    abs=jnp.abs, clip=jnp.clip, cumsum=jnp.cumsum, exp=jnp.exp, expm1=jnp.expm1, log=jnp.log,
    log1p=jnp.log1p, log_softmax=jax.nn.log_softmax, logaddexp=jnp.logaddexp, max=jnp.max,
    maximum=jnp.maximum, mean=jnp.mean, min=jnp.min, minimum=jnp.minimum, ones_like=jnp.ones_like,
    sqrt=jnp.sqrt, stop_gradient=lax.stop_gradient, sum=jnp.sum,
    take_along_axis=jnp.take_along_axis, tanh=jnp.tanh, where=jnp.where, zeros_like=jnp.zeros_like,
)  # fmt: skip
"""What an objective may call; ``recipelang_torch`` offers the same names."""

KEPT = "product"
_checkpoint_name: Any = jax.ad_checkpoint.checkpoint_name

_BITS = {"BF16": (8, 7), "F16": (5, 10)}
"""Exponent and mantissa bits of the rounded types."""
_ALGORITHM = {
    "BF16": lax.DotAlgorithmPreset.BF16_BF16_F32,
    "F16": lax.DotAlgorithmPreset.F16_F16_F32,
}
_STORED: Mapping[str, Any] = {"BF16": jnp.bfloat16, "F16": jnp.float16}


@contextlib.contextmanager
def scoped(precision: Precision) -> Iterator[None]:
    """64-bit types inside the block where the precision needs them; the process's setting stays as
    it is."""
    enable: Any = getattr(jax, "enable_x64", None)
    if enable is None:  # where it was before jax 0.8
        enable = importlib.import_module("jax.experimental").enable_x64
    with enable(precision == "F64"):
        yield


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _round_value(x: Array, bits: tuple[int, int]) -> Array:
    """Rounds going forward; the gradient passes as it is."""
    return lax.reduce_precision(x, *bits)


_round_value.defvjp(lambda x, bits: (lax.reduce_precision(x, *bits), None), lambda bits, _, g: (g,))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _round_gradient(x: Array, bits: tuple[int, int]) -> Array:
    """The identity going forward; the gradient is rounded."""
    return x


_round_gradient.defvjp(
    lambda x, bits: (x, None), lambda bits, _, g: (lax.reduce_precision(g, *bits),)
)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How one precision computes. ``platform`` is JAX's name of the device (``cpu gpu tpu``)."""

    precision: Precision
    platform: str = "cpu"

    @property
    def dtype(self) -> Any:
        """The type of masters, activations, losses and reductions: float32, or float64 at F64."""
        return jnp.float64 if self.precision == "F64" else jnp.float32

    @property
    def _bits(self) -> tuple[int, int] | None:
        """What values are rounded to here, on a device whose products do not round by
        themselves."""
        return _BITS.get(self.precision) if self.platform == "cpu" else None

    def operand(self, x: Array) -> Array:
        """``x`` as a product takes it: rounded to the precision, held in :attr:`dtype`."""
        if self._bits is None or x.dtype == _STORED.get(self.precision):
            return x.astype(self.dtype)
        return _round_value(x.astype(self.dtype), self._bits)

    def contract(self, subscripts: str, a: Array, b: Array, *, ready: bool = False) -> Array:
        """An einsum of two operands under this precision; the products of its gradient round too.

        ``ready`` says that ``b`` comes from :meth:`operand`, so that it is not rounded again.
        """
        a, b = self.operand(a), b if ready else self.operand(b)
        if self._bits is not None:
            return _round_gradient(jnp.einsum(subscripts, a, b, precision="highest"), self._bits)
        if self.precision in _ALGORITHM:
            return jnp.einsum(subscripts, a, b, precision=_ALGORITHM[self.precision])
        return jnp.einsum(subscripts, a, b, precision="highest")

    def linear(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """``x (..., in)`` times ``weight (out, in)`` transposed, plus ``bias (out,)``."""
        y = self.contract("...i,oi->...o", x, weight)
        return y if bias is None else y + bias.astype(self.dtype)

    def constant(self, value: float) -> Array:
        """A number that the checkpoint's own dtype would hold: rounded at BF16 and F16."""
        exact = jnp.asarray(value, self.dtype)
        return (
            lax.reduce_precision(exact, *_BITS[self.precision])
            if self.precision in _BITS
            else exact
        )


def named(x: Array) -> Array:
    """A value that ``recompute = None`` keeps for the backward pass: the result of a product."""
    return _checkpoint_name(x, KEPT)


def uniform_bits(key: Array, low: Array, high: Array) -> Array:
    """uint32 words of ``recipelang.weights.kernels.uniform_bits``: ``key (2,)``, indices of any
    shape, all uint32."""
    first = _mix(low ^ key[0])
    return _mix(first ^ key[1] ^ high * jnp.uint32(GOLDEN))


def _mix(x: Array) -> Array:
    first, multiplier, second, other, last = MIX
    x = x ^ (x >> first)
    x = x * jnp.uint32(multiplier)
    x = x ^ (x >> second)
    x = x * jnp.uint32(other)
    return x ^ (x >> last)
