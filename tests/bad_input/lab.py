"""One mistake a test: what `recipe check` and `recipe plan` say of it, where, with which exit code;
and that nothing was computed and no store made.

The mark ``^`` in a recipe is the first character of the place that must be told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipelang.cli.main import main

HEAD = """\
a = model "a"
b = model "b" from a
notes = dataset "notes.jsonl"
"""


@dataclass(frozen=True)
class Lab:
    """A folder of small models and files, and what a command said in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def refuses(
        self, text: str, code: str, words: str, *arguments: str, exit: int = 1, head: str = HEAD
    ) -> None:
        """The plan of this recipe has this one error, at the mark, and nothing else happened."""
        whole = head + text
        mark = whole.find("^")
        recipe = self.folder / "bad.recipe"
        recipe.write_text(whole.replace("^", "", 1) + "\n", encoding="utf-8")
        before = sorted(p for p in self.folder.rglob("*"))
        assert main(["plan", str(recipe), *arguments]) == exit
        shown = self.capsys.readouterr().err
        assert shown.count("error[") == 1, shown
        assert f"error[{code}]: " in shown, shown
        assert words in shown, shown
        if mark >= 0:
            line = whole.count("\n", 0, mark) + 1
            column = mark - (whole.rfind("\n", 0, mark) + 1) + 1
            assert f"bad.recipe:{line}:{column}\n" in shown, shown
        assert sorted(p for p in self.folder.rglob("*")) == before

    def rows(self, name: str, *rows: object) -> None:
        """Write a data file."""
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
