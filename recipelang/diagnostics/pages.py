"""The page behind each code: ``codes/E0412.md``, with an example that yields the code and one that
does not.

Example:
    >>> page("E0412").title
    'a value with the wrong unit'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Page", "codes", "page"]

FOLDER = Path(__file__).parent / "codes"
_BLOCK = re.compile(r"^```recipe\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its code, the words behind the code in its title, and its whole text."""

    code: str
    title: str
    text: str

    def recipes(self, section: str) -> tuple[str, ...]:
        """The recipes of a section, ``Wrong`` or ``Right``."""
        body = self.text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        return tuple(_BLOCK.findall(body))


def codes() -> tuple[str, ...]:
    """Every code that has a page, in order."""
    return tuple(sorted(file.stem for file in FOLDER.glob("[EW][0-9]*.md")))


def page(code: str) -> Page | None:
    """The page of a code, or None."""
    file = FOLDER / f"{code.upper()}.md"
    if code.upper() not in codes():
        return None
    text = file.read_text(encoding="utf-8")
    return Page(code.upper(), text.partition("\n")[0].partition(": ")[2], text)
