"""A training run's state on disk: one safetensors file, replaced in one stroke, never a pickle.

The tensors are named by the backend; the history is JSON in the file's metadata, whose numbers read
back to the same bits. Whoever reads sees the state of before or of after.

Example:
    >>> write_state(folder, "torch", {"w": array}, history)                    # doctest: +SKIP
    >>> tensors, history = read_state(folder, "torch", {"w": TensorInfo(...)}) # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from recipelang.backend import Progress
from recipelang.diagnostics import RecipeError, fault
from recipelang.store.files import ensure_folder, move_in, translated
from recipelang.types import TensorInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["STATE_FILE", "read_state", "write_state"]

STATE_FILE = "state.safetensors"
FORMAT = "recipelang/training-state/1"


def write_state(
    folder: Path, backend: str, tensors: Mapping[str, NDArray[Any]], history: Sequence[Progress]
) -> None:
    """Replace the folder's state; ``history`` has one entry a step done.

    Raises RecipeError E0851, E0852 where the disk refuses.
    """
    import numpy as np
    from safetensors import SafetensorError, numpy

    save = cast("Any", numpy.save_file)  # its types are partly unknown to the checkers
    steps = json.dumps([astuple(entry) for entry in history])
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    ensure_folder(folder)
    beside = folder / f".{os.getpid()}-{STATE_FILE}"
    try:
        with translated(folder):
            save(whole, beside, {"format": FORMAT, "backend": backend, "history": steps})
        move_in(beside, folder / STATE_FILE)
    except SafetensorError as error:
        raise fault(
            "E0852", f"the training state could not be written to `{folder}`: {error}",
            help="make room and run again; the run goes on from the state before",
        ) from error  # fmt: skip
    finally:
        beside.unlink(missing_ok=True)


def read_state(
    folder: Path, backend: str, expected: Mapping[str, TensorInfo]
) -> tuple[dict[str, NDArray[Any]], tuple[Progress, ...]] | None:
    """The tensors and the history, or None where there is no state.

    Raises RecipeError E0804 for a damaged state, another backend's, and one of other tensors.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE_FILE
    if not path.exists():
        return None
    opened = cast("Any", safe_open)  # its types are unknown to the checkers
    try:
        with opened(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            found = (metadata.get("format"), metadata.get("backend"))
            if found != (FORMAT, backend):
                raise ValueError(f"it is `{found[0]}` of the backend `{found[1]}`")
            _check(file, expected)
            tensors = {name: file.get_tensor(name) for name in expected}
        history = tuple(Progress(*entry) for entry in json.loads(metadata["history"]))
        if not history:
            raise ValueError("it has no history")
        return tensors, history
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _misfit(folder, str(error)) from error


def _check(file: Any, expected: Mapping[str, TensorInfo]) -> None:
    """Raises ValueError where the file's tensors are others."""
    for name in sorted(set(file.keys()) ^ set(expected)):
        raise ValueError(f"the tensor `{name}` is in one of them only")
    for name, info in expected.items():
        part = file.get_slice(name)
        if (part.get_dtype(), tuple(part.get_shape())) != (info.dtype, info.shape):
            raise ValueError(f"the tensor `{name}` has another shape or type")


def _misfit(folder: Path, reason: str) -> RecipeError:
    return fault(
        "E0804", f"the training state in `{folder}` does not fit this run: {reason}",
        help="remove that folder to start this step again from its beginning",
    )  # fmt: skip
