"""A whole recipe: the reference's example, what `check` loads, and edits that mean nothing."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recipelang
from recipelang.checking import check_text
from recipelang.lineage.keys import step_ids
from recipelang.program import Program, nodes_of
from tests.language.generator import comment, recipes, rename, reorder, whitespace

EXAMPLE = Path(__file__).parent / "example.recipe"
EVALS = """\
recipe exam_score(m: Model, d: Dataset) => Measured {
    give accuracy of m on d
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the reference's example names."""
    path = tmp_path_factory.mktemp("medic")
    (path / "lib").mkdir()
    (path / "lib" / "evals.recipe").write_text(EVALS)
    (path / "data").mkdir()
    rows = [{"prompt": f"{i}?", "completion": str(i)} for i in range(60)]
    for name in ("clinical-notes", "manners", "board-exam-dev", "board-exam"):
        (path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def program(text: str, folder: Path) -> Program:
    """The program of a recipe without errors."""
    checked = check_text(text, folder=str(folder))
    assert checked.program is not None, [(d.code, d.message) for d in checked.sink]
    return checked.program


def meaning(found: Program) -> tuple[object, ...]:
    """What a program means, without names and order: step ids, gates, publishes and settings."""
    nodes = [n for value in found.bindings.values() for n in nodes_of(value)]
    ids = step_ids(found.places, lambda node: str(node.attrs))
    gates = sorted(
        (g.hard, g.op, sorted(ids[n] for n in (*nodes_of(g.left), *nodes_of(g.right))))
        for g in found.gates
    )
    published = sorted((ids[p.what], p.uri) for p in found.publishes)
    return (
        sorted({ids[n] for n in nodes}),
        gates,
        published,
        found.seed,
        sorted(found.params.values(), key=repr),
        (found.budget.wall, found.budget.memory, found.budget.device),
    )


def test_the_example_of_the_reference(folder: Path) -> None:
    """The whole file of the language reference is a sound program with the names it gives."""
    found = program(EXAMPLE.read_text(), folder)
    places = set(found.places.values())
    assert {"base", "teachers[2]", "teacher", "student.1", "student", "notes.holdout"} <= places
    assert found.seed == 17
    assert found.budget.device == (1, "gpu")
    assert [g.text for g in found.gates] == [
        "accuracy of student on exam >= 62%",
        "perplexity of student on notes.holdout <= 1.1 * (perplexity of small on notes.holdout)",
    ]
    student = next(n for n, place in found.places.items() if place == "student")
    (base,) = student.role("base")
    assert found.places[base] == "small"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_edits_that_mean_nothing(seed: int, folder: Path) -> None:
    """Renaming, reordering, other layout and comments leave the meaning equal."""
    text = EXAMPLE.read_text()
    expected = meaning(program(text, folder))
    random = Random(seed)
    names = ("base", "small", "notes", "teacher", "student", "chat", "dev", "exam", "teachers")
    edited = rename(text, {name: f"{name}_{random.randrange(100)}" for name in names})
    for edit in (reorder, comment, whitespace):
        if random.random() < 0.7:
            edited = edit(edited, random)
    assert meaning(program(edited, folder)) == expected


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=recipes())
def test_check_never_raises(text: str, folder: Path) -> None:
    """Any text that parses gives a program or diagnostics, each with a code and a place."""
    checked = check_text(text, folder=str(folder))
    assert (checked.program is None) == checked.sink.has_errors
    assert all(d.primary is not None for d in checked.sink)


HEAVY = "'numpy', 'torch', 'jax', 'transformers', 'rich', 'safetensors', 'tokenizers', 'ml_dtypes'"


def test_check_loads_nothing_heavy(folder: Path) -> None:
    """`recipe check` imports no array library, no tokenizer and no progress bar."""
    file = folder / "medic.recipe"
    file.write_text(EXAMPLE.read_text())
    script = (
        "import sys; from recipelang.cli import main; code = main(['check', sys.argv[1]]);"
        f"print([m for m in ({HEAVY}) if m in sys.modules], code)"
    )
    result = _python(script, str(file))
    assert result.stdout.splitlines()[-1] == "[] 0", result.stderr


def test_import_loads_almost_nothing() -> None:
    """`import recipelang` loads none of its own modules."""
    result = _python(
        "import sys, recipelang; print([m for m in sys.modules if 'recipelang.' in m])"
    )
    assert result.stdout.strip() == "[]"


def _python(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    root = Path(recipelang.__file__).parent.parent
    command = [sys.executable, "-c", script, *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)


def test_settings_replace_parameters(folder: Path) -> None:
    """`--set` gives a parameter another value, read as the language does, and only that."""
    text = 'param rate: Float = 1e-5\nparam window: Tokens = 1k\nparam name: Text = "a"\n'
    checked = check_text(text, {"rate": "2 * 1e-4", "window": "4k", "name": "b c"})
    assert checked.program is not None
    params = checked.program.params
    assert params["rate"] == 0.0002
    assert params["name"] == "b c"
    assert checked.program.overridden == {"rate", "window", "name"}
    assert [d.code for d in check_text(text, {"rat": "1"}).sink] == ["E0208"]
    assert next(iter(check_text(text, {"rate": "= ="}).sink)).code.startswith("E01")
    assert [d.code for d in check_text(text, {"rate": "2h"}).sink] == ["E0412"]


def test_use_in_a_circle(tmp_path: Path) -> None:
    """Files that use each other are one fault, also through a third."""
    (tmp_path / "a.recipe").write_text('use "b.recipe" as b\n')
    (tmp_path / "b.recipe").write_text('use "a.recipe" as a\n')
    checked = recipelang.check(tmp_path / "a.recipe")
    assert [d.code for d in checked.sink] == ["E0207"]


def test_deep_and_wide_programs() -> None:
    """Long dependency chains, many doubling calls and huge numbers end with a value or a fault."""
    chain = "".join(f"a{i} = a{i + 1} + 1\n" for i in range(3000)) + "a3000 = 0\n"
    checked = check_text(chain)
    assert checked.program is not None
    assert checked.program.bindings["a0"] == 3000
    growth = "n0 = 1e18\n" + "".join(f"n{i} = n{i - 1} * n{i - 1}\n" for i in range(1, 12))
    assert {d.code for d in check_text(growth).sink} == {"E0402"}
