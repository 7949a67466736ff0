"""Types of the recipe language: what is known of a value before anything runs.

A :class:`ModelType` carries the model's configuration, its table of tensors and its tokenizer's
identity, read from headers alone; None means that the metadata is not on this machine yet
(an ``hf:`` source that was not fetched), and rules that need it then say nothing.

No array library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

__all__ = [
    "AdapterType",
    "DatasetType",
    "DeltaType",
    "LayersType",
    "ListType",
    "MeasuredType",
    "ModelType",
    "ScalarType",
    "SplitType",
    "TableType",
    "TensorInfo",
    "TokenizerType",
    "Type",
    "is_partial",
    "layers_key",
    "type_name",
]

DTYPE_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8,
}  # fmt: skip
"""Bytes an element, by the dtype names of safetensors."""

DTYPE_NAMES: Mapping[str, str] = {
    "f64": "F64", "f32": "F32", "bf16": "BF16", "f16": "F16",
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16",
}  # fmt: skip
"""The dtype names a recipe may write, and the safetensors name of each."""


LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers")
"""What configurations call the number of layers: most of them, GPT-2 and BLOOM, MPT and
DistilBERT."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of a model's table. ``dtype`` is the safetensors name, such as ``BF16``."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """The number of bytes of the stored tensor."""
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class TokenizerType:
    """A tokenizer, by identity.

    ``digest`` is a sha256 over the file's bytes (``tokenizer.json``) or, in a GGUF file, over its
    tokenizer fields. Equal digests mean equal tokenizers; different ones are compared by parsing
    both ``path`` s, which happens only then. ``path`` is a ``tokenizer.json`` or a ``.gguf`` file.
    ``added`` are tokens behind those of the file, with the ids that follow its highest one: those
    of a union of vocabularies that no file holds yet. ``content`` is a ``tokenizer.json`` that is
    no file: what a GGUF file's tokenizer was written as.
    """

    digest: str
    path: str
    added: tuple[str, ...] = ()
    content: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Remark:
    """What the reader of a source's files warns of: the parts of a diagnostic."""

    code: str
    message: str
    help: str = ""


@dataclass(frozen=True, eq=False)
class ModelType:
    """A model. ``config`` is config.json as parsed; ``tensors`` maps names to infos, in name order.

    ``chat_template`` is the Jinja text or None. ``remarks`` are of a source's files, not of what is
    made of them.
    """

    config: Mapping[str, object] | None = None
    tensors: Mapping[str, TensorInfo] | None = None
    tokenizer: TokenizerType | None = None
    chat_template: str | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def parameters(self) -> int | None:
        """The number of parameters, if the tensor table is known."""
        return None if self.tensors is None else sum(t.elements for t in self.tensors.values())

    @property
    def dtype(self) -> str | None:
        """The dtype that holds most parameters (a safetensors name)."""
        if not self.tensors:
            return None
        weights: dict[str, int] = {}
        for info in self.tensors.values():
            weights[info.dtype] = weights.get(info.dtype, 0) + info.elements
        return max(sorted(weights), key=lambda name: weights[name])

    @property
    def bytes(self) -> int | None:
        """The stored size in bytes."""
        return None if self.tensors is None else sum(t.bytes for t in self.tensors.values())

    @property
    def layers(self) -> int | None:
        """``num_hidden_layers`` of the configuration, or what its architecture calls so."""
        value = (self.config or {}).get(layers_key(self.config or {}))
        return value if isinstance(value, int) else None

    @property
    def architecture(self) -> str | None:
        """``model_type`` of the configuration, such as ``llama``."""
        value = (self.config or {}).get("model_type")
        return value if isinstance(value, str) else None


def layers_key(config: Mapping[str, object]) -> str:
    """The key of a configuration that holds the number of layers.

    >>> layers_key({"n_layer": 12}), layers_key({"num_hidden_layers": 12})
    ('n_layer', 'num_hidden_layers')
    """
    return next((key for key in LAYER_COUNTS if key in config), LAYER_COUNTS[0])


@dataclass(frozen=True, eq=False)
class AdapterType:
    """A low-rank adapter: PEFT's configuration and tensors; ``base`` is what it fits, if known. The
    tokenizer and the template are those of its folder, if it has any."""

    config: Mapping[str, object] | None = None
    tensors: Mapping[str, TensorInfo] | None = None
    base: ModelType | None = None
    tokenizer: TokenizerType | None = None
    chat_template: str | None = None


@dataclass(frozen=True, eq=False)
class DeltaType:
    """A difference of two models of one shape, in float32. ``of`` is the type of the models."""

    of: ModelType = field(default_factory=ModelType)


@dataclass(frozen=True, eq=False)
class LayersType:
    """A range of layers of a model. ``of`` is the type of the model that has just these layers,
    numbered from 0, with the tensors outside the layers beside them; ``count`` is how many layers
    there are, known also where the model is not."""

    of: ModelType = field(default_factory=ModelType)
    count: int | None = None


@dataclass(frozen=True, eq=False)
class DatasetType:
    """A dataset.

    ``columns`` come from the first 1,000 rows; ``format`` is one of ``text prompt-completion chat
    preference labelled prompts``; ``rows`` is the exact count if known; ``length`` is the window in
    tokens that the dataset asks for, if any. ``bytes`` is about how much text there is (the size of
    the file), for estimates; ``take_tokens`` is the number of tokens that the dataset is cut to, if
    any; ``template`` says whether it brings its own chat template.
    """

    columns: tuple[str, ...] | None = None
    format: str | None = None
    rows: int | None = None
    length: int | None = None
    bytes: int | None = None
    take_tokens: int | None = None
    template: bool = False


@dataclass(frozen=True, eq=False)
class SplitType:
    """Two disjoint parts of a dataset, reached as ``.train`` and ``.holdout``."""

    of: DatasetType = field(default_factory=DatasetType)


@dataclass(frozen=True, slots=True)
class MeasuredType:
    """A number that only a run knows. ``direction`` is ``min`` or ``max``: which way is better."""

    direction: str = "min"


@dataclass(frozen=True, slots=True)
class TableType:
    """What ``evaluate`` gives: models by datasets, with samples."""


@dataclass(frozen=True, slots=True)
class ListType:
    """``List[T]``. An empty list has the item type None."""

    item: Type | None


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A number, word or switch.

    ``Int Float Fraction Text Bool Tokens Steps Epochs Examples Duration Bytes Devices Secret``.
    """

    name: str


Type: TypeAlias = (
    ModelType
    | AdapterType
    | DeltaType
    | LayersType
    | DatasetType
    | SplitType
    | TokenizerType
    | MeasuredType
    | TableType
    | ListType
    | ScalarType
)


def is_partial(type_: Type | None) -> bool:
    """Whether the value is made of weights and is no model: a delta, or layers. Steps outside its
    region compute it again instead of reading it."""
    return isinstance(type_, DeltaType | LayersType)


def type_name(type_: Type | None) -> str:
    """The name that a recipe writes for the type: ``Model``, ``List[Model]``, ``Float``."""
    match type_:
        case None:
            return "unknown"
        case ListType(item=item):
            return f"List[{type_name(item)}]" if item else "List"
        case ScalarType(name=name):
            return name
        case _:
            return type(type_).__name__.removesuffix("Type")
