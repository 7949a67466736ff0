"""A readable model: configuration, tensors, files. Every source of weights looks like this.

Implementations: a Hugging Face folder, a GGUF file, a stored artifact, a model with an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recipelang.types import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Checkpoint"]


class Checkpoint(Protocol):
    """A model on disk, read tensor by tensor."""

    @property
    def config(self) -> Mapping[str, object]:
        """config.json, parsed."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name -> dtype (safetensors name) and shape, in name order, Hugging Face names."""
        ...

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """Auxiliary files by name (tokenizer.json, tokenizer_config.json, generation_config.json,
        chat_template.jinja, ...), as paths or contents. config.json is not among them."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)`` of the flattened tensor, 1-D, in the stored dtype (bf16 as
        ``ml_dtypes.bfloat16``). The array may be a read-only view of a mapped file.

        Raises RecipeError (band E07) when the bytes cannot be read.
        """
        ...

    def release(self, name: str) -> None:
        """Say that the tensor's pages are not needed any more (so that mapped pages do not pile
        up)."""
        ...
