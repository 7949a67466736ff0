"""The language by example: every ```recipe block of the Markdown files beside this one.

A fault is announced at the end of its line: ``# error: [E0412] "fragment of the message or help"``
(or ``warning:``); a line that holds the comment alone speaks of the next one. What is not
announced must not happen. A ```graph block behind a recipe lists steps by place: operation,
operands, and the attributes that matter, ``student = ties-merge inputs(a, b) base(c) {density =
(0.5, 0.5)}``; ``...`` at its end allows further steps. A ```file NAME block adds a file beside the
recipe.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from recipelang.checking import Checked, check_text
from recipelang.ir.graph import Node
from recipelang.program import Program
from recipelang.values import show

HERE = Path(__file__).parent
BLOCK = re.compile(r"^```(recipe|graph|file)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ANNOUNCED = re.compile(r'(error|warning): \[([EW]\d{4})\](?: "((?:[^"\\]|\\.)*)")?')
LINE = re.compile(r"(\S+) = (\S+)((?: \w+\([^)]*\))*)(?: \{(.*)\})?")


class Case(NamedTuple):
    """A recipe with the steps it is expected to have, or None, and the files beside it."""

    name: str
    recipe: str
    graph: str | None
    files: tuple[tuple[str, str], ...]


def cases() -> list[Case]:
    """The blocks of every file, in order."""
    found: list[Case] = []
    for file in sorted(HERE.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        files: list[tuple[str, str]] = []
        for match in BLOCK.finditer(text):
            kind, name, body = match.groups()
            line = text.count("\n", 0, match.start()) + 1
            if kind == "file":
                files.append((name.strip(), body))
            elif kind == "recipe":
                found.append(Case(f"{file.stem}:{line}", body, None, tuple(files)))
                files = []
            else:
                found[-1] = found[-1]._replace(graph=body)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with small data."""
    rows = [{"prompt": f"{i} and {i}?", "completion": str(2 * i)} for i in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("notes", "other", "exam"):
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "text.txt").write_text("".join(f"line {i}\n" for i in range(40)))
    return tmp_path


def announced(recipe: str) -> list[tuple[int, str, str, str]]:
    """Line, severity, code and fragment of every fault that the recipe announces."""
    found: list[tuple[int, str, str, str]] = []
    for number, line in enumerate(recipe.splitlines(), 1):
        before, comment = re.split(r"# (?=error: |warning: )|$", line, maxsplit=1)
        for severity, code, fragment in ANNOUNCED.findall(comment):
            at = number if before.strip() else number + 1
            found.append((at, severity, code, fragment.replace('\\"', '"')))
    return found


def happened(checked: Checked) -> list[tuple[int, str, str, str]]:
    """Line, severity, code and words of every error and warning."""
    found: list[tuple[int, str, str, str]] = []
    for d in checked.sink:
        here = [x for x in (d.primary, *d.secondary) if x and x.span.source.path == "recipe"]
        line = here[0].span.source.position(here[0].span.start)[0] if here else 0
        labels = [d.primary, *d.secondary] if d.primary else [*d.secondary]
        words = " | ".join([d.message, d.help, *d.notes, *(label.text for label in labels)])
        if d.severity != "note":
            found.append((line, d.severity, d.code, words))
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_example(case: Case, folder: Path) -> None:
    """Exactly the announced faults happen, where they are announced; the listed steps are there."""
    for name, body in case.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)
    checked = check_text(case.recipe, folder=str(folder))
    expected, found = announced(case.recipe), happened(checked)
    assert [e[:3] for e in sorted(expected)] == [f[:3] for f in sorted(found)], found
    for (*_, fragment), (*_, words) in zip(sorted(expected), sorted(found), strict=True):
        assert fragment in words
    if case.graph is not None:
        assert checked.program is not None
        compare(checked.program, case.graph, folder)


def compare(program: Program, graph: str, folder: Path) -> None:
    """Compare the listed steps with the program's."""
    lines = [line for line in graph.splitlines() if line.strip()]
    steps = {place: node for node, place in program.places.items()}
    if lines[-1] == "...":
        lines.pop()
    else:
        assert len(lines) == len(steps), sorted(steps)
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        place, operation, operands, attributes = match.groups()
        assert place in steps, sorted(steps)
        node = steps[place]
        assert f"{node.op}{_operands(node, program)}" == f"{operation}{operands}"
        shown = {name: show(value) for name, value in (*node.attrs, *node.hints)}
        for item in (attributes or "").split("; "):
            name, _, value = item.partition(" = ")
            if name:
                assert shown[name].replace(str(folder) + "/", "") == value, (place, name)


def _operands(node: Node, program: Program) -> str:
    return "".join(
        f" {role}({', '.join(program.places[n] for n in nodes)})" for role, nodes in node.operands
    )
