"""Models of different vocabularies: rows are taken by token, by stated rules, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.weights import blocks, looks
from recipelang.weights.region import Step
from tests.ops_merge import reference
from tests.weights.models import Memory, bits, compute
from tests.weights.words import (
    WORDS,
    aligned,
    family,
    model_of_words,
    step,
    tokens_of,
    write_tokenizer,
)

EMBEDDING, HEAD, BIAS = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"
TABLES = (EMBEDDING, HEAD, BIAS)
PERMUTED = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three rows, so that rows are taken across blocks."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 15)
    monkeypatch.setattr(looks, "KEEP_ALL", 40)
    monkeypatch.setattr(looks, "SAMPLE_ELEMENTS", 8)


# ---------------------------------------------------------------- against a reference


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("policy", ["union", "of-subject", "of-base"])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "F64"])
@pytest.mark.parametrize(("budget", "threads"), [(1 << 30, 2), (0, 1)])
def test_different_vocabularies_never_garble_a_merge(
    policy: str, dtype: str, budget: int, threads: int, tmp_path: Path
) -> None:
    """Each row of a merge of task vectors is made of the rows of one token, for every policy; a
    reference that looks tokens up one by one in float64 gives the same."""
    a, b, c, base = family(tmp_path / "m", dtype)
    models, weights = [a, b, c], (0.5, 0.75, 1.0)
    made = step(
        "task-arithmetic-merge", {"inputs": models, "base": [base]},
        weight=weights, vocabulary=policy,
    )  # fmt: skip
    got, _ = compute(made, tmp_path / "out", budget_bytes=budget, threads=threads)
    tokens = tokens_of(made)
    wanted = {"of-subject": tokens_of(a), "of-base": tokens_of(base)}
    assert tokens == wanted.get(policy, [*tokens_of(a), *tokens[15:]])
    assert policy != "union" or set(tokens) == {*WORDS, "<x>", "<y>"}
    for name in TABLES:
        rows = len(got[name])
        *tuned, root = aligned(name, tokens, rows, [a, b, c, base], base)
        expected = reference.task_arithmetic(root, tuned, weights)
        relative = {"F64": 1e-13, "F32": 1e-6, "BF16": 2**-8, "F16": 2**-10}[dtype]
        np.testing.assert_allclose(got[name], expected, rtol=relative, atol=relative * 0.2)
        assert rows == made.config["vocab_size"]


def test_new_tokens_stand_behind_the_subject_s_whatever_the_order(tmp_path: Path) -> None:
    """The union has the subject's ids, then new tokens by their lowest id in any model, so the
    order of the others changes rounding only; an input of weight 0 brings none."""
    a, b, c, _ = family(tmp_path / "m", "F32")
    made = step("linear-merge", {"inputs": [a, b, c]}, vocabulary="union")
    assert tokens_of(made) == [*tokens_of(a), "t", "s", "r", "q", "o", "p", "<y>"]
    swapped = step("linear-merge", {"inputs": [a, c, b]}, vocabulary="union")
    assert tokens_of(swapped) == tokens_of(made)
    left, right = (compute(s, tmp_path / n)[0] for s, n in ((made, "1"), (swapped, "2")))
    for name in TABLES:
        np.testing.assert_allclose(left[name], right[name], rtol=1e-5, atol=1e-8)
    idle = step("linear-merge", {"inputs": [a, b, c]}, vocabulary="union", weight=(1.0, 1.0, 0.0))
    alone = step("linear-merge", {"inputs": [a, b]}, vocabulary="union")
    assert tokens_of(idle) == tokens_of(alone)
    left, right = (compute(s, tmp_path / n)[0] for s, n in ((idle, "3"), (alone, "4")))
    assert all(bits(left[name]) == bits(right[name]) for name in left)


def test_a_row_that_one_model_has_is_kept_to_the_bit(tmp_path: Path) -> None:
    """Merging at the end where only the other model counts gives the other's rows under the
    union's ids, negative zeros included."""
    a, b, _, _ = family(tmp_path / "m")
    b.arrays[EMBEDDING][3] = -0.0
    made = step("slerp-merge", {"inputs": [a, b]}, t=1.0, vocabulary="union")
    got, _ = compute(made, tmp_path / "out")
    back = step("slerp-merge", {"inputs": [a, b]}, t=0.0, vocabulary="union")
    mine, _ = compute(back, tmp_path / "back")
    tokens = tokens_of(made)
    for name in TABLES:
        for i, token in enumerate(tokens):
            owner = b if token in tokens_of(b) else a
            assert bits(got[name][i]) == bits(owner.arrays[name][tokens_of(owner).index(token)])
            owner = a if token in tokens_of(a) else b
            assert bits(mine[name][i]) == bits(owner.arrays[name][tokens_of(owner).index(token)])


