"""Whether JAX computes on this machine's accelerator what it should: a few known answers.

jax 0.11 gives wrong numbers on CUDA with some machines and drivers, first in kernels of single
operations, then as NaN in training (https://github.com/jax-ml/jax/issues/40633). Nothing tells, so
what is asked for here is what was seen to go wrong there, one operation after the other.

Example:
    >>> wrong_answers()
    []
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from recipelang.diagnostics import fault
from recipelang_jax.arrays import Array

__all__ = ["require_sound", "wrong_answers"]

COUNT = 1000
SUM = COUNT * (COUNT - 1) / 2
QUESTIONS: Mapping[str, tuple[Callable[[], Array], float]] = {
    "sqrt(512)": (lambda: jnp.sqrt(jnp.float32(512)), 512**0.5),
    "ones(4) + 1": (lambda: (jnp.ones(4) + 1).min(), 2.0),
    "the sum of the first 1,000 numbers": (lambda: jnp.arange(COUNT).sum(), SUM),
    "the largest of 1,000 draws below 1": (
        lambda: jnp.ceil(jax.random.uniform(jax.random.key(0), (COUNT,)).max()), 1.0,
    ),
    "the mean of a product of matrices": (
        lambda: (jnp.full((64, 64), 0.5) @ jnp.full((64, 64), 2.0)).mean(), 64.0,
    ),
}  # fmt: skip
"""What is asked, and the answer. Rounded products of a device are exact for these numbers."""


def wrong_answers() -> list[str]:
    """Each question whose answer is wrong, with the answer."""
    wrong: list[str] = []
    for question, (ask, right) in QUESTIONS.items():
        answer = float(ask())
        if not np.isclose(answer, right, rtol=1e-3):
            wrong.append(f"{question} = {answer:.6g}")
    return wrong


@cache
def require_sound() -> None:
    """Raise RecipeError E0805 where an accelerator gives wrong answers; asked once a process, and
    not of a CPU."""
    if jax.default_backend() == "cpu":
        return
    wrong = wrong_answers()
    if wrong:
        raise fault(
            "E0805", f"jax {jax.__version__} computes wrong numbers on this device: {wrong[0]}",
            help="install another version (0.10.2 is not known to), or run with `--backend torch`",
        )  # fmt: skip
