"""Parameters as one line of text: what a lock file shows a person in a diff, and gives back
exactly.

The value is the canonical form of :func:`recipelang.values.canonical` (every number a string). Text
and form are in step one to one, so a lock block alone gives back the document that its key hashes.

Example:
    >>> to_text({"form": "lora", "args": [["alpha", {"n": "32"}], ["rank", {"n": "16"}]]})
    'lora(alpha = 32, rank = 16)'
    >>> from_text("4000 tokens")
    {'n': '4000', 'unit': 'tokens'}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["from_text", "to_text"]

NUMBER: Final = r"-?\d+(?:\.\d+)?"
NAME: Final = r"[A-Za-z_][A-Za-z0-9_\-]*"
TOKENS: Final = re.compile(
    rf'\s*(?:(?P<number>{NUMBER})|(?P<name>{NAME})|(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>[()\[\],=]))'
)
WORDS: Final[Mapping[str, object]] = {"none": None, "true": True, "false": False}


def to_text(value: Any) -> str:
    """The text of a canonical form. Raises ValueError for what is none."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case {"n": str(number), "unit": str(unit)}:
            return f"{number} {unit}"
        case {"n": str(number)}:
            return number
        case {"form": str(name), "args": [*args]}:
            return f"{_name(name)}({', '.join(_argument(arg) for arg in args)})"
        case [*items]:
            return f"[{', '.join(to_text(item) for item in items)}]"
        case _:
            raise ValueError(f"{value!r} is not a canonical form")


def _name(name: str) -> str:
    plain = re.fullmatch(NAME, name) and name not in WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


def _argument(argument: Any) -> str:
    match argument:
        case [str(name), value]:
            return f"{_name(name)} = {to_text(value)}"
        case _:
            raise ValueError(f"{argument!r} is not an argument")


class _Reader:
    """The tokens of one text, looked at one by one."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_split(text))
        self.at = 0

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else "end"

    @property
    def text(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def at_name(self) -> bool:
        return self.kind == "name"

    def take(self) -> str:
        found = self.text
        self.at += 1
        return found

    def expect(self, mark: str) -> None:
        if self.take() != mark:
            raise ValueError(f"expected `{mark}`")


def _split(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = TOKENS.match(stripped, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"cannot read {stripped[position:]!r}")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def from_text(text: str) -> object:
    """The canonical form that a text stands for. Raises ValueError for any other text."""
    reader = _Reader(text)
    value = _value(reader)
    if reader.kind != "end":
        raise ValueError(f"cannot read {text!r}")
    return value


def _value(reader: _Reader) -> object:
    match reader.kind:
        case "number":
            number = reader.take()
            return {"n": number, "unit": reader.take()} if reader.at_name() else {"n": number}
        case "name":
            word = reader.take()
            if reader.text == "(":
                return _form(reader, word)
            if word not in WORDS:
                raise ValueError(f"cannot read `{word}`")
            return WORDS[word]
        case "text":
            text = str(json.loads(reader.take()))
            return _form(reader, text) if reader.text == "(" else text
        case _:
            reader.expect("[")
            return _items(reader)


def _items(reader: _Reader) -> list[object]:
    items: list[object] = []
    while reader.text != "]":
        items.append(_value(reader))
        if reader.text != "]":
            reader.expect(",")
    reader.expect("]")
    return items


def _form(reader: _Reader, name: str) -> dict[str, object]:
    reader.expect("(")
    args: list[object] = []
    while reader.text != ")":
        kind, text = reader.kind, reader.take()
        if kind not in ("name", "text"):
            raise ValueError("an argument needs a name")
        key = text if kind == "name" else str(json.loads(text))
        reader.expect("=")
        args.append([key, _value(reader)])
        if reader.text != ")":
            reader.expect(",")
    reader.expect(")")
    return {"form": name, "args": args}
