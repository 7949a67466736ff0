"""A union of vocabularies as files: what the tokenizers package reads back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from recipelang.diagnostics import RecipeError
from recipelang.weights.tokenizer_files import union_files
from tests.weights.words import TEXT, trained


def files_of(tokenizer: Tokenizer) -> dict[str, Path | bytes]:
    """The tokenizer as a model's files."""
    return {"tokenizer.json": tokenizer.to_str().encode()}


def union(
    first: Tokenizer, other: Tokenizer, **more: bytes
) -> tuple[Tokenizer, dict[int, str], Mapping[str, Path | bytes]]:
    """The union, the new tokens by id, and all files."""
    mine, theirs = first.get_vocab(), other.get_vocab()
    start = max(mine.values()) + 1
    missing = sorted((i, token) for token, i in theirs.items() if token not in mine)
    new = {start + n: token for n, (_, token) in enumerate(missing)}
    made = union_files({**files_of(first), **more}, [files_of(other)], new)
    data = made["tokenizer.json"]
    assert isinstance(data, bytes)
    return Tokenizer.from_str(data.decode()), new, made


def test_bpe_reads_texts_as_the_first_model_does() -> None:
    """Every id of the first model and every new id stand for their token; texts are cut as before
    but for the others' special tokens; new pieces decode to their text."""
    first = trained(TEXT[:1], "<end>", "<pad>")
    other = trained([*TEXT[1:], "zebra zebra zebras"], "<|im_start|>", "<end>")
    made, new, _ = union(first, other)
    assert made.get_vocab() == first.get_vocab() | {token: i for i, token in new.items()}
    for text in (*TEXT, "zebra<end>zebra", "ze bra\n héllo 猫"):
        assert made.encode(text).ids == first.encode(text).ids
    assert "Ġzebra" in new.values()
    ids = made.encode("the cat<|im_start|>the dog").tokens
    assert ids == [*first.encode("the cat").tokens, "<|im_start|>", *first.encode("the dog").tokens]
    zebra = made.token_to_id("Ġzebra")
    assert made.decode([*first.encode("the cat").ids, zebra]) == "the cat zebra"
    special = made.token_to_id("<|im_start|>")
    assert made.get_added_tokens_decoder()[special].special
    assert made.decode([special], skip_special_tokens=True) == ""


def test_unigram_prefers_the_pieces_it_knew() -> None:
    """New pieces of a Unigram model stand behind the added tokens, and no text is cut by them that
    was cut before."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in "abcdehlost"), ("▁a", -2.5)]
    first = Tokenizer(models.Unigram(pieces, 0, False))
    first.pre_tokenizer = pre_tokenizers.Metaspace()
    first.add_special_tokens(["<end>"])
    more = [*pieces, ("▁tables", -1.0), ("z", -3.0)]
    other = Tokenizer(models.Unigram(more, 0, False))
    other.add_special_tokens(["<y>"])
    made, new, _ = union(first, other)
    assert made.get_vocab() == first.get_vocab() | {token: i for i, token in new.items()}
    for text in ("a tables<end>", "tables tables"):
        assert made.encode(text).ids == first.encode(text).ids
    assert made.encode("z<y>").tokens == ["▁", "z", "<y>"]


def test_word_pieces_take_part() -> None:
    """A WordPiece model takes the longest piece that there is, new ones too."""
    first = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##i": 2}, unk_token="[UNK]"))
    other = Tokenizer(
        models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2, "go": 3}, unk_token="[UNK]")
    )
    for one in (first, other):
        one.pre_tokenizer = pre_tokenizers.Whitespace()
    made, new, _ = union(first, other)
    assert new == {3: "##ing", 4: "go"}
    assert made.encode("playing go").ids == [1, 3, 4]


def test_the_other_files_follow() -> None:
    """tokenizer_config.json lists the added tokens, and what only slow tokenizers read has all."""
    first, other = trained(TEXT[:1], "<end>"), trained(TEXT[1:], "<y>")
    config = {"eos_token": "<end>", "added_tokens_decoder": {"290": {"content": "<end>"}}}
    made, new, files = union(
        first, other, **{"tokenizer_config.json": json.dumps(config).encode(), "vocab.json": b"{}"}
    )
    written = {name: json.loads(files[name]) for name in files if name != "vocab.json"}  # type: ignore[arg-type]
    decoder = written["tokenizer_config.json"]["added_tokens_decoder"]
    assert decoder["290"] == {"content": "<end>"}
    assert decoder[str(made.token_to_id("<y>"))] == {
        "content": "<y>", "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }  # fmt: skip
    assert len(decoder) == 2
    assert written["added_tokens.json"] == {token: i for i, token in new.items()}
    assert files["vocab.json"] == b"{}"


def test_a_union_needs_a_tokenizer_file() -> None:
    """Without a tokenizer.json there is nothing to add to."""
    with pytest.raises(RecipeError, match="E0642"):
        union_files({"vocab.json": b"{}"}, [], {1: "x"})