def test_one_tokenizer_is_free(tmp_path: Path) -> None:
    """With equal tokens under equal ids nothing is looked up, and the result has the bits of a
    merge that knows nothing of tokens, also where the files differ."""
    a = model_of_words(tmp_path / "a", WORDS, seed=1)
    b = model_of_words(tmp_path / "b", WORDS, seed=2)
    (tmp_path / "b" / "tokenizer.json").write_text(
        json.dumps(json.loads((tmp_path / "b" / "tokenizer.json").read_text()), indent=3)
    )
    made = step("linear-merge", {"inputs": [a, b]})
    places = [("inputs", 0), ("inputs", 1)]
    assert [made.alignment.of(place, name) for place in places for name in TABLES] == [None] * 6
    got, stats = compute(made, tmp_path / "1", budget_bytes=0)
    assert stats.passes == (1.0, 1.0)
    blind = [replace(m, files={}) for m in (a, b)]
    plain, _ = compute(step("linear-merge", {"inputs": blind}), tmp_path / "2")
    assert all(bits(got[name]) == bits(plain[name]) for name in plain)


@pytest.mark.usefixtures("small_blocks")
def test_padding_takes_the_mean_of_the_rows(tmp_path: Path) -> None:
    """Of two models of one tokenizer, one with padded rows: the tokens merge, the other's padding
    is the mean of its rows, and the result has the subject's number of rows."""
    short = model_of_words(tmp_path / "s", WORDS, seed=1, dtype="F32")
    padded = model_of_words(tmp_path / "p", WORDS, seed=2, dtype="F32", padding=4)
    more, _ = compute(step("linear-merge", {"inputs": [padded, short]}), tmp_path / "1")
    fewer, _ = compute(step("linear-merge", {"inputs": [short, padded]}), tmp_path / "2")
    for name in TABLES:
        x, y = short.arrays[name].astype(np.float64), padded.arrays[name].astype(np.float64)
        np.testing.assert_allclose(more[name][:20], (x + y[:20]) / 2, rtol=1e-6)
        np.testing.assert_allclose(
            more[name][20:], (x.mean(axis=0) + y[20:]) / 2, rtol=1e-5, atol=1e-8
        )
        np.testing.assert_allclose(fewer[name], (x + y[:20]) / 2, rtol=1e-6)


def test_a_token_without_a_row_anywhere_is_zeros(tmp_path: Path) -> None:
    """A tokenizer with more tokens than its model has rows: the union has a row of zeros for what
    nobody has, and keeps to the ids."""
    short = model_of_words(tmp_path / "s", WORDS, seed=1, dtype="F32")
    short = replace(short, files=write_tokenizer(tmp_path / "s", WORDS, ["<rowless>"]))
    other = model_of_words(tmp_path / "o", WORDS, ["<y>"], seed=2, dtype="F32")
    made = step("linear-merge", {"inputs": [short, other]}, vocabulary="union")
    got, _ = compute(made, tmp_path / "out")
    assert tokens_of(made)[20:] == ["<rowless>", "<y>"]
    for name in TABLES:
        assert not got[name][20].any()
        assert bits(got[name][21]) == bits(other.arrays[name][20])


# ---------------------------------------------------------------- permutations


def permuted(model: Memory, order: Sequence[int], folder: Path) -> Memory:
    """The model with its tokens under other ids, and its rows under them; padding stays."""
    tokens = tokens_of(model)
    rows = [*order, *range(len(order), len(model.arrays[EMBEDDING]))]
    arrays = {n: a[rows] if n in TABLES else a for n, a in model.arrays.items()}
    files = write_tokenizer(folder, [tokens[i] for i in order])
    return Memory(arrays, model.config, files)


