"""A model in a Hugging Face folder: ``config.json``, safetensors (one file or shards), tokenizer
files.

Headers are read with the standard library; numpy is imported when a tensor is read. Nothing in the
folder is ever run: pickle weights are refused, and keys of a configuration that name code are left
out.

Example:
    >>> model = Folder.open(Path("models/smollm2"))      # doctest: +SKIP
    >>> model.tensors["model.norm.weight"].shape         # doctest: +SKIP
    (576,)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import RecipeError, fault
from recipelang.types import Remark, TensorInfo
from recipelang.weights.config import check_config, is_tied, without_code
from recipelang.weights.safetensors import Entry, Header, mixed_alphabets, read_header
from recipelang.weights.strict_json import as_object, parse_object, read_small, readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AUXILIARY", "Folder", "auxiliary_files", "read_config", "weight_files"]

AUXILIARY = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "generation_config.json", "chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip
"""Files that belong to a model beside its weights and configuration."""
INDEX = "model.safetensors.index.json"
FOLDER_AGAIN = "get the folder again from where it was published"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, eq=False)
class Folder:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over a folder. Open it with
    :meth:`open`. ``digests`` are tensors' sha256 (hex), of those that were hashed."""

    path: Path
    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path | bytes]
    places: Mapping[str, tuple[Path, Entry]]
    remarks: tuple[Remark, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Read configuration and headers. Raises RecipeError of band E07."""
        config, remarks = read_config(path)
        places = _places(path)
        if is_tied(config) and "model.embed_tokens.weight" in places:
            places.pop(
                "lm_head.weight", None
            )  # a second copy of the embedding, by the configuration
        tensors = {name: entry.info for name, (_, entry) in sorted(places.items())}
        mixed = mixed_alphabets(places)
        if mixed:
            message = (
                f"the name `{readable(mixed[0])}` in `{path}` has letters of several alphabets"
            )
            help = "they may look alike; see that its source is one that you trust"
            remarks = (*remarks, Remark("W0724", message, help))
        return cls(path, config, tensors, auxiliary_files(path), places, remarks)

    def with_digests(self, hashed: Callable[[Path], Mapping[tuple[int, int], str]]) -> Folder:
        """The same, with the digests that ``hashed`` gives for a file, by range of bytes."""
        known = {file: hashed(file) for file in {file for file, _ in self.places.values()}}
        found = {
            name: known[file].get((entry.start, entry.stop))
            for name, (file, entry) in self.places.items()
        }
        return replace(self, digests={n: digest for n, digest in found.items() if digest})

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)`` of a tensor, in a fresh array. Raises RecipeError E0735."""
        from recipelang.weights.rawread import read_elements

        file, entry = self.places[name]
        return read_elements(file, entry, start, stop)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""


def auxiliary_files(path: Path) -> dict[str, Path | bytes]:
    """The files that lie beside the weights of a folder, by name. Raises RecipeError E0725 for a
    link that leaves it: what it leads to would be published as a part of the model."""
    found: dict[str, Path | bytes] = {}
    for name in AUXILIARY:
        if (path / name).is_file():
            _inside(path, name)
            found[name] = path / name
    return found


def read_config(path: Path) -> tuple[dict[str, object], tuple[Remark, ...]]:
    """config.json of a folder, checked, without what names code; and what is to be said of that.
    Raises RecipeError E0725, E0728."""
    file = path / "config.json"
    if file.is_file():
        _inside(path, file.name)
    else:
        raise fault(
            "E0728", f"`{path}` has no `config.json`",
            help="name a folder in Hugging Face layout, or a `.gguf` file",
        )  # fmt: skip
    config = parse_object(read_small(file, "E0728"), str(file), "E0728")
    check_config(config, str(file))
    return without_code(config, str(file))


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
                    help=FOLDER_AGAIN,
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
        raise fault(
            "E0725", f"`{file}`: `weight_map` must map tensors to file names", help=FOLDER_AGAIN
        )
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


def _check_total(path: Path, headers: list[Header]) -> None:
    """The size that the index gives, where it gives one, is that of the tensors."""
    document = parse_object(read_small(path / INDEX, "E0725"), str(path / INDEX), "E0725")
    said = (as_object(document.get("metadata")) or {}).get("total_size")
    found = sum(e.info.bytes for header in headers for e in header.entries.values())
    if said is not None and said != found:
        raise fault(
            "E0726",
            f"`{path / INDEX}` says that the weights have {readable(str(said), 24)} bytes, the "
            f"shards hold {found}",
            help="get the folder again; if its shards are right, correct `total_size` there",
        )


def _check_index(path: Path, headers: list[Header]) -> None:
    """The index and the shards say the same."""
    _check_total(path, headers)
    table = _index(path / INDEX)
    found = {name: header.path.name for header in headers for name in header.entries}
    for name in sorted(set(table) | set(found)):
        if table.get(name) == found.get(name):
            continue
        where = f"the index puts it in `{table[name]}`" if name in table else "the index lacks it"
        there = f"it is in `{found[name]}`" if name in found else "no shard has it"
        raise fault(
            "E0726", f"`{path / INDEX}` is wrong about `{readable(name)}`: {where}, {there}",
            help=FOLDER_AGAIN,
        )  # fmt: skip


def _inside(folder: Path, name: str) -> Path:
    """The real path of a shard, which must be in the folder (or in the same repository of the hub's
    cache)."""
    try:
        real, home = (folder / name).resolve(strict=True), folder.resolve(strict=True)
    except (OSError, RuntimeError):
        raise fault(
            "E0726", f"`{folder / name}` is missing",
            help=FOLDER_AGAIN,
        ) from None  # fmt: skip
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in homes):
        raise fault(
            "E0725", f"`{folder / name}` is a link that leaves its folder",
            help="put the file itself there",
        )  # fmt: skip
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
