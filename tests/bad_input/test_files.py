"""Bad input that is refused before anything runs: files that are not what they are said to be."""

from __future__ import annotations

import json
import shutil

from recipelang.cli.main import main
from tests.bad_input.lab import Lab


def test_dataset_without_its_columns(lab: Lab) -> None:
    """A named column that is not there."""
    lab.rows("c.jsonl", {"question": "a", "answer": "b"})
    text = 'd = dataset "c.jsonl" { text = ^"body" }'
    lab.refuses(text, "E0775", "its columns are `question`, `answer`", exit=2)


def test_dataset_of_unknown_columns(lab: Lab) -> None:
    """Columns that say nothing of a format."""
    lab.rows("c.jsonl", {"question": "a", "answer": "b"})
    lab.refuses('d = dataset ^"c.jsonl"', "E0776", "name the columns", exit=2)


def test_empty_file(lab: Lab) -> None:
    """A dataset without rows, named as the recipe names it."""
    lab.rows("empty.jsonl")
    lab.refuses('d = dataset ^"empty.jsonl"', "E0774", "`empty.jsonl` has no rows", exit=2)


def test_damaged_file(lab: Lab) -> None:
    """The line is named."""
    (lab.folder / "cut.jsonl").write_text('{"text": "a"}\n{"text": \n')
    lab.refuses('d = dataset ^"cut.jsonl"', "E0773", "`cut.jsonl:2`", exit=2)


def test_fault_in_a_late_row(lab: Lab) -> None:
    """`check` reads a thousand rows; a plan reads all of them."""
    rows = [{"text": "a"} for _ in range(1500)]
    lab.rows("late.jsonl", *rows, {"txt": "b"})
    text = 'd = ^dataset "late.jsonl"\nt = finetune a on notes\nu = finetune t on d'
    lab.refuses(text, "E0777", "`late.jsonl:1501`: the row has no `text`", exit=2)


def test_rows_that_cannot_be_split(lab: Lab) -> None:
    """Equal rows stay together, so there is nothing to hold out."""
    lab.rows("same.jsonl", *({"text": "a"} for _ in range(5)))
    text = 'd = split (dataset "same.jsonl") { holdout = 20% }\nt = finetune a on d.^train'
    lab.refuses(text, "E0782", "cannot be split so", exit=2)


def test_unreadable_file(lab: Lab) -> None:
    """A folder in a file's place, and a file that is not there."""
    lab.refuses('d = dataset ^"a"', "E0772", "name a file in it", exit=2)
    lab.refuses('d = dataset ^"nothing.jsonl"', "E0720", "does not exist", exit=2)


def test_unreadable_recipe(lab: Lab) -> None:
    """A recipe that is a folder, or not UTF-8."""
    assert main(["check", str(lab.folder)]) == 2
    (lab.folder / "latin.recipe").write_bytes(b"# caf\xe9\n")
    assert main(["check", str(lab.folder / "latin.recipe")]) == 2
    assert "save the file as UTF-8" in lab.capsys.readouterr().err


def test_supervision_that_selects_nothing(lab: Lab) -> None:
    """Turns of an assistant in plain text."""
    text = 'd = dataset "text.jsonl"\nt = finetune a on d { supervise = ^assistant }'
    lab.refuses(text, "E0778", "choose one of `all`", exit=2)


def test_prompts_that_fill_the_rows(lab: Lab) -> None:
    """All completions would be cut off; known before an earlier step of the chain is computed."""
    lab.rows("long.jsonl", *({"prompt": "why? " * 40, "completion": str(i)} for i in range(70)))
    head = 'a = model "a"\nd = dataset "long.jsonl" { length = 32 }\n'
    text = 't = finetune a on (dataset "text.jsonl")\nu = ^finetune t on d'
    lab.refuses(text, "E0778", "the prompts fill the rows", exit=2, head=head)


def test_pickle_checkpoint(lab: Lab) -> None:
    """A folder of pickles and a pickle itself are refused, with the command that converts them."""
    shutil.copytree(lab.folder / "a", lab.folder / "p")
    (lab.folder / "p" / "model.safetensors").unlink()
    (lab.folder / "p" / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    lab.refuses('m = model ^"p"', "E0727", "convert it", exit=2)
    lab.refuses('m = model ^"p/pytorch_model.bin"', "E0727", "convert it", exit=2)


def test_file_that_is_no_model(lab: Lab) -> None:
    """Data and single shards in a model's place."""
    lab.refuses('m = model ^"notes.jsonl"', "E0728", "name a folder", exit=2)
    text = 'm = model ^"a/model.safetensors"'
    lab.refuses(text, "E0728", "its `config.json`", exit=2)


def test_index_that_points_outside(lab: Lab) -> None:
    """A shard beside the folder is not opened."""
    shutil.copytree(lab.folder / "a", lab.folder / "o")
    (lab.folder / "o" / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../a/model.safetensors"}}
    (lab.folder / "o" / "model.safetensors.index.json").write_text(json.dumps(index))
    lab.refuses('m = model ^"o"', "E0725", "must be a plain file name", exit=2)


def test_schemes_and_revisions(lab: Lab) -> None:
    """Sources that cannot be read, and a commit of a folder."""
    lab.refuses('m = model ^"s3://bucket/m"', "E0721", "the scheme `s3:`", exit=2)
    lab.refuses('m = model "a" at ^"abc1234"', "E0721", "an `hf:` repository only", exit=2)
    lab.refuses('m = model ^"package:no_such/m"', "E0722", "is not installed", exit=2)


def test_secret_in_the_file(lab: Lab) -> None:
    """One error, at the secret, which is not shown."""
    token = "hf_" + "a1" * 17
    text = f'm = model "hf:o/n" at "abc1234" {{ token = "^{token}" }}'
    lab.refuses(text, "E0702", "revoke it", exit=2)
    recipe = lab.folder / "bad.recipe"
    assert token in recipe.read_text()
    main(["check", str(recipe)])
    assert token not in "".join(lab.capsys.readouterr())