@pytest.mark.usefixtures("small_blocks")
@PERMUTED
@given(
    order=st.permutations(range(20)),
    verb=st.sampled_from(
        ["linear-merge", "slerp-merge", "ties-merge", "model", "dare-ties-merge", "della-merge"]
    ),
    which=st.sampled_from(["input", "base"]),
    budget=st.sampled_from([0, 1 << 30]),
)
def test_permuting_a_model_s_tokens_changes_no_bit(
    order: list[int], verb: str, which: str, budget: int, tmp_path: Path
) -> None:
    """A model whose tokens have other ids, rows and tokenizer alike, merges to the same bits."""
    a, b, base = (
        model_of_words(tmp_path / n, WORDS, seed=i, padding=3) for i, n in enumerate("abr")
    )
    fields: dict[str, Any] = {"t": 0.3} if verb == "slerp-merge" else {"weight": (0.4, 0.7)}
    if verb == "model":  # trimmed over the whole model
        verb, fields["trim"] = "ties-merge", "model"
    other = permuted(base if which == "base" else b, order, tmp_path / "other")

    def merged(b: Memory, base: Memory) -> dict[str, Any]:
        roles = {"inputs": [a, b]}
        if verb not in ("linear-merge", "slerp-merge"):
            roles["base"] = [base]
        return compute(step(verb, roles, **fields), tmp_path / "out", budget_bytes=budget)[0]

    plain = merged(b, base)
    got = merged(b, other) if which == "base" else merged(other, base)
    assert all(bits(got[name]) == bits(plain[name]) for name in plain)


def test_tokenizers_in_memory_are_read_too(tmp_path: Path) -> None:
    """A model whose tokenizer.json is no file, as that of a GGUF model with an adapter in it, is
    aligned like any other."""
    a, b = (model_of_words(tmp_path / n, WORDS, seed=i) for i, n in enumerate("ab"))
    plain, _ = compute(step("linear-merge", {"inputs": [a, b]}), tmp_path / "1")
    other = permuted(b, list(range(20))[::-1], tmp_path / "o")
    held = {name: Path(str(file)).read_bytes() for name, file in other.files.items()}
    made = step("linear-merge", {"inputs": [a, replace(other, files=held)]})
    got, _ = compute(made, tmp_path / "2")
    assert all(bits(got[name]) == bits(plain[name]) for name in plain)


def test_arithmetic_on_models_takes_rows_by_token(tmp_path: Path) -> None:
    """`a + 0.5 * (b - c)` with b and c under other ids is the same to the bit."""
    a, b, c = (model_of_words(tmp_path / n, WORDS, seed=i) for i, n in enumerate("abc"))
    order = np.random.default_rng(0).permutation(20).tolist()

    def result(b: Memory, c: Memory) -> dict[str, Any]:
        delta = step("delta", {"of": [b], "minus": [c]})
        return compute(
            step("add-delta", {"model": [a], "delta": [delta]}, scale=0.5), tmp_path / "out"
        )[0]

    plain = result(b, c)
    got = result(permuted(b, order, tmp_path / "o"), permuted(c, order[::-1], tmp_path / "p"))
    assert all(bits(got[name]) == bits(plain[name]) for name in plain)


def test_an_adapter_is_extracted_by_token(tmp_path: Path) -> None:
    """A change of the embedding is taken in the order of the base's tokens, which the adapter is
    for."""
    base, tuned = (model_of_words(tmp_path / n, WORDS, seed=i) for i, n in enumerate("ab"))
    fields = {"rank": 2, "targets": ("embed_tokens",)}
    plain, other = (
        compute(step("extract-adapter", {"model": [m], "base": [base]}, **fields), tmp_path / n)[0]
        for n, m in (("1", tuned), ("2", permuted(tuned, list(range(20))[::-1], tmp_path / "o")))
    )
    assert plain
    assert all(bits(other[name]) == bits(plain[name]) for name in plain)


def test_stacked_layers_take_rows_by_token(tmp_path: Path) -> None:
    """A stack has the first model's embedding and the last one's head, in the order of the first
    one's tokens."""
    a, b = (model_of_words(tmp_path / n, WORDS, seed=i) for i, n in enumerate("ab"))
    b = permuted(b, list(range(20))[::-1], tmp_path / "o")
    got, _ = compute(step("stack", {"inputs": [a, b]}), tmp_path / "out")
    assert bits(got[EMBEDDING]) == bits(a.arrays[EMBEDDING])
    assert bits(got[HEAD]) == bits(b.arrays[HEAD][::-1])
    assert bits(got["model.layers.3.mlp.w"]) == bits(b.arrays["model.layers.1.mlp.w"])


