"""A training run's state on disk: one safetensors file, replaced in one stroke, never a pickle.

The tensors are what the optimiser names; the metadata holds the number of steps done and the
history as JSON, whose numbers read back to the same bits.

Example:
    >>> save(folder, State({"w": torch.ones(2)}, ()))  # doctest: +SKIP
    >>> read(folder).tensors["w"].tolist()             # doctest: +SKIP
    [1.0, 1.0]
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recipelang.backend import Progress
from recipelang.diagnostics import RecipeError, fault

__all__ = ["State", "misfit", "read", "save"]

_NAME = "torch-state.safetensors"
_FORMAT = "recipelang/torch-state/1"


@dataclass(frozen=True, eq=False)
class State:
    """``tensors`` as the optimiser names them; ``history`` has one entry a step done."""

    tensors: Mapping[str, torch.Tensor]
    history: tuple[Progress, ...]


def save(folder: Path, state: State) -> None:
    """Write the state; whoever reads sees the old one or the new one. Raises RecipeError E0852 on a
    full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    history = json.dumps([astuple(entry) for entry in state.history])
    temporary = folder / f".{_NAME}.{os.getpid()}"
    try:
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
        save_file(tensors, temporary, metadata={"format": _FORMAT, "history": history})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, folder / _NAME)
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
    except (OSError, SafetensorError) as error:
        raise fault(
            "E0852", f"the training state could not be written to `{folder}`: {error}",
            help="make room and run again; the run goes on from the state before",
        ) from error  # fmt: skip
    finally:
        temporary.unlink(missing_ok=True)


def read(folder: Path) -> State | None:
    """The folder's state, or None where there is none. Raises RecipeError E0804 for a damaged
    one."""
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is `{metadata.get('format')}`")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        history = tuple(Progress(*entry) for entry in json.loads(metadata["history"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise misfit(folder, str(error)) from error
    return State(tensors, history)


def misfit(folder: Path, reason: str) -> RecipeError:
    """The diagnostic for a state that this run cannot go on from."""
    return fault(
        "E0804", f"the training state in `{folder}` does not fit this run: {reason}",
        help="remove that folder to start this step again",
    )  # fmt: skip
