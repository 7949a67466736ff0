"""Merges that name a damaged or hostile checkpoint: one error that says which file, where in the
recipe and what to do, no traceback, nothing run, and the exit code of unreadable files.

The number in front of a case is its row in the table of hostile inputs of the checkpoint format:
headers (1 to 5), names (6, 7), sizes (8), indexes and links (9 to 11), pickles (12, 13),
configurations (14, 15), numbers (19), adapters (27), ties (28).
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.merging.bounded import Job, Told, run_bounded
from tests.merging.hostile import ADAPTED, ADAPTERS, CODE_KEYS, MERGE, NO_NUMBER, ODD, REFUSED
from tests.merging.projects import SHAPES, arrays_of, load_folder, tuned, write_model

COMMANDS = ("check", "run")
SWAPPED = tuple(case for case in ODD if case.startswith("11-"))
HEAD = re.compile(r"(error|warning|note)\[[EW]\d+\]: ")


def sound(folder: Path) -> Path:
    """Two sound models, ``a`` and ``b``."""
    base = arrays_of(0)
    write_model(folder / "b", base)
    write_model(folder / "a", tuned(base, 1))
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The folder of every case, with its recipes."""
    found: dict[str, Path] = {}
    rows = [
        *((case, build, MERGE, "") for case, (build, _, _) in REFUSED.items()),
        *((case, build, ADAPTED, "") for case, (build, _, _) in ADAPTERS.items()),
        *((case, build, MERGE, again) for case, (build, again) in ODD.items()),
    ]
    for case, build, text, again in rows:
        found[case] = sound(tmp_path_factory.mktemp(case))
        build(found[case] / "a")
        (found[case] / "m.recipe").write_text(text)
        if again:
            (found[case] / "again.recipe").write_text(again)
    return found


