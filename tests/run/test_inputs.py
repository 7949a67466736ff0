"""What a run finds out before its first step: all rows, supervision, sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipelang.data import tokenise as tokenising
from recipelang.lineage.lockfile import lock_path
from recipelang.run.events import Event
from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from tests.run.project import write_project

HEAD = """\
language 1

words = tokenizer "a-data/tokenizer"
blank = init "llama" with words { hidden = 16, layers = 1, heads = 2, context = 64 }
proverbs = dataset "a-data/proverbs.txt" { length = 48 }
"""
CHAIN = """
wise = finetune blank on proverbs { steps = 1 }
wiser = finetune wise on more { steps = 1 }
"""


def refused(folder: Path, text: str, options: RunOptions) -> Outcome:
    """The outcome of a run that ends before it starts: no step is announced, nothing is written."""
    recipe = write_project(folder, HEAD + text)
    heard: list[Event] = []
    outcome = run_recipe(recipe, options, heard.append)
    assert outcome.record is None
    assert heard == []
    assert not lock_path(recipe).exists()
    return outcome


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        ([{"text": "a"}] * 1200 + [{"txt": "b"}], "E0777", "jsonl:1201`: the row has no `text`"),
        ([{"prompt": "why? " * 20, "completion": "so"}] * 70, "E0778", "rows of 48 tokens"),
    ],
)  # fmt: skip
def test_data_are_looked_at_first(
    rows: list[dict[str, str]], code: str, words: str, tmp_path: Path
) -> None:
    """A fault of the second training's data stops the run before the first training."""
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = 'more = dataset "more.jsonl" { length = 48 }' + CHAIN
    outcome = refused(tmp_path, text, RunOptions(("wiser",), "torch"))
    (found,) = outcome.diagnostics
    assert (outcome.exit_code, found.code) == (2, code)
    assert words in found.message
    assert found.primary is not None


def test_a_chat_that_the_template_refuses(tmp_path: Path) -> None:
    """Wherever the row stands, it is known before the first step."""
    chats = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]] * 100
    chats.append([{"role": "user", "content": "stop"}, {"role": "assistant", "content": "ho"}])
    lines = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
    (tmp_path / "more.jsonl").write_text(lines)
    template = (
        "{% for m in messages %}{% if m.content == 'stop' %}{{ raise_exception('no') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (tmp_path / "t.jinja").write_text(template)
    text = 'more = dataset "more.jsonl" { length = 48, template = "t.jinja" }' + CHAIN
    outcome = refused(tmp_path, text, RunOptions(("wiser",), "torch"))
    assert [d.code for d in outcome.diagnostics] == ["E0779"]
    assert "row 101" in outcome.diagnostics[0].message


def test_a_source_that_is_not_here(tmp_path: Path) -> None:
    """Offline, a model that was not fetched stops the run before anything else is computed."""
    text = """
far = model "hf:no/such" at "c1899de289a04d12100db370d81485cdf75e47ca"
wise = finetune blank on proverbs { steps = 1 }
half = cast far { dtype = f16 }
"""
    outcome = refused(tmp_path, text, RunOptions(("wise", "half"), "torch", offline=True))
    assert outcome.exit_code == 2
    assert "E0723" in [d.code for d in outcome.diagnostics]


def test_data_are_tokenised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at before the run, two trainings and a distillation read the same tokens."""
    calls: list[str] = []
    original = tokenising.tokenise

    def counted(*args: object, **options: object) -> object:
        calls.append(str(args[1]))
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenising, "tokenise", counted)
    text = """
one = finetune blank on proverbs { steps = 1 }
two = finetune blank on proverbs { steps = 2 }
three = distill one into two on proverbs { steps = 1 }
"""
    recipe = write_project(tmp_path, HEAD + text)
    assert run_recipe(recipe, RunOptions(("three",), "torch")).exit_code == 0
    assert calls == ["text"]
