"""Names and places for a recipe: ``mistralai/Mistral-7B-v0.1`` becomes ``mistral_7b_v0_1``.

Example:
    >>> names = Names()
    >>> names.new("mistralai/Mistral-7B-v0.1"), names.new("other/mistral-7b-v0.1")
    ('mistral_7b_v0_1', 'mistral_7b_v0_1_2')
    >>> names.new("models/7B-chat/"), names.new("from")
    ('model_7b_chat', 'from_model')
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from recipelang.convert.mergekit.references import Place
from recipelang.language.tokens import KEYWORDS, RESERVED
from recipelang.ops.registry import verbs

__all__ = ["Names", "Paths", "quoted"]

LONGEST = 40
BUILTINS = frozenset({"gradient", "per", "range", "seeds", "secret"})


@dataclass
class Names:
    """Gives every thing of a file a name of its own."""

    used: set[str] = field(default_factory=set[str])

    def new(self, text: str) -> str:
        """A name that the file does not have yet, after the last part of a path."""
        last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
        name = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")[:LONGEST].rstrip("_")
        if not name or name[0].isdigit():
            name = f"model_{name}".rstrip("_")
        if name in RESERVED or name in KEYWORDS or name in BUILTINS or name in verbs():
            name = f"{name}_model"
        found, number = name, 2
        while found in self.used:
            found, number = f"{name}_{number}", number + 1
        self.used.add(found)
        return found


@dataclass(frozen=True, slots=True)
class Paths:
    """Where mergekit's paths start (``here``) and where the recipe will be (``folder``).

    ``exists`` says whether a folder of that name is there: such a name is none of the hub, as for
    mergekit.
    """

    here: str
    folder: str
    exists: Callable[[str], bool] = os.path.exists

    def uri(self, place: Place) -> str:
        """How a recipe in ``folder`` names the place."""
        there = self.exists(os.path.join(self.here, place.path))
        if place.may_be_hub and (place.revision or not there):
            return f"hf:{place.path}"
        return self.local(place.path)

    def local(self, path: str) -> str:
        """A path of the shell as the recipe writes it."""
        if os.path.isabs(path) or path.startswith("~"):
            return path
        relative = os.path.relpath(os.path.join(self.here, path), self.folder)
        return relative if relative.startswith("..") else f"./{relative}"


def quoted(text: str) -> str:
    """A string literal.

    >>> print(quoted('a "b"'))
    "a \\"b\\""
    """
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in plain) + '"'
