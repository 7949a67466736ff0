"""Merges that name a damaged or hostile checkpoint: one error that says which file, where in the
recipe and what to do, no traceback, nothing run, and the exit code of unreadable files.

The number in front of a case is its row in the table of hostile inputs of the checkpoint format:
headers (1 to 5), names (6, 7), sizes (8), indexes and links (9 to 11), pickles (12, 13),
configurations (14, 15), numbers (19), adapters (27), ties (28).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.cli.main import main
from recipelang.run import merging
from tests.merging.bounded import Told, run_bounded
from tests.merging.hostile import ADAPTED, ADAPTERS, MERGE, REFUSED
from tests.merging.projects import (
    SHAPES,
    arrays_of,
    check,
    load_folder,
    models,
    published,
    run,
    tuned,
    write_model,
)

COMMANDS = ("check", "run")


def sound(folder: Path) -> Path:
    """Two sound models, ``a`` and ``b``."""
    base = arrays_of(0)
    write_model(folder / "b", base)
    write_model(folder / "a", tuned(base, 1))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two sound models."""
    return sound(tmp_path)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The folder of every case that is refused, with its recipe."""
    found: dict[str, Path] = {}
    for table, text in ((REFUSED, MERGE), (ADAPTERS, ADAPTED)):
        for case, (build, _, _) in table.items():
            found[case] = sound(tmp_path_factory.mktemp(case))
            build(found[case] / "a")
            (found[case] / "m.recipe").write_text(text)
    return found


@pytest.fixture(scope="module")
def told_of(
    cases: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[tuple[str, str], Told]:
    """What each command said of each case, in a process that may take 5 seconds for one, and 200
    MiB for all."""
    healthy = sound(tmp_path_factory.mktemp("healthy")) / "m.recipe"
    healthy.write_text(MERGE)
    keys = [(case, command) for case in cases for command in COMMANDS]
    jobs = [[command, str(cases[case] / "m.recipe")] for case, command in keys]
    return dict(zip(keys, run_bounded(["run", str(healthy)], jobs), strict=True))


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
    (head,) = (line for line in told.text.splitlines() if line.startswith(("error", "warning")))
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


def told(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """Code, severity and message of what a check says."""
    return [(d.code, d.severity, d.message) for d in check(folder, text)]


def test_7_letters_of_two_alphabets_are_a_warning(folder: Path) -> None:
    """A Cyrillic letter in a Latin name is told; the merge is carried out."""
    for name in ("a", "b"):
        write_model(folder / name, {"model.n\u043erm.weight": np.ones(4, np.float32)})
    found = told(folder, MERGE)
    assert [(code, severity) for code, severity, _ in found] == [("W0724", "warning")] * 2
    assert published(folder, MERGE.rpartition("publish")[0])["model.n\u043erm.weight"].all()


@pytest.mark.parametrize(
    "key", ["auto_map", "model_file", "_attn_implementation_internal", "trust_remote_code"]
)
def test_14_code_named_by_a_configuration_is_never_run(key: str, folder: Path) -> None:
    """It is a warning; the merge is carried out, and its configuration names no code."""
    value = {"AutoModel": "code.Model"} if key == "auto_map" else True
    base = arrays_of(0)
    write_model(folder / "b", base, **{key: value})
    (folder / "b" / "code.py").write_text("raise SystemExit('this was run')")
    (found,) = told(folder, MERGE)
    assert found[:2] == ("W0729", "warning")
    assert f"`{key}`" in found[2]
    published(folder, MERGE.rpartition("publish")[0])
    assert key not in json.loads((folder / "out" / "config.json").read_text())
    assert not (folder / "out" / "code.py").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_19_numbers_that_are_none_stop_the_merge(
    bad: float, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the first such tensor, by name, with exit code 4, unless the recipe allows them."""
    arrays = arrays_of(1)
    arrays["model.layers.1.mlp.up_proj.weight"][0, 0] = bad
    write_model(folder / "a", arrays)
    recipe = folder / "m.recipe"
    recipe.write_text(MERGE)
    assert main(["check", str(recipe)]) == 0
    assert main(["run", str(recipe)]) == 4
    told = capsys.readouterr().err
    assert told.count("error[") == 1
    assert "error[E0620]" in told
    assert "`model.layers.1.mlp.up_proj.weight`" in told
    assert "nonfinite = allow" in told
    assert "Traceback" not in told
    assert not (folder / "out").exists()
    text = models("b", "a") + "m = linear-merge b with a { nonfinite = allow }\n"
    got = published(folder, text)["model.layers.1.mlp.up_proj.weight"]
    assert not np.isfinite(got[0, 0])
    assert np.isfinite(got.reshape(-1)[1:]).all()


def test_19_denormal_numbers_are_numbers(folder: Path) -> None:
    """The smallest ones are merged like others."""
    tiny = {name: np.full(shape, 1e-42, np.float32) for name, shape in SHAPES.items()}
    for name in ("a", "b"):
        write_model(folder / name, tiny)
    got = published(folder, MERGE.rpartition("publish")[0])
    assert all(np.array_equal(got[name], array) for name, array in tiny.items())


@pytest.mark.parametrize("same_size", [True, False])
def test_11_a_file_swapped_while_it_is_read(
    same_size: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge of other bytes than those that were hashed is not kept, and the next run makes the
    merge of what is there then."""
    swapped = arrays_of(7) if same_size else {"x": np.zeros(3, np.float32)}
    write_model(folder / "other", swapped)
    original = merging.run_region

    def swap_first(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(merging, "run_region", original)
        shutil.copy(folder / "a" / "model.safetensors", folder / "kept")
        os.replace(folder / "other" / "model.safetensors", folder / "a" / "model.safetensors")
        return original(*arguments, **options)

    monkeypatch.setattr(merging, "run_region", swap_first)
    outcome = run(folder, MERGE)
    assert outcome.exit_code == 4
    (found,) = (d for d in outcome.diagnostics if d.severity == "error")
    assert found.code == "E0735"
    assert "a/model.safetensors" in found.message
    assert found.help
    assert not (folder / "out").exists()
    os.replace(folder / "kept", folder / "a" / "model.safetensors")
    got = published(folder, MERGE.rpartition("publish")[0])
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


def test_28_heads_tied_in_one_model_and_apart_in_the_other(folder: Path) -> None:
    """It is told, and the head of the tied model is its embedding."""
    apart, tied = arrays_of(0), arrays_of(1)
    del tied["lm_head.weight"]
    write_model(folder / "a", tied, tie_word_embeddings=True)
    (found,) = told(folder, MERGE)
    assert found[:2] == ("W0680", "note")
    assert "`a` uses its embedding as output head" in found[2]
    got = published(folder, MERGE.rpartition("publish")[0])
    mean = (apart["lm_head.weight"] + tied["model.embed_tokens.weight"]) / 2
    np.testing.assert_allclose(got["lm_head.weight"], mean, rtol=1e-6, atol=1e-7)
    assert json.loads((folder / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert set(load_folder(folder / "out")) == set(apart)
