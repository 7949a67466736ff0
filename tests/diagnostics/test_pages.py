"""Pages behind the codes: their examples do what they say, and every code has one."""

import json
import re
from pathlib import Path

import pytest

import recipelang
from recipelang.checking import check_text
from recipelang.diagnostics.pages import codes, page

PACKAGE = Path(recipelang.__file__).parent
BACKENDS = PACKAGE.parent / "backends"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with the small files that the examples name."""
    row = {"prompt": "two and two?", "completion": "four"}
    rows = [json.dumps({**row, "prompt": f"{i} and {i}?"}) for i in range(8)]
    (tmp_path / "notes.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "notes.txt").write_text("a line\nand another\n")
    return str(tmp_path)


def found(text: str, folder: str) -> list[str]:
    """The codes of errors and warnings; notes say nothing of the recipe."""
    return [d.code for d in check_text(text, folder=folder).sink if d.severity != "note"]


@pytest.mark.parametrize("code", codes())
def test_example_yields_exactly_its_code(code: str, folder: str) -> None:
    """The bad example of a page yields its code and no other, with a place and a remedy; the good
    one yields none."""
    known = page(code)
    assert known is not None
    wrong, right = known.recipes("Wrong"), known.recipes("Right")
    assert known.text.startswith(f"# {code}: ")
    if not wrong:
        assert "\n## When\n" in known.text
        return
    assert len(wrong) == len(right) == 1
    assert set(found(wrong[0], folder)) == {code}
    for diagnostic in check_text(wrong[0], folder=folder).sink:
        assert diagnostic.primary is not None
        assert diagnostic.help
    assert found(right[0], folder) == []


def used_codes() -> set[str]:
    """Every code that stands in a string of the source."""
    files = [*PACKAGE.rglob("*.py"), *BACKENDS.rglob("*.py")]
    pattern = re.compile(r"[\"']([EW]0\d{3})[\"']")
    return {code for file in files for code in pattern.findall(file.read_text(encoding="utf-8"))}


def test_every_code_has_a_page() -> None:
    """Each code of the source has a page."""
    assert sorted(used_codes() - set(codes())) == []


def test_every_page_has_a_use() -> None:
    """Each page belongs to a code of the source."""
    assert sorted(set(codes()) - used_codes()) == []


def test_unknown_page() -> None:
    """A code without a page gives none, and so does a name that is no code."""
    assert page("E0999") is None
    assert page("../pages") is None
