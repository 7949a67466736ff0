"""What users of mergekit complain of while a merge runs, and what happens here instead.

The numbers are threads of arcee-ai/mergekit; docs/complaints.md has the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recipelang.checking import check_text
from recipelang.cli.main import main
from recipelang.plan.make import make_plan
from recipelang.types import TensorInfo
from tests.merging.projects import (
    arrays_of,
    check,
    models,
    published,
    run,
    tuned,
    write_hollow,
    write_model,
)
from tests.plan.toy import Store

MERGED = """
import sys
from pathlib import Path
from recipelang.run.running import RunOptions, run_recipe
outcome = run_recipe(Path(sys.argv[1]), RunOptions())
print(outcome.exit_code)
"""


def hollow_plan(folder: Path, names: list[str], merge: str, gib: int) -> object:
    """The plan of a merge of models with ``gib`` GiB of weights each, none of which is there."""
    rows = TensorInfo("BF16", (gib << 14, 1 << 15))
    for name in names:
        write_hollow(folder / name, {"model.layers.0.w": rows}, {"model_type": "toy"})
    text = models("base", **dict.fromkeys(names[1:], "base")) + merge
    program = check_text(text, folder=str(folder)).program
    assert program is not None

    def no_machine(name: str | None) -> object:
        raise AssertionError("a merge asked for a device")

    return make_plan(program, ("m",), Store(), machine=no_machine)  # type: ignore[arg-type]


def test_1_the_plan_says_how_much_memory_is_taken(tmp_path: Path) -> None:
    """#107: "Killed", without a word before. The plan names the budget, which four models of
    64 GiB do not raise."""
    plan = hollow_plan(tmp_path, ["base", "a", "b", "c"], "m = ties-merge a with b and c\n", 64)
    assert plan.memory_bytes == 512 << 20  # type: ignore[attr-defined]


def test_2_no_merge_needs_a_gpu(tmp_path: Path) -> None:
    """#420, #449, #157, #341: a della of eight models of 7B runs out of 24 GB of GPU memory. Here a
    merge is planned without asking for a device, in the same memory for eight models as for two."""
    names = ["base", *(f"m{i}" for i in range(8))]
    rest = " and ".join(names[2:])
    plan = hollow_plan(tmp_path, names, f"m = della-merge {names[1]} with {rest}\n", 14)
    assert plan.backend is None  # type: ignore[attr-defined]
    assert plan.memory_bytes == 512 << 20  # type: ignore[attr-defined]


def test_5_a_typo_and_a_mismatch_are_found_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """#527, #376: a typo in the method, or a layer that does not fit, is found after hours. Here a
    check that reads headers alone finds all of them at once, also behind one another."""
    table = {"model.layers.0.w": TensorInfo("BF16", (1 << 17, 1 << 15))}
    for name in ("a", "b"):
        write_hollow(tmp_path / name, table, {"model_type": "toy"})
    write_hollow(tmp_path / "odd", {"model.layers.0.w": TensorInfo("BF16", (9, 8))}, {})
    text = models("a", "b", "odd") + (
        "x = ties_merge a with b\ny = linear-merge a with odd\n"
        "z = slerp-merge a with b { tt = 1 }\n"
    )
    (tmp_path / "m.recipe").write_text(text)
    for command in ("check", "run"):
        assert main([command, str(tmp_path / "m.recipe")]) == 1
        told = capsys.readouterr().err
        assert "did you mean `ties-merge`?" in told
        assert "`model.layers.0.w` is [131072, 32768] and [9, 8]" in told
        assert "has no field `tt`" in told
    assert not list(tmp_path.glob("**/obj/*/*"))


def test_5_a_base_needs_no_weight(tmp_path: Path) -> None:
    """#611: "Missing required parameter weight" for the base. Here a base is no input."""
    base = arrays_of(0)
    write_model(tmp_path / "base", base)
    for seed, name in ((1, "a"), (2, "b")):
        write_model(tmp_path / name, tuned(base, seed))
    text = models("base", "a", "b")
    assert check(tmp_path, text + "m = ties-merge a(weight = 0.5) with b from base\n") == ()
    (found,) = check(tmp_path, text + "m = ties-merge a with b from base(weight = 1)\n")
    assert (found.code, found.message) == ("E0510", "`base` of `ties-merge` takes no parameters")


def test_14_merging_imports_no_training_library(tmp_path: Path) -> None:
    """#176, #122: pins of torch and transformers clash with what trains. Here a merge imports
    neither, nor tokenizers, PEFT and accelerate."""
    base = arrays_of(0)
    for seed, name in enumerate(("a", "b")):
        write_model(tmp_path / name, tuned(base, seed))
    (tmp_path / "m.recipe").write_text(models("a", "b") + "m = slerp-merge a with b { t = 0.5 }\n")
    code = MERGED + (
        "print([m for m in ('torch', 'jax', 'transformers', 'tokenizers', 'peft', 'accelerate', "
        "'safetensors') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.recipe")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "0\n[]\n"


def test_16_an_offline_merge_asks_for_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """#194, #293, #667: where files lie, and how to work offline. Here a path is a path from the
    recipe on, what is not on this machine is named with the command that gets it, and nothing is
    fetched unasked."""
    import socket

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    base = arrays_of(0)
    for seed, name in enumerate(("a", "b")):
        write_model(tmp_path / "deep" / "models" / name, tuned(base, seed))
    local = 'a = model "deep/models/a"\nb = model "deep/models/b"\nm = linear-merge a with b\n'
    assert set(published(tmp_path, local)) == set(base)
    (tmp_path / "m.recipe").write_text(
        'a = model "deep/models/a"\nb = model "hf:org/b" at "c1899de"\nm = linear-merge a with b\n'
    )
    from recipelang.run.running import RunOptions, run_recipe

    outcome = run_recipe(tmp_path / "m.recipe", RunOptions(offline=True))
    assert outcome.exit_code == 2  # refused before anything is computed
    told = [(d.code, d.help) for d in outcome.diagnostics if d.severity == "error"]
    assert any(code == "E0723" and "recipe fetch" in help for code, help in told)


def test_a_merge_repeats_to_the_bit(tmp_path: Path) -> None:
    """No thread, but so in the code: masks drawn in the order of loading, and the configuration of
    a model that string hashes choose. Here the same recipe in another folder gives the same bytes,
    and the first model's configuration."""
    base = arrays_of(0)
    made = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_model(folder / "base", base)
        write_model(folder / "a", tuned(base, 1), rope_theta=1.0)
        write_model(folder / "b", tuned(base, 2), rope_theta=2.0)
        text = models("base", a="base", b="base") + "m = dare-merge a with b { density = 50% }\n"
        made.append(published(folder, text))
        assert json.loads((folder / "out" / "config.json").read_text())["rope_theta"] == 1.0
    assert all(np.array_equal(made[0][name], made[1][name]) for name in base)


def test_a_killed_merge_leaves_no_half_model(tmp_path: Path) -> None:
    """So in the code: a merge that stops leaves half of its shards in the output. Here nothing
    stands where a model is published until all of it does."""
    base = arrays_of(0)
    broken = tuned(base, 1)
    broken["model.norm.weight"][0] = np.nan
    write_model(tmp_path / "a", base)
    write_model(tmp_path / "b", broken)
    text = models("a", "b") + 'm = linear-merge a with b\npublish m to "out"\n'
    assert run(tmp_path, text).exit_code == 4
    assert not (tmp_path / "out").exists()
    write_model(tmp_path / "b", tuned(base, 1))
    assert run(tmp_path, text).exit_code == 0
    assert (tmp_path / "out" / "config.json").exists()
