"""The writer: canonical bytes in any order, digests, shards, and going on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipelang.diagnostics import RecipeError
from recipelang.native import library
from recipelang.store import ranges
from recipelang.store.objects import hash_object
from recipelang.types import TensorInfo
from recipelang.weights.shards import index_json, layout
from recipelang.weights.writer import JOURNAL, ModelWriter

ARRAYS = {f"t{i}": np.arange(i, i + 5, dtype=np.float32) for i in range(4)}
TABLE = {name: TensorInfo("F32", array.shape) for name, array in ARRAYS.items()}


def write(writer: ModelWriter, name: str) -> None:
    """A tensor in two pieces."""
    writer.write(name, 0, ARRAYS[name][:2])
    writer.write(name, 2, ARRAYS[name][2:])


def test_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    """The file, its digest and the tensors' digests do not depend on the order of writing."""
    results = []
    for number, order in enumerate((sorted(ARRAYS), sorted(ARRAYS, reverse=True))):
        writer = ModelWriter(tmp_path / str(number), TABLE)
        for name in order:
            write(writer, name)
        results.append(writer.finish())
    first, second = results
    data = first.shards[0].path.read_bytes()
    assert data == second.shards[0].path.read_bytes()
    assert first.tensors == second.tensors
    assert first.shards == tuple(replace(s, path=first.shards[0].path) for s in second.shards)
    hashed = hash_object(first.shards[0].path, shard=True)
    assert hashed.name == first.shards[0].digest
    starts = {(start, digest) for (start, _), digest in hashed.tensors.items()}
    assert starts == {(row.offset, row.digest) for row in first.tensors.values()}
    for name, row in first.tensors.items():
        raw = data[row.offset : row.offset + 20]
        assert raw == ARRAYS[name].tobytes()
        assert row.digest == hashlib.sha256(raw).hexdigest()
        assert row.shard == first.shards[0].digest
    loaded = load_file(first.shards[0].path)
    assert all(np.array_equal(loaded[name], array) for name, array in ARRAYS.items())
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["__metadata__"] == {"format": "pt"}


def test_large_models_are_cut_into_shards(tmp_path: Path) -> None:
    """No file holds more than the limit, and the index names each tensor's file."""
    writer = ModelWriter(tmp_path, TABLE, max_shard_bytes=45)
    for name in ARRAYS:
        write(writer, name)
    written = writer.finish()
    assert [s.path.name for s in written.shards] == [
        f"model-0000{i}-of-00002.safetensors" for i in (1, 2)
    ]
    assert sorted(load_file(written.shards[1].path)) == ["t2", "t3"]
    files = {name: shard.name for shard in layout(TABLE, 45) for name in shard.tensors}
    index = json.loads(index_json(TABLE, files))
    assert index["weight_map"]["t3"] == "model-00002-of-00002.safetensors"
    assert index["metadata"]["total_size"] == 80


def test_a_killed_writer_is_gone_on_with(tmp_path: Path) -> None:
    """Complete tensors stay, half ones and damaged ones are written again, and the bytes are the
    same."""
    killed = ModelWriter(tmp_path / "a", TABLE, identity="k")
    write(killed, "t0")
    write(killed, "t1")
    killed.write("t2", 0, ARRAYS["t2"][:2])
    killed.close()
    with (tmp_path / "a" / JOURNAL).open("ab") as journal:
        journal.write(b'{"name": "t3", "dig')
    file = tmp_path / "a" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) - 80] ^= 1  # the first byte of t0
    file.write_bytes(bytes(data))
    again = ModelWriter(tmp_path / "a", TABLE, identity="k")
    assert [name for name in TABLE if again.finished(name)] == ["t1"]
    whole = ModelWriter(tmp_path / "b", TABLE, identity="k")
    for writer in (again, whole):
        for name in TABLE:
            if not writer.finished(name):
                write(writer, name)
    assert again.finish().shards[0].digest == whole.finish().shards[0].digest
    assert not (tmp_path / "a" / JOURNAL).exists()


def test_another_identity_starts_over(tmp_path: Path) -> None:
    """What was written for another action key is not taken over."""
    killed = ModelWriter(tmp_path, TABLE, identity="one")
    write(killed, "t0")
    killed.close()
    other = ModelWriter(tmp_path, TABLE, identity="two")
    assert not other.finished("t0")
    other.close()


def test_finishing_early_is_an_error(tmp_path: Path) -> None:
    """A model with missing tensors is never finished."""
    writer = ModelWriter(tmp_path / "a", TABLE)
    with pytest.raises(ValueError, match="4 tensors"):
        writer.finish()
    writer.close()
    writer.close()


def test_empty_tensors_and_tables(tmp_path: Path) -> None:
    """A tensor without elements has the digest of no bytes, wherever it stands; a shard's name is
    the one that is read from it, even of no tensors at all."""
    nothing, named = TensorInfo("F32", (0, 3)), set()
    for names in ("", "t", "e", "et0", "et0u", "t0uv"):
        table = {n: TABLE["t0"] if n == "t" else nothing for n in names}
        writer = ModelWriter(tmp_path / f"of {names}", table)
        if "t" in table:
            writer.write("t", 0, ARRAYS["t0"])
        written = writer.finish()
        (shard,) = written.shards
        assert hash_object(shard.path, shard=True).name == shard.digest
        for name in table.keys() - {"t"}:
            assert written.tensors[name].digest == hashlib.sha256().hexdigest()
        named.add(shard.digest)
    assert len(named) == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_of_where_the_journal_meets_it(tmp_path: Path) -> None:
    """Shards have their room from the start, so the journal is what does not fit; closing says
    nothing and leaves no file open, though tensors wait for their digests."""
    writer = ModelWriter(tmp_path, TABLE)
    writer._lane_bytes = -1
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._journal)
    os.close(full)
    with pytest.raises(RecipeError, match="full") as found:
        write(writer, "t0")
    assert found.value.diagnostics[0].code == "E0852"
    writer._waiting["t1"] = b""
    writer.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(writer._journal)


@pytest.mark.parametrize("pay", [True, False])
def test_digests_that_are_taken_later_are_the_same(
    tmp_path: Path, pay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tensors of all lengths, written by several threads, the long ones hashed over several
    turns; a writer that was closed in between knows them all."""
    if pay and library() is None:
        pytest.skip("the compiled part was not built")
    monkeypatch.setattr("recipelang.weights.writer.lanes_pay", lambda: pay)
    monkeypatch.setattr(ranges, "lanes_pay", lambda: pay)
    sizes = [100_000, 1, 70_000, 16, *range(500, 40_000, 900), 17, 65_536]
    arrays = {f"t{i:03}": np.full(size, i, np.float32) for i, size in enumerate(sizes)}
    table = {name: TensorInfo("F32", array.shape) for name, array in arrays.items()}
    writer, names = ModelWriter(tmp_path, table), iter(arrays)

    def some(count: int) -> None:
        for name in islice(names, count):
            for start in range(0, len(arrays[name]), 30_000):
                writer.write(name, start, arrays[name][start : start + 30_000])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(some, (15, 15)))
    writer.close()
    writer = ModelWriter(tmp_path, table)
    assert sum(map(writer.finished, arrays)) == 30
    some(len(arrays))
    written = writer.finish()
    for name, array in arrays.items():
        assert written.tensors[name].digest == hashlib.sha256(array.tobytes()).hexdigest()
