"""The lock file: canonical, read strictly, whole or stale, and true to its own keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.lineage.keys import KEY, digest
from recipelang.lineage.lockfile import Lock, LockedStep, lock_path, parse_lock, read_lock
from recipelang.lineage.text import from_text, to_text
from recipelang.values import Form, Quantity, canonical

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text(min_size=1, max_size=12)
NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6, allow_nan=False))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=12))
QUANTITIES = st.builds(Quantity, NUMBERS, st.sampled_from(["tokens", "steps", "fraction"]))
VALUES = st.recursive(
    st.one_of(PLAIN, QUANTITIES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.builds(
            Form,
            NAMES,
            st.lists(st.tuples(NAMES, inner), max_size=3, unique_by=lambda i: i[0]).map(tuple),
        ),
    ),
    max_leaves=6,
)
HEXES = st.lists(HEX, min_size=1, max_size=3).map(tuple)


@st.composite
def steps(draw: st.DrawFn) -> LockedStep:
    """Any block."""
    return LockedStep(
        op=f"{draw(st.from_regex('[a-z-]{1,12}', fullmatch=True))}@{draw(st.integers(1, 9))}",
        step_id=draw(HEX), key=draw(HEX), out=draw(HEX),
        inputs=draw(st.dictionaries(NAMES, HEXES, max_size=2)),
        params=draw(st.dictionaries(NAMES, VALUES.map(canonical), max_size=3)),
        determinism=draw(st.sampled_from(["exact", "repeatable"])),
        draws=draw(st.one_of(st.just(""), HEX)),
        backend=draw(st.sampled_from(["", "torch", "jax"])),
        uri=draw(st.text(max_size=8)), content=draw(st.sampled_from(["", "ab" * 20])),
    )  # fmt: skip


@given(value=VALUES)
@settings(max_examples=150, deadline=None)
def test_parameters_come_back(value: object) -> None:
    """The text of a parameter gives back its canonical form, numbers and texts kept apart."""
    form = canonical(value)  # type: ignore[arg-type]
    assert from_text(to_text(form)) == form


@given(
    places=st.dictionaries(NAMES, steps(), max_size=4),
    params=st.dictionaries(NAMES, NAMES, max_size=2),
)
@settings(max_examples=80, deadline=None)
def test_a_lock_comes_back(places: dict[str, LockedStep], params: dict[str, str]) -> None:
    """Reading what was written gives the same lock, and writing it again the same bytes."""
    lock = Lock(params, places)
    text = lock.to_text()
    assert parse_lock(text) == lock
    assert parse_lock(text).to_text() == text
    assert all(ord(c) >= 32 or c == "\n" for c in text)


def _step(out: str = "c") -> LockedStep:
    document = {"op": "cast", "opv": "1", "class": "exact", "params": {"dtype": "bf16"},
                "in": {"model": ["d" * 64]}, "draws": None}  # fmt: skip
    return LockedStep(
        "cast@1",
        "a" * 64,
        digest(KEY, document),
        out * 64,
        {"model": ("d" * 64,)},
        {"dtype": "bf16"},
    )


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "a.recipe.lock"
    path.write_bytes(data)
    return path


def test_the_text() -> None:
    """A block is what people see in a diff: sorted, one scalar a line."""
    assert (
        Lock({}, {"b": _step(), "a[1]": _step("e")}).to_text()
        == f"""\
# Written by `recipe run`; commit it, do not edit it.
version = 1

[step."a[1]"]
op = "cast@1"
id = "sha256:{"a" * 64}"
in.model = [
    "sha256:{"d" * 64}",
]
params.dtype = '"bf16"'
class = "exact"
key = "sha256:{_step().key}"
out = "sha256:{"e" * 64}"

[step.b]
op = "cast@1"
id = "sha256:{"a" * 64}"
in.model = [
    "sha256:{"d" * 64}",
]
params.dtype = '"bf16"'
class = "exact"
key = "sha256:{_step().key}"
out = "sha256:{"c" * 64}"
"""
    )


def test_a_block_knows_its_key() -> None:
    """The key is the digest of the block's own fields; any other field gives another."""
    assert _step().agrees
    assert not LockedStep("cast@2", "a" * 64, _step().key, "c" * 64).agrees


def test_a_missing_or_empty_lock_is_empty(tmp_path: Path) -> None:
    """No file, no bytes, or only zeros: nothing is known, and nothing is wrong."""
    assert lock_path(tmp_path / "a.recipe").name == "a.recipe.lock"
    assert read_lock(tmp_path / "none.lock") == Lock()
    for data in (b"", b"\n", b"\0" * 100):
        assert read_lock(_write(tmp_path, data)) == Lock()


def test_every_prefix_is_read_or_named(tmp_path: Path) -> None:
    """A file cut off anywhere gives whole blocks or a diagnostic, never a wrong block."""
    lock = Lock({}, {"a": _step(), "b": _step("e")})
    data = lock.to_text().encode()
    whole = read = named = 0
    for length in range(len(data)):
        try:
            found = read_lock(_write(tmp_path, data[:length]))
        except RecipeError as error:
            named += error.diagnostics[0].code == "E0760"
            continue
        read += 1
        assert all(lock.steps[place] == step for place, step in found.steps.items())
        whole += len(found.steps)
    assert whole > 0
    assert read + named == len(data)


def test_editors_marks_are_no_change(tmp_path: Path) -> None:
    """A byte-order mark and Windows line ends are taken as they come."""
    lock = Lock({"rate": "0.5"}, {"a": _step()})
    text = lock.to_text().encode()
    assert read_lock(_write(tmp_path, b"\xef\xbb\xbf" + text)) == lock
    assert read_lock(_write(tmp_path, text.replace(b"\n", b"\r\n"))) == lock


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version = 1", "version = 2", "version 2"),
        ("version = 1", "version = 1\nroot = 'x'", "unknown key `root`"),
        ("class =", "colour = 'x'\nclass =", "unknown key `colour`"),
        ('op = "cast@1"', "", "lacks 'op'"),
        ('op = "cast@1"', "op = 1", "not a string"),
        ("sha256:aaa", "sha256:xyz", "not a digest"),
        ("\n[step", "\n<<<<<<< HEAD\n[step", "merge conflict in line 4"),
        ("params.dtype = '\"bf16\"'", "params.dtype = 'bf16'", "cannot be read"),
        ('op = "cast@1"', 'op = "cast@1', "cannot be read"),
        ("[step.a]", "[params]\nx = 1\n\n[step.a]", "not a string"),
    ],
)
def test_damage_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    """What is not a lock of this version is refused with the file and the reason."""
    text = Lock({}, {"a": _step()}).to_text()
    assert old in text
    path = _write(tmp_path, text.replace(old, new, 1).encode())
    with pytest.raises(RecipeError) as caught:
        read_lock(path)
    (found,) = caught.value.diagnostics
    assert found.code == "E0760"
    assert says in found.message
    assert str(path) in found.message


def test_the_backend_of_a_lock() -> None:
    """It is that of most steps; none where no step has one."""
    from dataclasses import replace

    assert Lock({}, {"a": _step()}).backend is None
    two = {n: replace(_step(), backend=b) for n, b in (("a", "jax"), ("b", "torch"), ("c", "jax"))}
    assert Lock({}, two).backend == "jax"
