"""Where torch computes: one CUDA device if there is one, else the CPU. Nothing is split over
devices.

Example:
    >>> place().type in ("cpu", "cuda")
    True
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from recipelang.backend import Device

if TYPE_CHECKING:
    from recipelang_torch.models import Decoder

__all__ = ["devices", "place", "positions_at_once", "repeatable", "rows_at_once"]

_CPU_ROOM = 4 << 30
_CPU_LOGITS = 24 << 20
_GPU_LOGITS = 512 << 20
"""Bytes for activations on a CPU, and for a chunk of float32 logits on a CPU and a GPU."""
_TRAINED_HEAD = 512


def place() -> torch.device:
    """The device that models are brought to."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def devices() -> tuple[Device, ...]:
    """The first CUDA device if there is one, and the CPU with the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [Device("cpu", "cpu", memory)]
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found.insert(0, Device("gpu", properties.name, properties.total_memory))
    return tuple(found)


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """The same bits from the same inputs, so that a resumed run equals an undisturbed one.

    On a CPU torch's operations used here are so already. On CUDA, kernels that add in any order are
    replaced, and torch warns of one that cannot be; the setting is the process's, and is put back.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def rows_at_once(
    model: Decoder, length: int, recompute: bool = False, backward: bool = True
) -> int:
    """How many rows of a batch pass through the model together: what fits, by an estimate, in
    memory.

    A layer keeps about 14 vectors of the hidden size and 5 of the inner size for each token until
    the gradient has passed; with recomputation, or without gradients, one layer's and the layers'
    inputs.
    """
    config = model.module.config
    hidden = int(getattr(config, "hidden_size", 1024))
    inner = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
    layers = int(getattr(config, "num_hidden_layers", 1))
    kept = 14 * hidden + 5 * inner
    token = kept + layers * hidden if recompute or not backward else layers * kept
    room = (
        _CPU_ROOM if model.device.type == "cpu" else torch.cuda.mem_get_info(model.device)[0] // 3
    )
    return max(1, room // (token * length * model.dtype.itemsize))


def positions_at_once(model: Decoder) -> int:
    """How many positions' logits exist together: on a CPU few enough to stay near the cache, but
    not so few that a gradient of the whole output matrix, made for each chunk, would cost more."""
    weight: torch.Tensor = model.module.get_output_embeddings().weight
    room = _CPU_LOGITS if model.device.type == "cpu" else _GPU_LOGITS
    return max(_TRAINED_HEAD if weight.requires_grad else 16, room // (4 * weight.shape[0]))
