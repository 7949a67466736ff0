"""A recipe over folders of different vocabularies, from check to what transformers loads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.checking import check_text
from recipelang.run.running import RunOptions, run_recipe
from tests.conformance.tiny import MemoryCheckpoint, checkpoint, write
from tests.weights.words import TEXT, trained

os.environ.setdefault("HF_HUB_OFFLINE", "1")
RECIPE = """\
a = model "a"
b = model "b"
m = linear-merge a(weight = 0.25) with b(weight = 0.75) {{ vocabulary = {policy} }}
publish m to "out"
"""


def folder_of(
    path: Path, text: list[str], *added: str, seed: int, padding: int = 0, template: str = "",
    tied: bool = False,
) -> MemoryCheckpoint:  # fmt: skip
    """A tiny llama with a tokenizer of this text, as a folder."""
    tokenizer = trained(text, *added)
    rows = tokenizer.get_vocab_size() + padding
    end = tokenizer.token_to_id(added[0])
    model = checkpoint(
        "llama", seed=seed, vocab_size=rows, tie_word_embeddings=tied, eos_token_id=end,
        bos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    write(model, path)
    (path / "tokenizer.json").write_text(tokenizer.to_str())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": added[0]}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    if template:
        (path / "chat_template.jinja").write_text(template)
    return model


def published(folder: Path, policy: str) -> Path:
    """The folder that the recipe publishes."""
    recipe = folder / "m.recipe"
    recipe.write_text(RECIPE.format(policy=policy))
    outcome = run_recipe(recipe, RunOptions())
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    return folder / "out"


def by_token(name: str, tokens: dict[str, int], models: list[tuple[dict[str, int], Any]]) -> Any:
    """The merged tensor, token by token: a model without a token has the other's row."""
    rows = np.zeros((max(tokens.values()) + 1, models[0][1][name].shape[1]))
    for token, row in tokens.items():
        (mine, left), (theirs, right) = models
        a = left[name][mine[token]] if token in mine else right[name][theirs[token]]
        b = right[name][theirs[token]] if token in theirs else left[name][mine[token]]
        rows[row] = 0.25 * a.astype(np.float64) + 0.75 * b.astype(np.float64)
    return rows


@pytest.mark.parametrize("policy", ["union", "of-subject"])
def test_published_merge_of_different_vocabularies_speaks(policy: str, tmp_path: Path) -> None:
    """The published folder loads in transformers; its tokenizer gives every token the id of the
    row that was merged for it, and its logits are those of a merge token by token."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    a = folder_of(tmp_path / "a", TEXT[:1], "<end>", seed=1, padding=3)
    b = folder_of(tmp_path / "b", TEXT[1:], "<|im_start|>", "<end>", seed=2, tied=True)
    out = published(tmp_path, policy)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    vocabularies = [
        AutoTokenizer.from_pretrained(tmp_path / name).get_vocab() for name in ("a", "b")
    ]
    tokens = tokenizer.get_vocab()
    mine, theirs = vocabularies
    assert tokens == mine if policy == "of-subject" else tokens.keys() == {*mine, *theirs}
    assert {token: tokens[token] for token in mine} == mine
    assert max(tokens.values()) < model.config.vocab_size == len(model.lm_head.weight)
    assert not model.config.tie_word_embeddings
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        right = {name: b.arrays["model.embed_tokens.weight"]}
        expected = by_token(name, tokens, [(mine, a.arrays), (theirs, right)])
        found = model.state_dict()[name].numpy()
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-5, atol=1e-6)
    ids = tokenizer("the cat sat on the mat<end>", return_tensors="pt").input_ids
    assert ids[0].tolist() == [mine[t] for t in tokenizer.convert_ids_to_tokens(ids[0])]
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "a", dtype=torch.float64).eval()
    state = {
        name: torch.tensor(0.25 * x.astype(np.float64) + 0.75 * b.arrays[name].astype(np.float64))
        for name, x in a.arrays.items()
        if name in b.arrays and x.shape == b.arrays[name].shape
    }
    rows = len(mine)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        right = {name: b.arrays["model.embed_tokens.weight"]}
        padded = a.arrays[name].astype(np.float64)
        padded[:rows] = by_token(name, mine, [(mine, a.arrays), (theirs, right)])
        state[name] = torch.tensor(padded)
    reference.load_state_dict(state)
    with torch.no_grad():
        logits = model(ids).logits[..., :rows]
        expected = reference(ids).logits[..., :rows]
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_special_tokens_of_the_other_model_are_found_in_texts(tmp_path: Path) -> None:
    """After a union a text is cut where the other model's special token stands, and decodes to
    itself."""
    from transformers import AutoTokenizer

    folder_of(tmp_path / "a", TEXT[:1], "<end>", seed=1)
    folder_of(tmp_path / "b", TEXT[1:], "<|im_start|>", seed=2)
    tokenizer = AutoTokenizer.from_pretrained(published(tmp_path, "union"))
    ids = tokenizer("the cat<|im_start|> a zebra").input_ids
    assert "<|im_start|>" in tokenizer.convert_ids_to_tokens(ids)
    assert tokenizer.decode(ids) == "the cat<|im_start|> a zebra"


def test_the_vocabulary_of_the_base(tmp_path: Path) -> None:
    """`of-base`: the base's tokenizer, ids of special tokens and number of rows."""
    folder_of(tmp_path / "base", TEXT[:1], "<end>", seed=3, template="base")
    folder_of(tmp_path / "a", TEXT, "<|im_start|>", "<end>", seed=1, padding=5)
    folder_of(tmp_path / "b", TEXT, "<|im_start|>", "<end>", seed=2)
    recipe = tmp_path / "m.recipe"
    recipe.write_text(
        'base = model "base"\na = model "a"\nb = model "b"\n'
        'm = ties-merge a with b from base { vocabulary = of-base }\npublish m to "out"\n'
    )
    outcome = run_recipe(recipe, RunOptions())
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    config, base = (json.loads((tmp_path / n / "config.json").read_text()) for n in ("out", "base"))
    for key in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id"):
        assert config[key] == base[key]


