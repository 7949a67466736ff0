"""The places whose arrays are compared: the host's, and those of each backend on the CPU."""

from __future__ import annotations

import jax
import pytest
import torch

import recipelang_jax.weights
import recipelang_torch.weights
from recipelang.weights.arrays import Arrays, HostArrays

ARRAYS: dict[str, Arrays] = {
    "numpy": HostArrays(whole=True),
    "torch": recipelang_torch.weights.WeightArrays(torch.device("cpu")),
    "jax": recipelang_jax.weights.WeightArrays(jax.devices("cpu")[0]),
}
LIBRARIES = pytest.mark.parametrize("library", list(ARRAYS))
