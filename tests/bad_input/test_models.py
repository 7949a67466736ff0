"""Bad input that is refused before anything runs: models that do not fit."""

from __future__ import annotations

import pytest

from tests.bad_input.lab import Lab


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
