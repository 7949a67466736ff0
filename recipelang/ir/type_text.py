"""Types in one short text: ``Model<llama 113.3M bf16>``, ``Dataset<chat 120 rows 128 tokens>``.

The text is a summary, made to be read. Parsing one gives a type that knows what the text says and
nothing more, and that prints the same.

Example:
    >>> show_type(parse_type("Model<llama 113.3M bf16>"))
    'Model<llama 113.3M bf16>'
"""

from __future__ import annotations

import re
from itertools import pairwise

from recipelang.types import (
    DTYPE_NAMES,
    AdapterType,
    DatasetType,
    DeltaType,
    LayersType,
    ListType,
    MeasuredType,
    ModelType,
    ScalarType,
    SplitType,
    TableType,
    TensorInfo,
    TokenizerType,
    Type,
    type_name,
)

__all__ = ["count_text", "parse_type", "show_type"]

SCALARS = frozenset(
    [
        "Int",
        "Float",
        "Fraction",
        "Text",
        "Bool",
        "Tokens",
        "Steps",
        "Epochs",
        "Examples",
        "Duration",
        "Bytes",
        "Devices",
        "Secret",
    ]
)
SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
COUNT = re.compile(r"(\d+(?:\.\d+)?)([kMBT]?)")
TYPE = re.compile(r"(\w+)(?:<([^<>]*)>)?")


def count_text(value: int) -> str:
    """A count in at most four digits: ``113.3M``, ``1.5B``, ``999``."""
    for suffix, scale in reversed(SUFFIXES.items()):
        if suffix and value >= scale:
            text = f"{value / scale:.1f}".removesuffix(".0")
            return f"{text}{suffix}"
    return str(value)


def show_type(type_: Type | None) -> str:
    """The type as the graph's text has it; ``?`` where it is unknown."""
    match type_:
        case None:
            return "?"
        case ModelType():
            return _with("Model", _model_words(type_))
        case DeltaType(of=model):
            return _with("Delta", _model_words(model)[:2])
        case LayersType(of=model, count=count):
            words = [] if count is None else [str(count), "layers"]
            return _with("Layers", words + _model_words(model))
        case DatasetType():
            return _with("Dataset", _dataset_words(type_))
        case SplitType(of=dataset):
            return _with("Split", _dataset_words(dataset))
        case TokenizerType(digest=digest):
            return _with("Tokenizer", [digest[:12]])
        case MeasuredType(direction=direction):
            return f"Measured<{direction}>"
        case ListType(item=item):
            return f"List[{show_type(item)}]" if item else "List"
        case _:
            return type_name(type_)


def _with(head: str, words: list[str]) -> str:
    return f"{head}<{' '.join(words)}>" if words else head


def _model_words(model: ModelType) -> list[str]:
    words: list[str] = []
    if model.architecture:
        words.append(model.architecture)
    if model.parameters is not None:
        words.append(count_text(model.parameters))
    if model.dtype:
        words.append(model.dtype.lower())
    return words


def _dataset_words(dataset: DatasetType) -> list[str]:
    words = [dataset.format] if dataset.format else []
    if dataset.rows is not None:
        words += [str(dataset.rows), "rows"]
    if dataset.length is not None:
        words += [str(dataset.length), "tokens"]
    return words


def parse_type(text: str) -> Type | None:
    """The type that a text of :func:`show_type` says. Raises ValueError on anything else."""
    if text == "?":
        return None
    if text.startswith("List[") and text.endswith("]"):
        return ListType(parse_type(text[5:-1]))
    found = TYPE.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is not a type")
    head, words = found[1], (found[2] or "").split()
    match head:
        case "Model":
            return _model(words)
        case "Delta":
            return DeltaType(_model(words))
        case "Layers":
            counted = words[1:2] == ["layers"]
            return LayersType(
                _model(words[2:] if counted else words), int(words[0]) if counted else None
            )
        case "Dataset":
            return _dataset(words)
        case "Split":
            return SplitType(_dataset(words))
        case "Tokenizer":
            return TokenizerType(words[0] if words else "", "")
        case "Measured":
            return MeasuredType(*words)
        case _:
            return _plain(head)


def _plain(head: str) -> Type:
    match head:
        case "Adapter":
            return AdapterType()
        case "Table":
            return TableType()
        case "List":
            return ListType(None)
        case _ if head in SCALARS:
            return ScalarType(head)
        case _:
            raise ValueError(f"there is no type `{head}`")


def _model(words: list[str]) -> ModelType:
    """A model with one tensor as large as the text says, in the dtype it says."""
    config: dict[str, object] | None = None
    elements: int | None = None
    dtype = "BF16"
    for word in words:
        count = COUNT.fullmatch(word)
        if count:
            elements = round(float(count[1]) * SUFFIXES[count[2]])
        elif word in DTYPE_NAMES or word.isupper():
            dtype = DTYPE_NAMES.get(word, word)
        else:
            config = {"model_type": word}
    return ModelType(config, None if elements is None else {"*": TensorInfo(dtype, (elements,))})


def _dataset(words: list[str]) -> DatasetType:
    counts = {unit: int(n) for n, unit in pairwise(words) if n.isdigit()}
    format_ = words[0] if words and not words[0].isdigit() else None
    return DatasetType(None, format_, counts.get("rows"), counts.get("tokens"))
