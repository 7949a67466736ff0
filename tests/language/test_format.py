"""The formatter: the style, what it keeps, and the command."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.cli.main import main
from recipelang.diagnostics import RecipeError, Sink, Source
from recipelang.language import format as formatter
from recipelang.language.format import comments, format_source, shape
from recipelang.language.parser import parse
from tests.language.generator import comment, names, recipes, rename, reorder, whitespace

HERE = Path(__file__).parent


def formatted(text: str) -> str:
    """The text in the one style."""
    return format_source(Source("a.recipe", text))


def tree(text: str) -> object:
    """The syntax tree without spans; the text must parse."""
    sink = Sink()
    file = parse(Source("a.recipe", text), sink)
    assert not sink.diagnostics, text
    return shape(file.statements)


@pytest.mark.parametrize("name", ["example", "comments"])
def test_golden(name: str) -> None:
    """A text is formatted to the file beside it, which stays as it is."""
    before = (HERE / f"{name}.recipe").read_text(encoding="utf-8")
    after = (HERE / f"{name}.formatted").read_text(encoding="utf-8")
    assert formatted(before) == after
    assert formatted(after) == after


STYLE = {
    "rows of numbers": (
        f"t = gradient({', '.join(['0.125'] * 14)})\n",
        "t = gradient(\n    " + ", ".join(["0.125"] * 12) + ",\n    0.125, 0.125,\n)\n",
    ),
    "numbers with a comment": (
        f"t = [{', '.join(['1_000_000'] * 8)}, 2, # two\n 3]\n",
        "t = [\n" + "    1_000_000,\n" * 8 + "    2, # two\n    3,\n]\n",
    ),
    "spaces": ("a=f(x,y=1,)\n", "a = f(x, y = 1)\n"),
    "tabs": ("a\t=\tb\n", "a = b\n"),
    "line ends": ("a = 1\r\nb = 2", "a = 1\nb = 2\n"),
    "blank lines": ("\n\na = 1\n\n\n\nb = 2\n\n", "a = 1\n\nb = 2\n"),
    "arrow": ("a = b → f\n", "a =\n    b\n    -> f\n"),
    "two fields": ("a = f b {\n  c = 1\n  d = 2\n}\n", "a = f b { c = 1, d = 2 }\n"),
    "three fields": (
        "a = f { c = 1, d = 2, e = 3 }\n",
        "a = f {\n    c = 1\n    d = 2\n    e = 3\n}\n",
    ),
    "settings": ("defaults { seed = 1 }\n", "defaults {\n    seed = 1\n}\n"),
    "empty": ("# only\n", "# only\n"),
    "nothing": ("\n\n", ""),
    "types": ("a:List[Model]=[]\n", "a: List[Model] = []\n"),
    "list as operand": ("a = f [b]\n", "a = f [b]\n"),
    "gate": ('require a  of b>=1,"no"\n', 'require a of b >= 1, "no"\n'),
    "publish": ("publish(a -> f) to \"x\"\n", "publish (\n    a\n    -> f\n) to \"x\"\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", STYLE)
def test_style(name: str) -> None:
    """Each rule of the style does what it says."""
    before, after = STYLE[name]
    assert formatted(before) == after


def test_width() -> None:
    """A line of 88 columns stays, one of 89 is broken at its last bracket that helps."""
    head = "a = f(b, " + "c" * 63
    fits = f"{head}) with d(e = 10)\n"
    assert len(fits) == 88 + 1
    assert formatted(fits) == fits
    assert formatted(f"{head}c) with d(e = 10)\n") == f"{head}c) with d(\n    e = 10,\n)\n"


@settings(max_examples=120, deadline=None)
@given(recipes(), st.integers(0, 2**32))
def test_formatting_changes_layout_alone(text: str, seed: int) -> None:
    """Formatting keeps tree and comments, is idempotent, and undoes any other layout."""
    loose = whitespace(text, Random(seed))
    noisy = comment(loose, Random(seed))
    assert tree(text) == tree(loose) == tree(noisy)
    for version in (text, noisy):
        once = formatted(version)
        assert formatted(once) == once
        assert tree(once) == tree(text)
        assert comments(once) == comments(version)


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_layout_without_comments_is_canonical(text: str) -> None:
    """Two layouts of one recipe without comments and blank lines are formatted to one text."""
    plain = "".join(line + "\n" for line in text.split("\n") if line.strip() and "#" not in line)
    sink = Sink()
    parse(Source("a.recipe", plain), sink)
    if not sink.has_errors:
        once = formatted(plain)
        dense = "".join(f"{line}\n" for line in once.split("\n") if line)
        assert formatted(dense) == once


def test_lost_comment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the formatter ever lost a comment, it would refuse and not return a text."""
    monkeypatch.setattr(formatter, "attach", lambda tokens: (attach(tokens)[0], []))
    with pytest.raises(RecipeError, match="E0910"):
        formatted("a = 1\n# last\n")


