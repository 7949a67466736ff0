"""recipelang on torch: any causal language model that transformers has a class for.

No model is fetched, no code of a repository is run, and the process's number of threads stays as it
is.

Example:
    >>> backend().name
    'torch'
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import transformers

from recipelang import memory
from recipelang.backend import (
    Backend,
    Device,
    LoadedModel,
    Precision,
    Progress,
    Trained,
    TrainingJob,
)
from recipelang.types import TensorInfo
from recipelang.weights.checkpoint import Checkpoint
from recipelang_torch import loop, models, shard
from recipelang_torch.decode import Model
from recipelang_torch.weights import WeightArrays

__all__ = ["backend"]


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """The torch implementation of :class:`recipelang.backend.Backend`."""

    name: str = "torch"

    @property
    def version(self) -> str:
        """``torch 2.13.0, transformers 5.23.0``."""
        return f"torch {torch.__version__}, transformers {transformers.__version__}"

    def devices(self) -> tuple[Device, ...]:
        """The first CUDA device if there is one, and the CPU."""
        return shard.devices()

    def refuse(self, config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> str | None:
        """Why the model cannot run here, naming the part, or None."""
        try:
            models.trial(config, tensors)
        except models.Unsupported as reason:
            return f"the torch backend does not know {reason}"
        return None

    def isolates_documents(self, config: Mapping[str, object]) -> bool:
        """Whether packed documents do not see each other, by a probe; the answer is kept."""
        return models.isolates(config)

    def load(self, model: Checkpoint, precision: Precision) -> LoadedModel:
        """Bring a model into memory. Raises RecipeError E0803, E07."""
        together = models.isolates(model.config)
        return Model(models.load(model, precision, shard.place()), together)

    def train(self, job: TrainingJob, report: Callable[[Progress], None]) -> Trained:
        """Carry the job out. Raises RecipeError E0803, E0804, E0806, E0851, E0852, E07."""
        return loop.run(job, report, shard.place())

    def arrays(self) -> WeightArrays:
        """Tensors of the device that models are brought to."""
        return WeightArrays(shard.place())


def backend() -> Backend:
    """The backend object."""
    if shard.place().type == "cpu":
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch looks at its first allocation
        memory.keep()
    return TorchBackend()