# ---------------------------------------------------------------- chains


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("budget", [0, 1 << 12, 1 << 30])
def test_a_chain_of_vocabularies_fuses_to_the_bit(budget: int, tmp_path: Path) -> None:
    """A union that goes on into a merge with other tokens: one region has the bits of two runs,
    for any budget, and the files of the result hold all tokens."""
    a, b, c, base = family(tmp_path / "m")

    def chain(keep: Any) -> Step:
        first = keep(
            step("ties-merge", {"inputs": [a, b], "base": [base]}, vocabulary="union", density=0.6)
        )
        # The next subject has other ids, so rows of the computed union are taken here and there.
        return step("slerp-merge", {"inputs": [c, first]}, t=0.4, vocabulary="union")

    def stored(made: Step) -> Memory:
        arrays, _ = compute(made, tmp_path / "stored")
        for name, content in made.files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            (tmp_path / "stored" / name).write_bytes(data)
        names = [name for name in made.files]
        return Memory(arrays, made.config, {n: tmp_path / "stored" / n for n in names})

    expected, _ = compute(chain(stored), tmp_path / "steps")
    made = chain(lambda step: step)
    got, _ = compute(made, tmp_path / "fused", budget_bytes=budget)
    assert tokens_of(made) == tokens_of(chain(stored))
    assert set(tokens_of(made)) == {*WORDS, "<x>", "<y>"}
    assert all(bits(got[name]) == bits(expected[name]) for name in expected)


def test_rows_are_read_once_where_the_memory_allows(tmp_path: Path) -> None:
    """A shuffled vocabulary costs one pass over its model when its tensors fit the budget."""
    a = model_of_words(tmp_path / "a", WORDS, seed=1)
    order = np.random.default_rng(1).permutation(20).tolist()
    b = permuted(model_of_words(tmp_path / "b", WORDS, seed=2), order, tmp_path / "o")
    _, stats = compute(step("linear-merge", {"inputs": [a, b]}), tmp_path / "out")
    assert stats.passes == (1.0, 1.0)
    assert b.counts[EMBEDDING] == b.arrays[EMBEDDING].size


def test_non_finite_rows_are_found_wherever_they_go(tmp_path: Path) -> None:
    """A NaN in a row that another model's token takes stops the merge like any other."""
    a, b, _, _ = family(tmp_path / "m")
    b.arrays[EMBEDDING][tokens_of(b).index("q")] = np.nan
    with pytest.raises(RecipeError, match=r"E0620.*embed_tokens"):
        compute(step("linear-merge", {"inputs": [a, b]}, vocabulary="union"), tmp_path / "out")
    got, _ = compute(
        step("linear-merge", {"inputs": [a, b]}, vocabulary="of-subject"), tmp_path / "fine"
    )
    assert np.isfinite(got[EMBEDDING].astype(np.float32)).all()


# ---------------------------------------------------------------- what is refused


def test_the_first_differing_tokens_are_shown(tmp_path: Path) -> None:
    """Without a policy, other tokens are refused before anything is read, with the ways out."""
    a, b, _, _ = family(tmp_path / "m")
    with pytest.raises(RecipeError, match=r"E0602.*only `model 2` has `o` \(4\), `p` \(5\), "):
        step("linear-merge", {"inputs": [a, b]})
    with pytest.raises(RecipeError) as caught:
        step("linear-merge", {"inputs": [a, b]})
    assert "vocabulary = union" in caught.value.diagnostics[0].help
    assert "; only `model 1` has `<x>` (14)" in caught.value.diagnostics[0].message
    with pytest.raises(RecipeError, match="E0602") as caught:
        step("delta", {"of": [a], "minus": [b]})
    assert "vocabulary =" not in caught.value.diagnostics[0].help
    assert not a.counts
    assert not b.counts


def test_unknown_rows_are_not_merged_blindly(tmp_path: Path) -> None:
    """Other ids and no tensor that is known to follow them: E0640."""
    a = model_of_words(tmp_path / "a", WORDS, seed=1)
    b = permuted(a, list(range(20))[::-1], tmp_path / "b")
    strange = [
        Memory({n.replace("embed_tokens", "w").replace("lm_head", "v"): x
                for n, x in m.arrays.items()}, m.config, m.files)
        for m in (a, b)
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="E0640"):
        step("linear-merge", {"inputs": strange})


def test_a_base_s_vocabulary_needs_a_base(tmp_path: Path) -> None:
    """`of-base` without one, and with one that has no tokenizer."""
    a, b, _, base = family(tmp_path / "m")
    with pytest.raises(RecipeError, match="E0641"):
        step("linear-merge", {"inputs": [a, b]}, vocabulary="of-base")
    mute = replace(base, files={}, config={**base.config, "vocab_size": 16})
    with pytest.raises(RecipeError, match="E0642"):
        step("ties-merge", {"inputs": [a, a], "base": [mute]}, vocabulary="of-base")
