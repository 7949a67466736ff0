"""`recipe check`, `recipe explain` and `recipe ops`, and an operation that is added by one file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipelang.checking import check_text
from recipelang.cli import main, run
from recipelang.ops import registry
from recipelang.ops.reference import form, reference
from recipelang.run import results

OPERATION = '''
"""toy-merge: an operation of a test."""

from typing import Annotated

from recipelang.ops.spec import (
    BLOCK, BY_ORIGIN, FROM, SUBJECT, WITH, Fraction, Model, PerInput, PerTensor, Range, operation,
)
from recipelang.types import ModelType, TensorInfo

INFO = TensorInfo("F32", (2, 2))
TENSORS = {f"model.layers.{i}.{part}.weight": INFO for i in (0, 1) for part in ("attn", "mlp")}


def toys(step):
    return ModelType({}, TENSORS)


@operation(kind="source", result="Model", result_type=toys)
def toy(size: Annotated[int, Range(1, 9), "how large"] = 1) -> None:
    """A model out of nothing."""


@operation(kind="weights", result="Model", origin="base", result_type=toys)
def toy_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "what to merge"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what it started from"],
    share: Annotated[PerInput[PerTensor[Fraction]], BLOCK, Range(0, 1), "share of each"] = 0.5,
) -> None:
    """Merge toys. They stay toys."""
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two operation files, searched by the registry."""
    folder = tmp_path / "operations"
    folder.mkdir()
    (folder / "toy.py").write_text(OPERATION)
    (folder / "toy_merge.py").write_text(OPERATION)
    monkeypatch.setenv("RECIPE_OPS", str(folder))
    registry.clear()
    yield folder
    monkeypatch.delenv("RECIPE_OPS")
    registry.clear()


def codes(text: str) -> list[str]:
    """The codes of a recipe's faults."""
    return [d.code for d in check_text(text).sink]


def test_one_file_adds_an_operation(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new file is seen by `check`, by suggestions, by `recipe ops` and by the reference."""
    assert codes("a = toy { size = 2 }\nb = toy-merge a from a") == []
    assert "did you mean `toy-merge`?" in [d.help for d in check_text("b = toy-merg 3").sink]
    operation = registry.lookup("toy-merge")
    assert operation is not None
    assert form(operation) == "toy-merge MODEL with MODEL and ... [from MODEL] { ... }"
    assert "Fraction in [0, 1], by tensor, on each input or in the block [50%]" in reference(
        operation
    )
    assert main(["ops"]) == 0
    assert "toy-merge                An operation of a test" in capsys.readouterr().out
    assert main(["ops", "toy-merge", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["operations"][0]["fields"][0]["name"] == "share"
    assert main(["ops", "toy-mrge"]) == 1
    assert "did you mean `recipe ops toy-merge`?" in capsys.readouterr().err


def test_patterns_that_match_no_tensor(toys: Path) -> None:
    """A pattern of `per` is checked against the tensors of the model where they are known."""
    start = "a = toy { size = 2 }\n"
    assert codes(start + 'b = toy-merge a from a { share = per { "attn" = 0.1, "*" = 1 } }') == []
    checked = check_text(start + 'b = toy-merge a from a { share = per { "attm" = 0.1, "*" = 1 } }')
    assert [(d.code, d.help) for d in checked.sink] == [("E0514", "did you mean `attn`?")]
    partly = start + 'b = toy-merge a(share = per { "ml" = 0.1 }) from a'
    assert codes(partly) == ["E0514"]
    assert codes(start + 'b = toy-merge a from a { share = per { "*.mlp.*" = 0.1 } }') == []


def test_check_reports_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sound files are named on stdout with 0; faults stand on stderr with 1; files alone give 2."""
    good, bad, missing = tmp_path / "good.recipe", tmp_path / "bad.recipe", tmp_path / "no.recipe"
    good.write_text("rate = 1e-5\n")
    bad.write_text("rate = rte\nother = 2h + 3\n")
    assert main(["check", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: sound\n"
    assert main(["check", str(good), str(bad)]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{good}: sound\n"
    assert "error[E0201]" in printed.err
    assert "error[E0402]" in printed.err
    assert main(["check", str(missing)]) == 2
    assert main(["check", str(good), "--set", "rate"]) == 1
    capsys.readouterr()
    assert main(["check", str(bad), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "recipelang/check/1"
    assert [d["code"] for d in report["diagnostics"]] == ["E0201", "E0402"]
    assert report["diagnostics"][0]["primary"]["span"]["start"] == {
        "line": 1,
        "column": 8,
        "offset": 7,
    }


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """A page is printed whole; an unknown code offers the nearest."""
    assert main(["explain", "e0412"]) == 0
    assert capsys.readouterr().out.startswith("# E0412: ")
    assert main(["explain", "E0412", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["code"] == "E0412"
    assert main(["explain", "E0419"]) == 1
    assert "did you mean `recipe explain E041" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "schema", "message", "help"),
    [
        (["ops", "ties-mrge"], "ops", "no operation `ties-mrge`", "recipe ops ties-merge"),
        (["explain", "E0419"], "explain", "no page for `E0419`", "recipe explain E041"),
        *(
            ([command, "m.recipe", "--set", "rate"], schema, "`--set rate`", "--set name=value")
            for command, schema in (
                ("check", "check"), ("plan", "plan"), ("run", "results"), ("fetch", "fetch"),
            )
        ),
    ],
)  # fmt: skip
def test_arguments_that_a_command_cannot_use(
    arguments: list[str], schema: str, message: str, help: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One diagnostic with a remedy, as text on stderr or in an object on stdout."""
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error[E0863]: ")
    assert message in said.err
    assert help in said.err
    assert main([*arguments, "--format", "json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    assert found["schema"] == f"recipelang/{schema}/1"
    assert found["errors"] == 1
    ((code, told, remedy),) = [(d["code"], d["message"], d["help"]) for d in found["diagnostics"]]
    assert code == "E0863"
    assert message in told
    assert help in remedy


def test_results_have_one_schema() -> None:
    """Those of a run, and the object that tells a fault of its arguments."""
    assert run.SCHEMA == results.SCHEMA


def test_a_plug_in_that_fails_is_told_with_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In JSON it stands beside the operations."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.setenv("RECIPE_OPS", str(tmp_path))
    registry.clear()
    try:
        code = main(["ops", "--format", "json"])
    finally:
        monkeypatch.delenv("RECIPE_OPS")
        registry.clear()
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert code == 1
    assert said.err == ""
    assert [d["severity"] for d in found["diagnostics"]] == ["error"]
    assert "ties-merge" in [row["verb"] for row in found["operations"]]


def test_every_operation_has_a_reference() -> None:
    """Each verb has a form, a documentation and a page; each of its fields says what it is."""
    for verb in registry.verbs():
        operation = registry.lookup(verb)
        assert operation is not None
        assert form(operation).startswith(verb)
        assert operation.doc
        assert reference(operation)
        assert [f.name for f in operation.fields if not f.doc] == []


def test_the_list_says_in_words_what_operations_do(capsys: pytest.CaptureFixture[str]) -> None:
    """A line an operation, without formulas; `ties-merge` reads as in its paper."""
    assert main(["ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "ties-merge               Keep each task vector's largest changes, elect a sign"
        in "".join(line for line in lines if line.startswith("ties-merge"))
    )
    assert not [line for line in lines if " = " in line or "sum_i" in line or len(line) > 170]
