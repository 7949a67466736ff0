"""Bad input that is refused before anything runs: quantities, arguments and their combinations."""

from __future__ import annotations

from tests.bad_input.lab import Lab


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
