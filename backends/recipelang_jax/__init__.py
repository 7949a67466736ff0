"""recipelang on JAX: a native decoder that trains, scores and decodes Hugging Face checkpoints.

Neither torch nor transformers is imported. What the decoder does not compute exactly it refuses by
name. A persistent compilation cache is used only where the environment names its folder
(``JAX_COMPILATION_CACHE_DIR``, which JAX itself reads).

Example:
    >>> backend().isolates_documents({"model_type": "llama"})
    True
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax

from recipelang.backend import (
    Backend,
    Device,
    LoadedModel,
    Precision,
    Progress,
    Trained,
    TrainingJob,
)
from recipelang.diagnostics import RecipeError, fault
from recipelang.types import TensorInfo
from recipelang.weights.checkpoint import Checkpoint
from recipelang_jax.decode import Model
from recipelang_jax.loop import run
from recipelang_jax.probe import require_sound
from recipelang_jax.shard import Placement
from recipelang_jax.spec import Unsupported, check_tensors, make_spec
from recipelang_jax.weights import WeightArrays

__all__ = ["backend"]


@dataclass(frozen=True, slots=True)
class JaxBackend:
    """The JAX implementation of :class:`recipelang.backend.Backend`."""

    name: str = "jax"

    @property
    def version(self) -> str:
        """``jax 0.10.2``."""
        return f"jax {jax.__version__}"

    def devices(self) -> tuple[Device, ...]:
        """The devices of JAX's default platform."""
        return tuple(_device(device) for device in jax.devices())

    def refuse(self, config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> str | None:
        """Why the model cannot run here, naming the part, or None."""
        try:
            check_tensors(make_spec(config), tensors)
        except Unsupported as reason:
            return f"it does not know {reason} (`--backend torch` may)"
        return None

    def isolates_documents(self, config: Mapping[str, object]) -> bool:
        """Always: attention stays inside a segment, and nothing else mixes positions."""
        return True

    def load(self, model: Checkpoint, precision: Precision) -> LoadedModel:
        """Bring a model into memory. Raises RecipeError E0803 for what :meth:`refuse` names,
        E0805 where the device computes wrong numbers."""
        self._require(model)
        require_sound()
        try:
            return Model(Placement.all_devices(), model, precision)
        except Unsupported as reason:
            raise _refused(str(reason)) from reason

    def train(self, job: TrainingJob, report: Callable[[Progress], None]) -> Trained:
        """Carry a job out. Raises RecipeError E0803 for what :meth:`refuse` names,
        E0804 for another run's state, E0805 where the device computes wrong numbers, E0806 without
        memory, E0851 and E0852 for the disk."""
        for model in (job.model, *job.teachers):
            self._require(model)
        require_sound()
        try:
            return run(Placement.all_devices(), job, report)
        except Unsupported as reason:
            raise _refused(str(reason)) from reason
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise fault(
                "E0806", "the device ran out of memory in training",
                help="set `micro_batch` to fewer rows or `recompute = true`, or shorten `length`",
            ) from error  # fmt: skip

    def arrays(self) -> WeightArrays:
        """Arrays of the first device of JAX's default platform."""
        return WeightArrays(jax.devices()[0])

    def _require(self, model: Checkpoint) -> None:
        try:
            check_tensors(make_spec(model.config), model.tensors)
        except Unsupported as reason:
            raise _refused(str(reason)) from reason


def _refused(reason: str) -> RecipeError:
    return fault(
        "E0803",
        f"the JAX backend does not know {reason}",
        help="run this step with `--backend torch`",
    )


def _device(device: jax.Device) -> Device:
    kind = "gpu" if device.platform in ("gpu", "cuda", "rocm") else device.platform
    if kind == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        memory = int((device.memory_stats() or {}).get("bytes_limit", 0))
    return Device(kind, device.device_kind, memory)


def backend() -> Backend:
    """The backend object."""
    return JaxBackend()
