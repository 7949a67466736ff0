"""Sources: opened where they are, never copied. Their content id is their step id, which holds the
revision or the digest of their files.

Example: ``open_source(session, node)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recipelang.diagnostics import fault
from recipelang.ir.graph import Node
from recipelang.run.session import Session
from recipelang.run.values import AdapterValue, ModelValue, RuntimeValue, TokenizerValue
from recipelang.types import ModelType
from recipelang.weights.checkpoint import Checkpoint

__all__ = ["open_initial", "open_source"]


def open_source(session: Session, node: Node) -> RuntimeValue:
    """The value of a source. Raises RecipeError of band E07."""
    artifact = session.ids[node]
    if node.op == "tokenizer":
        return TokenizerValue(_tokenizer_files(session, node), artifact)
    opened = _open(session, node)
    return AdapterValue(opened, artifact) if node.op == "adapter" else ModelValue(opened, artifact)


def _open(session: Session, node: Node) -> Checkpoint:
    folder = session.view.folder
    uri, revision = str(node.attr("uri")), node.attr("revision")
    commit = revision if isinstance(revision, str) else None
    match node.op:
        case "model":
            from recipelang.weights.folder import Folder
            from recipelang.weights.metadata import open_model

            dtype = node.attr("dtype")
            wanted = dtype if isinstance(dtype, str) else None
            opened = open_model(uri, commit, dtype=wanted, folder=folder)
            if isinstance(opened, Folder):
                return opened.with_digests(session.view.tensors_of)
            return opened
        case "adapter":
            from recipelang.weights.adapter import open_adapter

            return open_adapter(uri, commit, folder=folder)
        case _:
            raise fault("E0901", f"`{node.op}` is a source that recipelang cannot open")


def open_initial(session: Session, node: Node) -> Checkpoint:
    """The model that `init` draws; its tokenizer is open."""
    from recipelang.weights.initial import InitialModel

    tokenizer = node.one("tokenizer")
    files: Mapping[str, Path | bytes] = {}
    if tokenizer is not None:
        found = session.values[tokenizer]
        assert isinstance(found, TokenizerValue)
        files = dict(found.files)
    assert isinstance(node.type, ModelType)
    return InitialModel(node.type, session.step(node).draws or "", files)


def _tokenizer_files(session: Session, node: Node) -> dict[str, bytes]:
    """tokenizer.json and what belongs to it, from a folder, a file or a GGUF."""
    from recipelang.sources import locate

    place = locate(str(node.attr("uri")), None, folder=session.view.folder)
    if place is None:
        raise fault("E0723", f"`{node.attr('uri')}` is not on this machine")
    if place.path.suffix == ".gguf":
        from recipelang.weights.gguf import GgufModel

        found: Mapping[str, Path | bytes] = GgufModel.open(place.path, "BF16").files
    elif place.path.is_file():
        found = {"tokenizer.json": place.path}
    else:
        names = (
            "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
            "added_tokens.json", "chat_template.jinja", "generation_config.json",
        )  # fmt: skip
        found = {n: place.path / n for n in names if (place.path / n).is_file()}
    files = {n: f if isinstance(f, bytes) else f.read_bytes() for n, f in found.items()}
    if "tokenizer.json" not in files:
        help = "name the folder or the file of a tokenizer in the `tokenizers` format"
        raise fault("E0734", f"`{place.path}` has no `tokenizer.json`", help=help)
    return files
