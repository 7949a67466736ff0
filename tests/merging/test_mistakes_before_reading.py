"""Every mistake in a merge is found before a weight is read: the checkpoints have true headers and
holes of 8 GiB in place of their weights, and a reader that is asked for them fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recipelang.store import digests
from recipelang.types import TensorInfo
from recipelang.weights import rawread
from tests.merging.projects import SHAPES, check, models, run, write_hollow
from tests.weights.words import write_tokenizer

HEAD = models(
    "base", "wide", "odd", "deep", "less", "words", "others", "other", a="base", b="base", c="base"
)
MISTAKES: dict[str, tuple[str, str]] = {
    "another width": ("m = linear-merge a with «wide»", "E0601"),
    "another shape of one tensor": ("m = linear-merge a with «odd»", "E0601"),
    "another number of layers": ("m = linear-merge a with «deep»", "E0601"),
    "a tensor that one model lacks": ("m = linear-merge a with «less»", "E0603"),
    "other tokens": ("m = linear-merge words with «others»", "E0602"),
    "tokens of a base that is not there": (
        "m = linear-merge words with others { vocabulary = «of-base» }", "E0641",
    ),
    "no common origin": ("m = «ties-merge» a with other", "E0604"),
    "a base of another shape": ("m = ties-merge a with b from «wide»", "E0601"),
    "an origin of another shape": ('m = model "a" from «wide»', "E0601"),
    "a base where there is none": (
        "m = slerp-merge a with b «from» base { t = 0.5 }", "E0502",
    ),
    "layers beyond the last": ("m = stack a.layers(0, «9») with b.layers(0, 1)", "E0630"),
    "no layers": ("m = stack a.layers(0, «0») with b.layers(0, 1)", "E0630"),
    "ranges of two lengths": (
        "m = linear-merge a.layers(0, 2) with «b.layers(0, 1)»", "E0632",
    ),
    "layers with a model": ("m = linear-merge a.layers(0, 2) with «b»", "E0631"),
    "layers of another width": ("m = stack a.layers(0, 1) with «wide.layers(0, 1)»", "E0601"),
    "a density of zero": ("m = ties-merge a with b { density = «0» }", "E0413"),
    "a density above one": ("m = ties-merge a with b { density = «150%» }", "E0413"),
    "a negative density of an input": ("m = ties-merge a(density = «-0.1») with b", "E0413"),
    "a density of zero at the end of a gradient": (
        "m = dare-merge a with b { density = gradient(0.5, «0») }", "E0413",
    ),
    "a density above one by pattern": (
        'm = ties-merge a with b { density = per { "mlp" = «2» } }', "E0413",
    ),
    "probabilities below zero": (
        "m = della-merge a with b { density = 0.2, epsilon = «0.3» }", "E0536",
    ),
    "weights that cancel": ("m = linear-merge a(weight = «1») with b(weight = -1)", "E0541"),
    "a third input to slerp": ("m = slerp-merge a with b and «c» { t = 0.5 }", "E0542"),
    "one input to model stock": ("m = model-stock-merge «a» from base", "E0542"),
    "one input to a mean": ("m = «linear-merge» a", "E0506"),
    "a pattern that matches nothing": (
        'm = slerp-merge a with b { t = per { «"mpl"» = 0.5, "*" = 1 } }', "E0514",
    ),
    "a glob that matches nothing": (
        'm = slerp-merge a with b { t = per { «"*.attn.*"» = 0.5, "*" = 1 } }', "E0514",
    ),
    "a glob on an input that matches nothing": (
        'm = linear-merge a(weight = per { «"vision.*"» = 0, "*" = 1 }) with b', "E0514",
    ),
    "a target that matches nothing": (
        'm = extract-adapter a from base { rank = 2, targets = «["k_proj"]» }', "E0555",
    ),
    "a parameter that is required": ("m = «slerp-merge» a with b", "E0503"),
    "tensors without a value that is required": (
        'm = slerp-merge a with b { t = «per { "mlp" = 0.5 }» }', "E0503",
    ),
    "a misspelt method": ("m = «linaer-merge» a with b", "E0202"),
    "a misspelt field": ("m = ties-merge a with b { «densty» = 0.5 }", "E0501"),
    "a misspelt parameter of an input": ("m = ties-merge a(«wieght» = 0.5) with b", "E0510"),
    "a misspelt model": ("m = linear-merge a with «bb»", "E0201"),
    "a folder that is not there": ('m = model «"gone"»', "E0720"),
    "a misspelt dtype": ("m = linear-merge a with b { dtype = «bf61» }", "E0504"),
    "a sum of models": ("m = «a + b»", "E0304"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hollow models: alike, but for what their name says."""
    made = tmp_path_factory.mktemp("hollow")
    table = {name: TensorInfo("BF16", shape) for name, shape in SHAPES.items()}
    table["model.layers.0.mlp.huge_proj.weight"] = TensorInfo("BF16", (1 << 17, 1 << 15))
    wide = {n: TensorInfo("BF16", tuple(2 * x for x in i.shape)) for n, i in table.items()}
    for name in ("base", "a", "b", "c", "other", "words", "others"):
        write_hollow(made / name, table)
    write_hollow(made / "wide", wide, hidden_size=8, intermediate_size=16, vocab_size=12)
    write_hollow(made / "odd", table | {"model.norm.weight": TensorInfo("BF16", (5,))})
    write_hollow(made / "deep", table, num_hidden_layers=3)
    write_hollow(made / "less", {n: i for n, i in table.items() if n != "model.norm.weight"})
    write_tokenizer(made / "words", list("abcdef"))
    write_tokenizer(made / "others", list("abcdeg"))
    return made


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Fails the test that reads the data of a tensor, or hashes it."""
    asked: list[object] = []

    def fail(*arguments: object) -> None:
        asked.append(arguments)
        raise AssertionError("weights were read")

    monkeypatch.setattr(rawread, "read_bytes", fail)
    monkeypatch.setattr(digests, "file_digest", fail)
    monkeypatch.setattr(digests, "hash_ranges", fail)
    yield asked
    assert not asked


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_before_weights_are_read(
    mistake: str, folder: Path, no_reading: list[object]
) -> None:
    """One error, at its place, with what to do; and a run ends there."""
    marked, code = MISTAKES[mistake]
    before, _, rest = marked.partition("«")
    inside, _, after = rest.partition("»")
    text = HEAD + before + inside + after + "\n"
    (found,) = (d for d in check(folder, text) if d.severity == "error")
    assert found.code == code, found.message
    assert found.primary is not None
    span = found.primary.span
    assert text[span.start : span.end] == inside
    assert span.start == len(HEAD) + len(before)
    assert found.help
    outcome = run(folder, text)
    assert outcome.exit_code == (2 if code.startswith("E07") else 1)
    assert outcome.record is None


def test_the_reader_that_fails_is_the_one_that_merges_use(
    folder: Path, no_reading: list[object]
) -> None:
    """A merge without a mistake does ask it: it hashes its inputs."""
    with pytest.raises(AssertionError, match="weights were read"):
        run(folder, HEAD + "m = linear-merge a with b\n")
    assert no_reading
    no_reading.clear()
