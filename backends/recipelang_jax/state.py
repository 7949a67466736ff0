"""A run's trees as named tensors, for the state on disk, and back.

Example:
    >>> sorted(named({"first": {"a": zeros, "b": zeros}}))  # doctest: +SKIP
    ['first/a', 'first/b']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from numpy.typing import NDArray

from recipelang_jax.arrays import Tree

__all__ = ["named", "shaped"]


def named(trees: Mapping[str, Tree]) -> dict[str, Any]:
    """Path -> leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(trees))
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def shaped(like: Mapping[str, Tree], tensors: Mapping[str, NDArray[Any]]) -> dict[str, Tree]:
    """The trees again, of the structure of ``like``, from what :func:`named` names."""
    structure = jax.tree_util.tree_structure(dict(like))
    trees: dict[str, Tree] = jax.tree_util.tree_unflatten(
        structure, [tensors[name] for name in named(like)]
    )
    return trees
