"""A run's state on disk: one safetensors file, replaced as a whole.

The tensors are the leaves of the given trees, named by their path; the record is JSON in the file's
metadata. The file is written beside its place, synced and renamed, so a reader sees the state of
before or of after, never a half.

Example:
    >>> save(folder, {"trained": tree}, {"step": 3})
    >>> trees, record = load(folder, {"trained": tree})
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recipelang.diagnostics import fault
from recipelang.store.files import write_file
from recipelang_jax.arrays import Tree

__all__ = ["load", "save"]

FILE = "state.safetensors"


def _named(trees: Mapping[str, Tree]) -> tuple[dict[str, Any], Any]:
    """Path -> leaf, and the trees' structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(dict(trees))
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}, structure


def save(folder: Path, trees: Mapping[str, Tree], record: Mapping[str, object]) -> None:
    """Write the state. Raises RecipeError E0851, E0852 where the disk refuses."""
    from safetensors.numpy import save as to_bytes

    leaves = {name: np.ascontiguousarray(leaf) for name, leaf in _named(trees)[0].items()}
    write_file(folder / FILE, to_bytes(leaves, {"record": json.dumps(record)}), folder)


def load(folder: Path, like: Mapping[str, Tree]) -> tuple[dict[str, Tree], Any] | None:
    """The trees (as numpy, shaped as ``like``) and the record, or None when there is no state.

    Raises RecipeError E0804 when the file holds the state of another job.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.exists():
        return None
    expected, structure = _named(like)
    try:
        with safe_open(path, framework="numpy") as file:
            if set(file.keys()) != set(expected):
                raise _other(path)
            leaves = {name: file.get_tensor(name) for name in expected}
            record = json.loads(file.metadata()["record"])
    except (SafetensorError, ValueError) as error:
        raise _other(path) from error
    for name, leaf in expected.items():
        if leaves[name].shape != leaf.shape or leaves[name].dtype != leaf.dtype:
            raise _other(path)
    return jax.tree_util.tree_unflatten(structure, list(leaves.values())), record


def _other(path: Path) -> Exception:
    return fault(
        "E0804", f"`{path}` is damaged or holds the state of another training run",
        help="remove that folder to start this step again from its beginning",
    )  # fmt: skip
