"""The lock file: what each step of a recipe gave, one block a step, committed beside the recipe.

``NAME.recipe.lock`` is canonical TOML: steps sorted by name, keys in fixed order, one scalar a
line, arrays one element a line, no times, paths, hosts or digest of the whole, so that git merges
what two people did to different steps. A block holds the whole document that its ``key`` hashes, so
it can be checked alone.

Example:
    >>> print(Lock({"rate": "0.5"}, {}).to_text().splitlines()[-1])
    rate = '0.5'
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from recipelang.diagnostics import fault
from recipelang.lineage.keys import KEY, digest
from recipelang.lineage.text import from_text, to_text

__all__ = ["Lock", "LockedStep", "lock_path", "read_lock"]

VERSION: Final = 1
HEADER: Final = "# Written by `recipe run`; commit it, do not edit it.\n"
PREFIX: Final = "sha256:"
HEX: Final = re.compile(r"[0-9a-f]{64}")
BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
MARKERS: Final = re.compile(r"^(<{7}|={7}|>{7}|\|{7})( |$)", re.MULTILINE)
SCALARS: Final = ("op", "id", "uri", "content", "class", "draws", "backend", "key", "out")
GROUPS: Final = ("in", "params")


@dataclass(frozen=True, slots=True)
class LockedStep:
    """One step.

    ``op`` is ``verb@version``; ``step_id`` the structural hash that seeds hang on; ``inputs`` the
    content ids by role, ``params`` the canonical forms, ``determinism`` the class, ``draws`` the
    draw key. These are the document that ``key`` hashes. ``out`` is the content id of the result.
    A source has ``uri`` as the recipe writes it and ``content``, its revision or digest.
    Digests are 64 hex digits.
    """

    op: str
    step_id: str
    key: str
    out: str
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    params: Mapping[str, object] = field(default_factory=dict[str, object])
    determinism: str = "exact"
    draws: str = ""
    backend: str = ""
    uri: str = ""
    content: str = ""

    @property
    def document(self) -> dict[str, object]:
        """What the action key hashes (see :func:`recipelang.lineage.keys.action_key`)."""
        verb, _, version = self.op.partition("@")
        return {
            "op": verb, "opv": version, "class": self.determinism, "params": dict(self.params),
            "in": {role: list(ids) for role, ids in self.inputs.items()},
            "draws": self.draws or None,
        }  # fmt: skip

    @property
    def agrees(self) -> bool:
        """Whether ``key`` is the digest of the block's own fields. A source's key is its
        content.
        """
        return bool(self.content) or digest(KEY, self.document) == self.key


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file's contents: the values of ``--set … --lock``, and the steps by place."""

    params: Mapping[str, str] = field(default_factory=dict[str, str])
    steps: Mapping[str, LockedStep] = field(default_factory=dict[str, LockedStep])

    def by_key(self) -> dict[str, LockedStep]:
        """The steps by action key."""
        return {step.key: step for _, step in sorted(self.steps.items(), reverse=True)}

    @property
    def backend(self) -> str | None:
        """The backend of most steps; None where no step has one."""
        names = sorted(step.backend for step in self.steps.values() if step.backend)
        return max(names, key=names.count) if names else None

    def to_text(self) -> str:
        """The canonical text."""
        parts = [HEADER + f"version = {VERSION}\n"]
        if self.params:
            rows = (f"{_key(name)} = {_string(v)}\n" for name, v in sorted(self.params.items()))
            parts.append("[params]\n" + "".join(rows))
        parts += [_block(place, step) for place, step in sorted(self.steps.items())]
        return "\n".join(parts)


def lock_path(recipe: Path) -> Path:
    """The lock file of a recipe."""
    return recipe.with_name(recipe.name + ".lock")


# ---------------------------------------------------------------- writing


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _basic(name)


