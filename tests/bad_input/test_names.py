"""Bad input that is refused before anything runs: names that nothing has."""

from __future__ import annotations

import pytest

from recipelang.language.calls import PLANNED
from recipelang.ops import registry
from tests.bad_input.lab import Lab


def test_unknown_verb(lab: Lab) -> None:
    """The nearest verb is offered."""
    lab.refuses("t = ^finetun a on notes", "E0202", "did you mean `finetune`?")


def test_verb_that_is_not_built_yet(lab: Lab) -> None:
    """What the documentation calls designed is no misspelling, unless an operation has the name."""
    lab.refuses("t = ^align a on notes", "E0202", "the verb `align` is not built yet")
    assert not PLANNED & set(registry.verbs())


def test_unknown_field(lab: Lab) -> None:
    """Another tool's name for a field leads to ours."""
    lab.refuses("t = finetune a on notes { ^learning_rate = 1 }", "E0501", "did you mean `lr`?")


def test_field_of_a_setting(lab: Lab) -> None:
    """An argument of a setting that stands in the block is told where it belongs."""
    lab.refuses("t = finetune a on notes { ^rank = 4 }", "E0501", "`adapter = lora(rank = ...)`")


def test_clause_in_the_block(lab: Lab) -> None:
    """A clause that stands in the block is told where it belongs."""
    text = "t = finetune a on notes { ^over = notes }"
    lab.refuses(text, "E0501", "it stands in the phrase: `finetune ... over x`")


def test_unknown_method(lab: Lab) -> None:
    """A setting that the field does not have."""
    lab.refuses("t = finetune a on notes { adapter = ^lorra }", "E0509", "did you mean `lora`?")


def test_unknown_metric(lab: Lab) -> None:
    """A metric in a list of metrics."""
    text = "s = evaluate [a] on notes { metrics = [^ppl] }"
    lab.refuses(text, "E0512", "did you mean `perplexity`?")


def test_no_metric(lab: Lab) -> None:
    """A table without a metric would be an empty one, also where `defaults` leave it so."""
    text = "s = evaluate [a] on notes { metrics = ^[] }"
    lab.refuses(text, "E0506", "name one at least, such as `metrics = [perplexity]`")
    lab.refuses("defaults { metrics = ^[] }\ns = evaluate [a] on notes", "E0506", "an empty list")


def test_unknown_name(lab: Lab) -> None:
    """A name that nothing binds."""
    lab.refuses("t = finetune a on ^note", "E0201", "did you mean `notes`?")


def test_truth_value_of_another_language(lab: Lab) -> None:
    """`True` is told to be `true`."""
    lab.refuses("t = finetune a on notes { packing = ^True }", "E0201", "did you mean `true`?")


def test_plug_in_that_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation file that cannot be imported is a fault of its verb, without a traceback."""
    (lab.folder / "plug").mkdir()
    (lab.folder / "plug" / "frobnicate.py").write_text("import no_such_module_here\n")
    monkeypatch.setenv("RECIPE_OPS", str(lab.folder / "plug"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    registry.clear()
    try:
        lab.refuses("t = ^frobnicate a", "E0216", "No module named 'no_such_module_here'")
    finally:
        monkeypatch.delenv("RECIPE_OPS")
        registry.clear()
