"""Where arrays live: on one device, or spread over all of them along one named axis.

Weights are split along the first axis of the checkpoint's shape that the number of devices divides
(fully sharded data parallelism, Zhao et al. 2023, arXiv 2304.11277), batches along their rows; XLA
inserts the collectives. On one device everything is simply put there.

Example:
    >>> placement = Placement.all_devices()
    >>> params = placement.weights(params)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from recipelang_jax.arrays import Array, Tree

__all__ = ["Placement"]

_spec: Any = PartitionSpec
_constraint: Any = jax.lax.with_sharding_constraint

AXIS = "shard"


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices of a job. ``mesh`` is None on a single device."""

    mesh: Mesh | None

    @staticmethod
    def all_devices() -> Placement:
        """Every device of the default platform."""
        devices = jax.devices()
        if len(devices) == 1:
            return Placement(None)
        return Placement(Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def devices(self) -> int:
        """How many devices; the rows of a micro-batch are a multiple of it."""
        return 1 if self.mesh is None else int(self.mesh.devices.size)

    def weights(self, tree: Tree) -> Tree:
        """A parameter or adapter tree on its devices; what hangs under ``layers`` has a leading
        layer axis."""
        if self.mesh is None:
            return jax.tree.map(jax.device_put, tree)

        def put(path: tuple[Any, ...], leaf: Any) -> Array:
            stacked = getattr(path[0], "key", None) == "layers"
            return jax.device_put(leaf, self._split(leaf.shape, int(stacked)))

        return jax.tree_util.tree_map_with_path(put, tree)

    def rows(self, tree: Tree) -> Tree:
        """A micro-batch: arrays whose first axis the devices divide are split along it, others
        repeated."""
        if self.mesh is None:
            return jax.tree.map(jax.device_put, tree)
        return jax.tree.map(lambda leaf: jax.device_put(leaf, self._split(leaf.shape[:1], 0)), tree)

    def constrain(self, x: Array) -> Array:
        """Keep the residual stream (B, S, H) split along its rows."""
        assert self.mesh is not None
        return _constraint(x, NamedSharding(self.mesh, _spec(AXIS)))

    def _split(self, shape: tuple[int, ...], first: int) -> NamedSharding:
        assert self.mesh is not None
        for axis in range(first, len(shape)):
            if shape[axis] and shape[axis] % self.devices == 0:
                return NamedSharding(self.mesh, _spec(*(None,) * axis, AXIS))
        return NamedSharding(self.mesh, _spec())