def codes(folder: Path, text: str) -> list[tuple[str, str]]:
    """Code and message of what the check says."""
    return [(d.code, d.message) for d in check_text(text, folder=str(folder)).sink]


def test_a_lost_chat_template_is_told(tmp_path: Path) -> None:
    """Templates that differ are a warning that says whose is taken; equal ones, and models without
    one behind a subject that has one, are not."""
    for name, template in (("a", "A"), ("b", "B"), ("same", "A"), ("none", "")):
        folder_of(tmp_path / name, TEXT, "<end>", seed=1, template=template)
    head = "".join(f'{n} = model "{n}"\n' for n in ("a", "b", "same", "none"))
    assert codes(tmp_path, head + "m = linear-merge a with same and none") == []
    assert codes(tmp_path, head + "m = linear-merge a with b and same") == [
        ("W0640", "the chat template of `b` is lost: the one of the result is that of `a`")
    ]
    assert codes(tmp_path, head + "m = linear-merge none with b") == [
        ("W0640", "the chat template of `b` is lost: the one of the result is none, as that of "
         "`none`")
    ]  # fmt: skip
    merged = "m = ties-merge a with same from b { vocabulary = of-base }"
    assert {code for code, _ in codes(tmp_path, head + merged)} == {"W0640"}


def test_an_origin_may_have_fewer_tokens(tmp_path: Path) -> None:
    """A fine-tune that added tokens declares the model it came from; a merge of the two says what
    becomes of the tokens, and a run without it is not started."""
    folder_of(tmp_path / "base", TEXT, "<end>", seed=1)
    for name, seed in (("chat", 2), ("other", 3)):
        folder_of(tmp_path / name, TEXT, "<end>", "<|im_start|>", seed=seed)
    head = 'base = model "base"\nchat = model "chat" from base\nother = model "other" from base\n'
    assert codes(tmp_path, head) == []
    found = codes(tmp_path, head + "m = ties-merge chat with other")
    assert [code for code, _ in found] == ["E0602"]
    merged = "m = ties-merge chat with other { vocabulary = of-subject }"
    assert codes(tmp_path, head + merged) == []


@pytest.mark.parametrize("without", ["a", "b"])
def test_a_union_asks_every_model_for_its_tokens(without: str, tmp_path: Path) -> None:
    """A model whose folder has no tokenizer is named when the recipe is checked, with what to do;
    an input of weight 0 brings no tokens and is not asked."""
    for name in ("a", "b", "c"):
        folder_of(tmp_path / name, TEXT, "<end>", seed=1)
    (tmp_path / without / "tokenizer.json").unlink()
    head = "".join(f'{n} = model "{n}"\n' for n in ("a", "b", "c"))
    found = check_text(head + "m = linear-merge a with b and c { vocabulary = union }",
                       folder=str(tmp_path)).sink.diagnostics  # fmt: skip
    assert [(d.code, d.message) for d in found] == [
        (
            "E0642",
            f"`{without}` has no tokenizer, so which tokens it brings to a union is not known",
        )
    ]
    assert "tokenizer.json" in found[0].help
    assert found[0].primary is not None
    assert found[0].primary.span.source.text[found[0].primary.span.start] == without
    if without == "b":
        idle = "m = linear-merge a with b(weight = 0) and c { vocabulary = union }"
        assert codes(tmp_path, head + idle) == []


def test_tokenizers_written_differently_are_alike_to_best(tmp_path: Path) -> None:
    """`best of` asks for one table of tokens, not for one file."""
    for name in ("a", "same"):
        folder_of(tmp_path / name, TEXT, "<end>", seed=1)
    folder_of(tmp_path / "other", TEXT, "<stop>", seed=1)
    file = tmp_path / "same" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=1, sort_keys=True))
    (tmp_path / "d.txt").write_text("the cat sat\n")
    head = "".join(f'{n} = model "{n}"\n' for n in ("a", "same", "other"))
    head += 'd = dataset "d.txt" { length = 8 }\n'
    assert codes(tmp_path, head + "m = best of [a, same] by perplexity over d") == []
    found = codes(tmp_path, head + "m = best of [a, other] by perplexity over d")
    assert [code for code, _ in found] == ["E0663"]