def _basic(text: str) -> str:
    """A TOML basic string."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}

    def escape(char: str) -> str:
        plain = ord(char) >= 0x20 and ord(char) != 0x7F
        return escapes.get(char, char if plain else f"\\u{ord(char):04x}")

    return '"' + "".join(escape(c) for c in text) + '"'


def _string(text: str) -> str:
    """A literal string where the text allows one: parameters hold quotes of their own."""
    literal = "'" not in text and all(ord(c) >= 0x20 and ord(c) != 0x7F for c in text)
    return f"'{text}'" if literal else _basic(text)


def _block(place: str, step: LockedStep) -> str:
    rows = [f"[step.{_key(place)}]", f"op = {_basic(step.op)}", f'id = "{PREFIX}{step.step_id}"']
    if step.uri:
        rows.append(f"uri = {_basic(step.uri)}")
    if step.content:
        rows.append(f"content = {_basic(step.content)}")
    for role, ids in sorted(step.inputs.items()):
        rows.append(f"in.{_key(role)} = [")
        rows += [f'    "{PREFIX}{artifact}",' for artifact in ids]
        rows.append("]")
    for name, value in sorted(step.params.items()):
        rows.append(f"params.{_key(name)} = {_string(to_text(value))}")
    rows.append(f"class = {_basic(step.determinism)}")
    if step.draws:
        rows.append(f'draws = "{PREFIX}{step.draws}"')
    if step.backend:
        rows.append(f"backend = {_basic(step.backend)}")
    rows += [f'key = "{PREFIX}{step.key}"', f'out = "{PREFIX}{step.out}"']
    return "\n".join(rows) + "\n"


# ---------------------------------------------------------------- reading


def read_lock(path: Path) -> Lock:
    """Read a lock file; an empty :class:`Lock` where there is none.

    A byte-order mark and Windows line ends are taken as they come; of a file that was cut off in
    the middle, the steps before the cut are read. Raises RecipeError E0760 for a damaged one: an
    unknown version or key, conflict markers, text that is no TOML.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    if not data.strip(b"\0 \t\r\n"):  # a machine that stopped in the middle of a copy leaves this
        return Lock()
    try:
        return parse_lock(_whole(_text(data)))
    except _Unreadable as error:
        raise _damaged(path, str(error)) from error


class _Unreadable(Exception):
    """Why a text is not a lock file."""


def _damaged(path: Path, why: str) -> Exception:
    return fault(
        "E0760", f"the lock file `{path}` {why}",
        help="restore it with `git checkout`, or delete it: `recipe run` makes a new one and takes "
        "what it can from the store",
    )  # fmt: skip


def _text(data: bytes) -> str:
    """Decode; a byte-order mark and Windows line ends come from editors and are no change."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _Unreadable("is not UTF-8 text") from error


def _whole(text: str) -> str:
    """Leave out a last block that was cut off in the middle of a line: that step is then stale."""
    if text.endswith("\n"):
        return text
    last = text.rfind("\n[")
    return text[: last + 1] if last >= 0 else f"version = {VERSION}\n"


def parse_lock(text: str) -> Lock:
    """Parse the text of a lock file. Raises :class:`_Unreadable`."""
    marker = MARKERS.search(text)
    if marker:
        line = text.count("\n", 0, marker.start()) + 1
        raise _Unreadable(f"holds a merge conflict in line {line}")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _Unreadable(f"cannot be read: {error}") from error
    version = document.pop("version", None)
    if version != VERSION:
        raise _Unreadable(f"has version {version}, this recipelang reads {VERSION}")
    params = document.pop("params", {})
    steps = document.pop("step", {})
    if document:
        raise _Unreadable(f"has an unknown key `{next(iter(document))}`")
    if not all(isinstance(value, str) for value in params.values()):
        raise _Unreadable("has a `[params]` value that is not a string")
    return Lock(params, {place: _step(place, body) for place, body in steps.items()})


def _step(place: str, body: Any) -> LockedStep:
    body = _table(body, f"has a step `{place}` that is no table")
    unknown = sorted(set(body) - {*SCALARS, *GROUPS})
    if unknown:
        raise _Unreadable(f"has an unknown key `{unknown[0]}` in the step `{place}`")
    for name in SCALARS:
        if not isinstance(body.get(name, ""), str):
            raise _Unreadable(f"has a `{name}` that is not a string in the step `{place}`")
    try:
        return LockedStep(
            op=body["op"], step_id=_hex(body["id"]), key=_hex(body["key"]), out=_hex(body["out"]),
            inputs={r: tuple(_hex(i) for i in ids) for r, ids in body.get("in", {}).items()},
            params={name: from_text(value) for name, value in body.get("params", {}).items()},
            determinism=body["class"], draws=_hex(body["draws"]) if "draws" in body else "",
            backend=body.get("backend", ""), uri=body.get("uri", ""),
            content=body.get("content", ""),
        )  # fmt: skip
    except KeyError as error:
        raise _Unreadable(f"lacks {error} in the step `{place}`") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _Unreadable(f"has a step `{place}` that cannot be read: {error}") from error


def _table(value: object, complaint: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unreadable(complaint)
    return cast("dict[str, Any]", value)


def _hex(text: object) -> str:
    if not isinstance(text, str) or not HEX.fullmatch(text.removeprefix(PREFIX)):
        raise ValueError(f"{text!r} is not a digest")
    return text.removeprefix(PREFIX)
