"""One mistake a test: what `recipe check` and `recipe plan` say of it, where, with which exit code;
and that nothing was computed and no store made.

The mark ``^`` in a recipe is the first character of the place that must be told.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipelang.cli.main import main
from recipelang.language.calls import PLANNED
from recipelang.ops import registry
from recipelang.plan import limits
from tests.conformance.tiny import checkpoint, write

HEAD = """\
a = model "a"
b = model "b" from a
notes = dataset "notes.jsonl"
"""


@dataclass(frozen=True)
class Lab:
    """A folder of small models and files, and what a command said in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def refuses(
        self, text: str, code: str, words: str, *arguments: str, exit: int = 1, head: str = HEAD
    ) -> None:
        """The plan of this recipe has this one error, at the mark, and nothing else happened."""
        whole = head + text
        mark = whole.find("^")
        recipe = self.folder / "bad.recipe"
        recipe.write_text(whole.replace("^", "", 1) + "\n", encoding="utf-8")
        before = sorted(p for p in self.folder.rglob("*"))
        assert main(["plan", str(recipe), *arguments]) == exit
        shown = self.capsys.readouterr().err
        assert shown.count("error[") == 1, shown
        assert f"error[{code}]: " in shown, shown
        assert words in shown, shown
        if mark >= 0:
            line = whole.count("\n", 0, mark) + 1
            column = mark - (whole.rfind("\n", 0, mark) + 1) + 1
            assert f"bad.recipe:{line}:{column}\n" in shown, shown
        assert sorted(p for p in self.folder.rglob("*")) == before

    def rows(self, name: str, *rows: object) -> None:
        """Write a data file."""
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def tokenizer(folder: Path, count: int = 97) -> None:
    """A tokenizer of single characters: those of ASCII, and some beyond."""
    words = {chr(32 + i if i < 95 else 256 + i): i for i in range(count)}
    model = {"type": "BPE", "vocab": words, "merges": []}
    document = {"version": "1.0", "added_tokens": [], "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models: two of one shape, one wider, one with more words, one of an unknown family."""
    root = tmp_path_factory.mktemp("models")
    for name, changes in (
        ("a", {}), ("b", {}), ("wide", {"hidden_size": 64}), ("words", {"vocab_size": 120}),
    ):  # fmt: skip
        tokenizer(write(checkpoint("llama", seed=len(name), **changes), root / name))
    tokenizer(root / "words", 120)
    shutil.copytree(root / "a", root / "other")
    tokenizer(root / "other", 96)
    shutil.copytree(root / "a", root / "unknown")
    config = json.loads((root / "a" / "config.json").read_text())
    config["model_type"] = "gptj"
    (root / "unknown" / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture
def lab(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Lab:  # fmt: skip
    """A fresh folder with the models, some data, and no store."""
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("RECIPE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    lab = Lab(tmp_path, capsys)
    lab.rows("notes.jsonl", *({"prompt": f"{i}?", "completion": str(i)} for i in range(8)))
    lab.rows("text.jsonl", {"text": "a b c"})
    return lab


# ---------------------------------------------------------------- names


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


# ---------------------------------------------------------------- quantities and arguments


def test_wrong_unit(lab: Lab) -> None:
    """A duration for a learning rate; the message says what the field is."""
    lab.refuses("t = finetune a on notes { lr = ^2h }", "E0412", "peak learning rate")


def test_percentage_without_its_sign(lab: Lab) -> None:
    """60 for 60%."""
    text = "m = ties-merge a with b from a { density = ^60 }"
    lab.refuses(text, "E0413", "did you mean `density = 60%`?")


def test_share_compared_with_a_percentage_without_its_sign(lab: Lab) -> None:
    """A gate that could never pass is refused before hours of training."""
    lab.refuses("require accuracy of a on notes >= ^62", "E0413", "did you mean `62%`?")


def test_gate_against_a_duration(lab: Lab) -> None:
    """A measure is a number."""
    lab.refuses("require loss of a on notes <= ^4h", "E0307", "found a duration")


def test_steps_and_epochs(lab: Lab) -> None:
    """Two lengths of one training."""
    lab.refuses("t = finetune a on notes { steps = 3, epochs = ^1 }", "E0561", "keep one")


def test_missing_clause(lab: Lab) -> None:
    """A fine-tune of nothing."""
    lab.refuses("t = ^finetune a", "E0506", "add `on x`")


def test_merge_of_one_model(lab: Lab) -> None:
    """A merge needs another model."""
    lab.refuses("m = ^linear-merge a", "E0506", "add `with x`")


def test_item_of_a_wrong_type(lab: Lab) -> None:
    """The place is the item, not the list."""
    lab.refuses("m = linear-merge a with [b, ^notes]", "E0301", "expected a Model")


def test_gradient_of_one_value(lab: Lab) -> None:
    """A line needs two points."""
    text = "m = linear-merge a(weight = ^gradient(0.5)) with b"
    lab.refuses(text, "E0515", "two or more")


def test_pattern_without_tensor(lab: Lab) -> None:
    """The place is the pattern."""
    text = 'm = linear-merge a(weight = per { ^"self_attm" = 0.5 }) with b'
    lab.refuses(text, "E0514", "did you mean `self_attn`?")


def test_pattern_that_is_never_reached(lab: Lab) -> None:
    """A pattern behind one that takes all of it."""
    text = 'm = linear-merge a with b(weight = per { "*" = 0.5, ^"mlp" = 1 })'
    lab.refuses(text, "E0514", "put the narrower pattern first")


def test_list_of_lists_that_grows(lab: Lab) -> None:
    """Doubling a list twenty times is refused when it has a thousand items."""
    for start in ("[a, b]", "[[], []]"):
        rows = [f"l0 = {start}", *(f"l{i} = [l{i - 1}, l{i - 1}]" for i in range(1, 40))]
        lab.refuses("\n".join(rows), "E0505", "the list has 1024 items")


def test_two_publishes_into_one_folder(lab: Lab) -> None:
    """The second would undo the first."""
    lab.refuses('publish a to "out"\n^publish b to "./out"', "E0518", "a folder of its own")


def test_publish_into_a_folder_with_other_files(lab: Lab) -> None:
    """What somebody else wrote is not replaced, and that is known before anything is trained."""
    text = 't = finetune a on notes\n^publish t to "a"'
    lab.refuses(text, "E0855", "allow replacing it")
    lab.refuses('^publish a to "notes.jsonl"', "E0855", "`notes.jsonl` is a file")


def test_choice_by_measures_of_two_directions(lab: Lab) -> None:
    """A loss and an accuracy do not say together which model is better."""
    text = (
        "recipe both(m: Model, d: Dataset) => Measured {\n"
        "    give (loss of m on d) + (accuracy of m on d)\n}\n"
        "t = best of [a, b] by ^both over notes"
    )
    lab.refuses(text, "E0512", "better in one direction")


# ---------------------------------------------------------------- models


def test_models_of_different_shape(lab: Lab) -> None:
    """The first key of the configurations that differs is named."""
    text = 'w = model "wide"\nm = linear-merge a with ^w'
    lab.refuses(text, "E0601", "`hidden_size` is 32 and 64")


def test_models_of_different_vocabulary_size(lab: Lab) -> None:
    """More tokens: the first ones are shown, and the ways out."""
    text = 'w = model "words"\nm = linear-merge a with ^w'
    lab.refuses(text, "E0602", "only `w` has `š` (97), `Ţ` (98), `ţ` (99) and 20 more")
    lab.refuses(text, "E0602", "`vocabulary = union` for all")


def test_models_of_different_vocabulary_size_without_tokenizer(lab: Lab) -> None:
    """Embeddings of different heights, and nothing that says what the rows stand for."""
    (lab.folder / "words" / "tokenizer.json").unlink()
    text = 'w = model "words"\nm = linear-merge a with ^w'
    lab.refuses(text, "E0601", "`vocab_size` is 97 and 120")


def test_models_of_different_vocabularies(lab: Lab) -> None:
    """Equal shapes, other tokens."""
    lab.refuses('w = model "other"\nm = linear-merge a with ^w', "E0602", "vocabularies")


def test_vocabulary_that_is_none_of_the_four(lab: Lab) -> None:
    """The members of the field are listed."""
    text = "m = linear-merge a with b { vocabulary = ^unions }"
    lab.refuses(text, "E0504", "did you mean `union`?")


def test_vocabulary_of_a_base_that_is_not_there(lab: Lab) -> None:
    """A merge without a base has no base's vocabulary."""
    text = "m = linear-merge a with b { vocabulary = ^of-base }"
    lab.refuses(text, "E0641", "write `of-subject`, or `union`")


def test_origin_with_tokens_of_its_own(lab: Lab) -> None:
    """A fine-tune may add tokens to its origin's, and has all of them."""
    lab.refuses('w = model "words"\nt = model "a" from ^w', "E0602", "no tokens that it lacks")


def test_task_vectors_without_common_origin(lab: Lab) -> None:
    """Two models of which no origin is known."""
    text = 'u = model "b"\nm = ^ties-merge a with u'
    lab.refuses(text, "E0604", "name the model that they were trained from")


def test_origin_of_another_shape(lab: Lab) -> None:
    """A declared origin must fit."""
    lab.refuses('w = model "wide"\nt = model "b" from ^w', "E0601", "one of its shape")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m = stack a.layers(0, 2) with b.layers(1, ^4)", "`b` has 3 layers"),
        ("m = stack a.layers(0, 2) with b.layers(^3, 5)", "all of them are `b.layers(0, 3)`"),
        ("m = stack a.layers(0, 2) with b.layers(1, ^1)", "one layer is `layers(1, 2)`"),
        ("m = stack a.layers(0, 2) with b.layers(2, ^0)", "did you mean `b.layers(0, 2)`?"),
    ],
)
def test_layer_range_outside_the_model(lab: Lab, text: str, words: str) -> None:
    """A range is told by its end that is wrong, with what the model has."""
    lab.refuses(text, "E0630", words)


def test_layers_and_models_in_one_merge(lab: Lab) -> None:
    """What is whole is told, with how its layers are written."""
    text = "m = linear-merge a.layers(0, 2) with ^b"
    lab.refuses(text, "E0631", "such as `b.layers(0, 2)`")


def test_layers_of_different_numbers_in_one_merge(lab: Lab) -> None:
    """Both numbers are told."""
    text = "m = ties-merge a.layers(0, 2) with ^b.layers(0, 3)"
    lab.refuses(text, "E0632", "`a.layers(0, 2)` has 2 layers, `b.layers(0, 3)` has 3 layers")


def test_stack_of_models_of_different_shape(lab: Lab) -> None:
    """Layers do not fit on layers of another width, nor words on other words."""
    text = 'w = model "wide"\nm = stack a.layers(0, 2) with ^w.layers(1, 3)'
    lab.refuses(text, "E0601", "`hidden_size` is 32 and 64")
    text = 'w = model "words"\nm = stack a.layers(0, 2) with ^w'
    lab.refuses(text, "E0601", "`vocab_size` is 97 and 120")
    text = 'w = model "other"\nm = stack a with ^w'
    lab.refuses(text, "E0602", "vocabularies")


def test_pattern_that_matches_nothing_in_a_stack(lab: Lab) -> None:
    """Patterns go by the names in the stack, which has four layers."""
    text = (
        'm = stack a.layers(0, 2) with b.layers(0, 2) { scale = per { ^"model.layers.4.*" = 0 } }'
    )
    lab.refuses(text, "E0514", "matches no tensor")
    good = text.replace('^"model.layers.4', '"model.layers.3') + "\nn = ^ties-merge m with a"
    lab.refuses(good, "E0604", "have no common origin")


def test_lora_target_that_matches_nothing(lab: Lab) -> None:
    """The layers that there are are named."""
    text = 't = finetune a on notes { adapter = ^lora(targets = ["query_key_value"]) }'
    lab.refuses(text, "E0562", "the model has `down_proj`")


def test_adapter_of_a_model_without_one(lab: Lab) -> None:
    """What was trained whole has no adapter to publish."""
    text = 't = finetune a on notes\npublish (adapter-of ^t) to "out"'
    lab.refuses(text, "E0612", "adapter = lora(rank = 16)")


def test_model_without_tokenizer(lab: Lab) -> None:
    """A model that cannot read text is not trained on it."""
    (lab.folder / "a" / "tokenizer.json").unlink()
    head = 'a = model "a"\nnotes = dataset "notes.jsonl"\n'
    lab.refuses("t = finetune ^a on notes", "E0734", "`tokenizer.json`", exit=2, head=head)


# ---------------------------------------------------------------- files


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


# ---------------------------------------------------------------- machines


def test_architecture_that_jax_lacks(lab: Lab) -> None:
    """The model's type is named, before anything is loaded."""
    text = 'u = model "unknown"\nt = ^finetune u on notes'
    lab.refuses(text, "E0803", "`gptj`", "--backend", "jax")


def test_unknown_backend(lab: Lab) -> None:
    """The backends that there are are named."""
    lab.refuses("t = finetune a on notes", "E0801", "one of `torch`, `jax`", "--backend", "tpu")


def test_no_backend(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch and jax a training cannot be planned."""
    monkeypatch.setattr("recipelang.backend.available", dict)
    lab.refuses("t = finetune a on notes", "E0801", "pip install 'recipelang[torch]'")


def test_no_space(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with less room than the result takes."""
    monkeypatch.setattr("recipelang.plan.make.free_bytes", lambda folder: 1000)
    lab.refuses("m = linear-merge a with b", "E0811", "free some space")


@pytest.mark.parametrize(("limit", "value"), [("wall", "1s"), ("memory", "1KiB"), ("disk", "1KiB")])
def test_budget_that_is_exceeded(lab: Lab, limit: str, value: str) -> None:
    """The place is the limit, and the largest step is named."""
    text = f"budget {{ {limit} = ^{value} }}\nt = finetune a on notes {{ steps = 1M }}"
    lab.refuses(text, "E0810", "the largest part is `t`")


def test_device_that_is_not_here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe for a GPU is not run on a CPU, nor one for eight on one."""
    machine = limits.Machine("torch", "cpu", "a toy", 8 << 30)
    monkeypatch.setattr("recipelang.plan.make.prepare_backend", lambda name: machine)
    text = "budget { device = ^1 gpu }\nt = finetune a on notes"
    lab.refuses(text, "E0813", "has the CPU")
    machine = limits.Machine("torch", "gpu", "a toy", 8 << 30, count=1)
    text = "budget { device = ^8 gpus }\nt = finetune a on notes"
    lab.refuses(text, "E0813", "has 1 gpu")
