"""A model in a Hugging Face folder: ``config.json``, safetensors (one file or shards), tokenizer
files.

Headers are read with the standard library; numpy is imported when a tensor is read. Nothing in the
folder is ever run: pickle weights and configurations that name code are refused.

Example:
    >>> model = Folder.open(Path("models/smollm2"))      # doctest: +SKIP
    >>> model.tensors["model.norm.weight"].shape         # doctest: +SKIP
    (576,)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import RecipeError, fault
from recipelang.types import TensorInfo
from recipelang.weights.config import check_config, is_tied
from recipelang.weights.safetensors import Entry, Header, read_header
from recipelang.weights.strict_json import as_object, parse_object, read_small, readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AUXILIARY", "Folder", "weight_files"]

AUXILIARY = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "generation_config.json", "chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip
"""Files that belong to a model beside its weights and configuration."""
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, eq=False)
class Folder:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over a folder. Open it with
    :meth:`open`."""

    path: Path
    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path | bytes]
    places: Mapping[str, tuple[Path, Entry]]

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Read configuration and headers. Raises RecipeError of band E07."""
        config = read_config(path)
        places = _places(path)
        if is_tied(config) and "model.embed_tokens.weight" in places:
            places.pop(
                "lm_head.weight", None
            )  # a second copy of the embedding, by the configuration
        tensors = {name: entry.info for name, (_, entry) in sorted(places.items())}
        files: dict[str, Path | bytes] = {n: path / n for n in AUXILIARY if (path / n).is_file()}
        return cls(path, config, tensors, files, places)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)`` of a tensor, in a fresh array. Raises RecipeError E0735."""
        from recipelang.weights.rawread import read_elements

        file, entry = self.places[name]
        return read_elements(file, entry, start, stop)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""


def read_config(path: Path) -> dict[str, object]:
    """config.json of a folder, checked. Raises RecipeError E0728, E0729."""
    file = path / "config.json"
    if not file.is_file():
        raise fault(
            "E0728", f"`{path}` has no `config.json`",
            help="name a folder in Hugging Face layout, or a `.gguf` file",
        )  # fmt: skip
    config = parse_object(read_small(file, "E0728"), str(file), "E0728")
    check_config(config, str(file))
    return config


def weight_files(path: Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder, checked to be plain files inside it, in name order.

    Raises RecipeError E0725 (an index that points elsewhere), E0727 (pickle weights only).
    """
    single, index = path / "model.safetensors", path / INDEX
    if index.exists():
        return tuple(_inside(path, name) for name in sorted(set(_index(index).values())))
    if single.exists():
        return (_inside(path, single.name),)
    _refuse_pickles(path)
    raise fault(
        "E0720", f"`{path}` holds no weights (`model.safetensors` or `{INDEX}`)",
        help="name a folder in Hugging Face layout, or a `.gguf` file",
    )  # fmt: skip


def _places(path: Path) -> dict[str, tuple[Path, Entry]]:
    places: dict[str, tuple[Path, Entry]] = {}
    headers = [read_header(file) for file in weight_files(path)]
    for header in headers:
        for name, entry in header.entries.items():
            if name in places:
                raise fault(
                    "E0726", f"the tensor `{readable(name)}` is defined twice, in "
                    f"`{places[name][0]}` and `{header.path}`",
                )  # fmt: skip
            places[name] = (header.path, entry)
    if (path / INDEX).exists():
        _check_index(path, headers)
    return dict(sorted(places.items()))


def _index(file: Path) -> dict[str, str]:
    document = parse_object(read_small(file, "E0725"), str(file), "E0725")
    written = as_object(document.get("weight_map"))
    table = {key: v for key, v in (written or {}).items() if isinstance(v, str)}
    if written is None or len(table) != len(written):
        raise fault("E0725", f"`{file}`: `weight_map` must map tensors to file names")
    for name in sorted(set(table.values())):
        bad = not name or name.startswith((".", "-")) or any(c in name for c in "/\\:\0")
        if bad or not name.isprintable():
            raise fault(
                "E0725",
                f'`{file}`: the shard name "{readable(name)}" must be a plain file name',
                help="shards lie beside the index; do not use this folder unless you trust its "
                "source",
            )
    return table


def _check_index(path: Path, headers: list[Header]) -> None:
    """The index and the shards say the same."""
    table = _index(path / INDEX)
    found = {name: header.path.name for header in headers for name in header.entries}
    for name in sorted(set(table) | set(found)):
        if table.get(name) == found.get(name):
            continue
        where = f"the index puts it in `{table[name]}`" if name in table else "the index lacks it"
        there = f"it is in `{found[name]}`" if name in found else "no shard has it"
        raise fault(
            "E0726", f"`{path / INDEX}` is wrong about `{readable(name)}`: {where}, {there}"
        )


def _inside(folder: Path, name: str) -> Path:
    """The real path of a shard, which must be in the folder (or in the same repository of the hub's
    cache)."""
    try:
        real, home = (folder / name).resolve(strict=True), folder.resolve(strict=True)
    except (OSError, RuntimeError):
        raise fault("E0726", f"the shard `{folder / name}` is missing") from None
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in homes):
        raise fault("E0725", f"the shard `{folder / name}` is a link that leaves its folder")
    return real


def _refuse_pickles(path: Path) -> None:
    pickles = sorted(p.name for pattern in PICKLES for p in path.glob(pattern))
    if pickles:
        raise pickle_fault(path, pickles[0])


def pickle_fault(path: Path, name: str) -> RecipeError:
    """The refusal of pickle weights, with the command that converts them."""
    command = (
        'python -c "import sys, torch, safetensors.torch as s; '
        "s.save_file({k: v.clone() for k, v in "
        "torch.load(sys.argv[1], weights_only=True).items()}, sys.argv[2], {'format': 'pt'})\" "
        f"{os.fspath(path / name)} {os.fspath(path / 'model.safetensors')}"
    )
    return fault(
        "E0727",
        f"`{path}` holds only pickle weights (`{readable(name)}`), which can run code; not loaded",
        help=f"if you trust the file, convert it: `{command}`",
    )