attach = formatter.attach


def test_faults_are_raised() -> None:
    """A text that does not parse is not formatted."""
    with pytest.raises(RecipeError, match="E0102"):
        formatted("a =\n")


def test_edits_of_the_generator() -> None:
    """The edits do what they say: rename values alone, and keep every statement."""
    text = '# one\na = f b { a = a }\nb = model "x"\nc = t(a = b.a) -> g with a\n'
    assert names(text) == ("a", "b", "c")
    new = rename(text, {"a": "x", "b": "y"})
    assert new == '# one\nx = f y { a = x }\ny = model "x"\nc = t(a = y.a) -> g with x\n'
    other = reorder(text, Random(3))
    assert other != text
    assert sorted(other.splitlines()) == sorted(text.splitlines())


# ---------------------------------------------------------------- the command


def test_command_formats_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``recipe fmt`` rewrites through a link, keeps the mode, and leaves nothing else behind."""
    path = tmp_path / "a.recipe"
    path.write_text("a=1\n")
    path.chmod(0o640)
    link = tmp_path / "link.recipe"
    os.symlink(path, link)
    assert main(["fmt", str(link)]) == 0
    assert path.read_text() == "a = 1\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a.recipe", "link.recipe"]
    assert capsys.readouterr().out == f"formatted {link}\n"
    assert main(["fmt", str(path)]) == 0
    assert capsys.readouterr().out == ""


def test_command_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--check`` writes nothing and exits 1 only where something would change."""
    path = tmp_path / "a.recipe"
    path.write_text("a=1\n")
    assert main(["fmt", "--check", str(path)]) == 1
    assert path.read_text() == "a=1\n"
    assert capsys.readouterr().out == f"would change {path}\n"
    path.write_text("a = 1\n")
    assert main(["fmt", "--check", str(path)]) == 0


def test_command_reports_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with faults stay, the others are formatted, and unreadable ones alone exit with 2."""
    bad, good = tmp_path / "bad.recipe", tmp_path / "good.recipe"
    bad.write_text("a =\n")
    good.write_text("a=1\n")
    assert main(["fmt", str(bad), str(good)]) == 1
    assert bad.read_text() == "a =\n"
    assert good.read_text() == "a = 1\n"
    assert "E0102" in capsys.readouterr().err
    assert main(["fmt", str(tmp_path / "none.recipe")]) == 2
    assert "E0701" in capsys.readouterr().err


def test_long_phrases_go_on_before_a_preposition() -> None:
    """What no bracket makes narrower is wrapped before `and` or a preposition, and stays so."""
    models = " and ".join(f"model_number_{i}" for i in range(8))
    text = formatted(f"merged = linear-merge first with {models} {{ dtype = f32 }}\n")
    lines = text.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 88 for line in lines)
    assert lines[1].startswith("    and model_number_")
    assert formatted(text) == text
