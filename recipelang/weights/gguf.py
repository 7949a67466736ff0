"""A model in a GGUF file, as a checkpoint with Hugging Face names, shapes and row order.

Tensors are dequantised block by block when they are read (through the ``gguf`` package where they
are quantised) and rounded to ``dtype``, bf16 by default.

Example:
    >>> model = GgufModel.open(Path("SmolLM2-135M-Instruct.Q4_1.gguf"))      # doctest: +SKIP
    >>> model.tensors["model.norm.weight"]                                   # doctest: +SKIP
    TensorInfo(dtype='BF16', shape=(576,))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import fault
from recipelang.types import TensorInfo
from recipelang.weights.config import set_dtype
from recipelang.weights.gguf_config import config_of
from recipelang.weights.gguf_header import GgufHeader, GgufTensor, read_gguf
from recipelang.weights.gguf_names import hugging_face_name, is_interleaved
from recipelang.weights.gguf_tokenizer import tokenizer_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GgufModel"]

IGNORED = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd\.weight|.*\.rope_freqs\.weight")
DEQUANTISED_AT_A_TIME = 1 << 17
"""Elements: what is made of them stays in cache."""
PLAIN = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F64"}


@dataclass(frozen=True, eq=False)
class GgufModel:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over a GGUF file. Open it with
    :meth:`open`."""

    header: GgufHeader
    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    places: Mapping[str, str]

    @classmethod
    def open(cls, path: Path, dtype: str = "BF16") -> GgufModel:
        """Read the header. ``dtype`` (a safetensors name) is what tensors are rounded to.

        Raises RecipeError E0730 (damage) or E0731 (an architecture, tensor or quantisation not
        known).
        """
        header = read_gguf(path)
        config = set_dtype(config_of(header), dtype)
        tensors: dict[str, TensorInfo] = {}
        places: dict[str, str] = {}
        for name, tensor in header.tensors.items():
            target = hugging_face_name(name)
            if target is None:
                if IGNORED.fullmatch(name):
                    continue
                raise fault(
                    "E0731", f"`{path}` has the tensor `{name}`, which is not read from GGUF"
                )
            tensors[target], places[target] = TensorInfo(dtype, tensor.shape), name
        return cls(header, config, dict(sorted(tensors.items())), places)

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """Tokenizer files, built from the header's fields when first asked for."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Mapping[str, Path | bytes]:
        return dict(tokenizer_files(self.header))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``, dequantised and rounded. Raises RecipeError E0732 without
        ``gguf``."""
        from recipelang.weights.numbers import narrow

        info = self.tensors[name]
        tensor = self.header.tensors[self.places[name]]
        stop = info.elements if stop is None else stop
        columns = info.shape[-1]
        first, last = start // columns, -(-stop // columns)
        rows = self._rows(self.places[name], tensor, first, last)
        values = narrow(rows.reshape(-1), info.dtype)
        return values[start - first * columns : stop - first * columns]

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""

    def _rows(self, name: str, tensor: GgufTensor, first: int, last: int) -> NDArray[np.floating]:
        """Rows ``[first, last)`` in Hugging Face order, float32 (float64 for F64), 2-D."""
        import numpy as np

        from recipelang.weights.rawread import read_bytes

        interleaved = is_interleaved(str(self.config["model_type"]), name)
        row_bytes = tensor.shape[-1] // tensor.block_elements * tensor.block_bytes
        if len(tensor.shape) == 1 and interleaved:
            row_bytes, count = row_bytes // tensor.shape[0], tensor.shape[0]
            rows = self._gather(tensor, self._order(name, np.arange(count)), row_bytes)
            return _dequantise(tensor.kind, rows).reshape(1, -1)
        if interleaved:
            return _dequantise(
                tensor.kind,
                self._gather(tensor, self._order(name, np.arange(first, last)), row_bytes),
            )
        raw = np.empty((last - first, row_bytes), np.uint8)
        read_bytes(self.header.path, tensor.start + first * row_bytes, raw.reshape(-1))
        return _dequantise(tensor.kind, raw)

    def _order(self, name: str, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where the file keeps these rows: half ``p``, pair ``j`` of a head is stored at ``2 j +
        p``."""
        dim = self.config["head_dim"]
        assert isinstance(dim, int)
        head, within = rows // dim, rows % dim
        half, pair = within // (dim // 2), within % (dim // 2)
        return head * dim + 2 * pair + half

    def _gather(
        self, tensor: GgufTensor, rows: NDArray[np.intp], row_bytes: int
    ) -> NDArray[np.uint8]:
        """The stored bytes of these rows, (rows, row_bytes), read as one range."""
        import numpy as np

        from recipelang.weights.rawread import read_bytes

        low, high = int(rows.min()), int(rows.max()) + 1
        raw = np.empty((high - low, row_bytes), np.uint8)
        read_bytes(self.header.path, tensor.start + low * row_bytes, raw.reshape(-1))
        return raw[rows - low]


def _dequantise(kind: str, raw: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Stored rows (rows, bytes) as float32, or float64 for F64."""
    import numpy as np

    from recipelang.weights.numbers import numpy_dtype, widen

    if kind in PLAIN:
        stored = raw.view(numpy_dtype(kind))
        return widen(stored, np.dtype(np.float64 if kind == "F64" else np.float32))
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise fault(
            "E0732", f"reading {kind} weights needs the package `gguf`",
            help="install it: `pip install 'recipelang[gguf]'`",
        ) from None  # fmt: skip
    quantised = GGMLQuantizationType[kind]
    elements, size = GGML_QUANT_SIZES[quantised]
    blocks = raw.reshape(-1, size)
    values = np.empty((len(blocks), elements), np.float32)
    # The package cuts what it is given into groups of 16 rows: these are one long row.
    step = max(1, DEQUANTISED_AT_A_TIME // elements)
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            part = blocks[start : start + step]
            values[start : start + step].reshape(-1)[:] = dequantize(part.reshape(1, -1), quantised)
    return values.reshape(len(raw), -1)