@pytest.fixture(scope="module")
def told_of(
    cases: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[tuple[str, str], Told]:
    """What each command said of each case, in a process that may take 5 seconds for one, and 200
    MiB for all; ``again`` is the run of the second recipe."""
    healthy = sound(tmp_path_factory.mktemp("healthy")) / "m.recipe"
    healthy.write_text(MERGE)
    jobs: dict[tuple[str, str], Job] = {}
    for case, folder in cases.items():
        for command in COMMANDS:
            jobs[case, command] = Job([command, str(folder / "m.recipe")])
        if case in SWAPPED:
            files = [str(folder / name / "model.safetensors") for name in ("a", "other")]
            jobs[case, "run"] = Job(["run", str(folder / "m.recipe")], files)
        if (folder / "again.recipe").exists():
            jobs[case, "again"] = Job(["run", str(folder / "again.recipe")])
    return dict(zip(jobs, run_bounded(["run", str(healthy)], list(jobs.values())), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_checkpoint_is_one_error(
    case: str, command: str, cases: Mapping[str, Path],
    told_of: Mapping[tuple[str, str], Told],
) -> None:  # fmt: skip
    """With file, place in the recipe and remedy, in little time and memory; nothing is written or
    run."""
    _, code, words = REFUSED[case]
    folder, told = cases[case], told_of[case, command]
    assert told.exit_code == 2
    (head,) = heads(told)
    assert head.startswith(f"error[{code}]: ")
    assert words in head
    assert str(folder / "a") in head
    assert f"--> {folder / 'm.recipe'}:2:11" in told.text
    assert "= help: " in told.text
    assert "Traceback" not in told.text
    assert "swordfish" not in told.text
    assert told.text.replace("\n", "").isprintable()
    assert not (folder / "out").exists()
    assert not (folder / "canary").exists()


def heads(told: Told) -> list[str]:
    """The first lines of what was said, in which its code and severity stand."""
    return [line for line in told.text.splitlines() if HEAD.match(line)]


def carried_out(told_of: Mapping[tuple[str, str], Told], case: str, *, says: str) -> None:
    """The check and the run of a case succeed, and each says nothing but this."""
    for command in COMMANDS:
        assert told_of[case, command].exit_code == 0
        assert all(line.startswith(says) for line in heads(told_of[case, command]))
    assert bool(heads(told_of[case, "check"])) == bool(says)


def test_7_letters_of_two_alphabets_are_a_warning(
    cases: Mapping[str, Path], told_of: Mapping[tuple[str, str], Told]
) -> None:
    """A Cyrillic letter in a Latin name is told; the merge is carried out."""
    case = "7-two-alphabets"
    carried_out(told_of, case, says="warning[W0724]")
    assert len(heads(told_of[case, "check"])) == 2
    assert load_folder(cases[case] / "out")["model.n\u043erm.weight"].all()


@pytest.mark.parametrize("key", CODE_KEYS)
def test_14_code_named_by_a_configuration_is_never_run(
    key: str, cases: Mapping[str, Path], told_of: Mapping[tuple[str, str], Told]
) -> None:
    """It is a warning; the merge is carried out, and its configuration names no code."""
    case = f"14-{key}"
    carried_out(told_of, case, says="warning[W0729]")
    (head,) = heads(told_of[case, "check"])
    assert f"`{key}`" in head
    out = cases[case] / "out"
    assert key not in json.loads((out / "config.json").read_text())
    assert not (out / "code.py").exists()


@pytest.mark.parametrize(("case", "bad"), [("19-NaN", np.nan), ("19-infinite", np.inf)])
def test_19_numbers_that_are_none_stop_the_merge(
    case: str, bad: float, cases: Mapping[str, Path], told_of: Mapping[tuple[str, str], Told]
) -> None:
    """At the first such tensor, by name, with exit code 4, unless the recipe allows them."""
    assert told_of[case, "check"].exit_code == 0
    refused = told_of[case, "run"]
    assert refused.exit_code == 4
    (head,) = heads(refused)
    assert head.startswith("error[E0620]: ")
    assert f"`{NO_NUMBER}`" in head
    assert "nonfinite = allow" in refused.text
    assert "Traceback" not in refused.text
    assert not (cases[case] / "out").exists()
    assert told_of[case, "again"].exit_code == 0
    got = load_folder(cases[case] / "again")[NO_NUMBER]
    np.testing.assert_equal(got[0, 0], bad)
    assert np.isfinite(got.reshape(-1)[1:]).all()


def test_19_denormal_numbers_are_numbers(
    cases: Mapping[str, Path], told_of: Mapping[tuple[str, str], Told]
) -> None:
    """The smallest ones are merged like others."""
    carried_out(told_of, "19-denormal", says="")
    got = load_folder(cases["19-denormal"] / "out")
    assert set(got) == set(SHAPES)
    assert all((array == np.float32(1e-42)).all() for array in got.values())


@pytest.mark.parametrize("case", SWAPPED)
def test_11_a_file_swapped_while_it_is_read(
    case: str, cases: Mapping[str, Path], told_of: Mapping[tuple[str, str], Told]
) -> None:
    """A merge of other bytes than those that were hashed is not kept, and the next run makes the
    merge of what is there then."""
    refused = told_of[case, "run"]
    assert refused.exit_code == 4
    (head,) = heads(refused)
    assert head.startswith("error[E0735]: ")
    assert "a/model.safetensors" in head
    assert "= help: " in refused.text
    assert "Traceback" not in refused.text
    assert not (cases[case] / "out").exists()
    assert told_of[case, "again"].exit_code == 0
    got = load_folder(cases[case] / "again")
    mean = (arrays_of(0)["model.norm.weight"] + tuned(arrays_of(0), 1)["model.norm.weight"]) / 2
    np.testing.assert_allclose(got["model.norm.weight"], mean, rtol=1e-6)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", ADAPTERS)
def test_27_a_hostile_adapter_is_one_error(
    case: str, command: str, cases: Mapping[str, Path],
    told_of: Mapping[tuple[str, str], Told],
) -> None:  # fmt: skip
    """As an input of a merge: named, with a remedy, in little time and memory."""
    _, code, words = ADAPTERS[case]
    told = told_of[case, command]
    assert told.exit_code == (2 if code.startswith("E07") else 1)
    assert told.text.count("error[") == 1
    assert f"error[{code}]" in told.text
    assert words in told.text
    assert f"--> {cases[case] / 'm.recipe'}:3:" in told.text
    assert "= help: " in told.text
    assert "Traceback" not in told.text


@pytest.mark.parametrize(
    ("does", "ending"),
    [
        ("with bounded_time(0.1):\n    while True:\n        pass", -signal.SIGPROF),
        ("bound_memory()\nbytearray(2 * MEMORY)", 1),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux only")
def test_what_takes_too_much_is_ended(does: str, ending: int) -> None:
    """The bounds above are ones."""
    code = f"from tests.merging.bounded import MEMORY, bound_memory, bounded_time\n{does}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == ending
    assert ("MemoryError" in done.stderr) == (ending == 1)


def test_28_heads_tied_in_one_model_and_apart_in_the_other(
    cases: Mapping[str, Path], told_of: Mapping[tuple[str, str], Told]
) -> None:
    """It is told, and the head of the tied model is its embedding."""
    case = "28-tied-and-apart"
    carried_out(told_of, case, says="note[W0680]")
    (head,) = heads(told_of[case, "check"])
    assert "`a` uses its embedding as output head" in head
    apart, tied = arrays_of(0), arrays_of(1)
    out = cases[case] / "out"
    got = load_folder(out)
    mean = (apart["lm_head.weight"] + tied["model.embed_tokens.weight"]) / 2
    np.testing.assert_allclose(got["lm_head.weight"], mean, rtol=1e-6, atol=1e-7)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert set(got) == set(apart)
