"""Supervised text is exactly the completion, or the assistant's turns, and its terminator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.data.chat import compile_template
from recipelang.data.encoder import Encoder, encoder_of, token_bytes
from recipelang.data.tokenise import Documents, tokenise
from recipelang.diagnostics import RecipeError
from tests.data.helpers import CHATML, QWEN, TEMPLATES, TURN_ENDS, model_files

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="<|>"),
    min_size=1,
    max_size=12,
)


def talk(*contents: str) -> list[dict[str, object]]:
    """Turns of user and assistant."""
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def parts(encoder: Encoder, documents: Documents, which: int = 0) -> tuple[str, list[str]]:
    """The text of a document, and its supervised runs."""
    start, stop = documents.starts[which : which + 2]
    ids, mask = documents.tokens[start:stop].tolist(), documents.supervised[start:stop].tolist()
    runs: list[list[int]] = []
    for i, (token, supervised) in enumerate(zip(ids, mask, strict=True)):
        if supervised and (i == 0 or not mask[i - 1]):
            runs.append([])
        if supervised:
            runs[-1].append(token)
    return encoder.text(ids, specials=True), [encoder.text(run, specials=True) for run in runs]


@pytest.mark.parametrize("style", TEMPLATES)
@settings(max_examples=25, deadline=None)
@given(contents=st.lists(WORDS, min_size=2, max_size=6))
def test_assistant_turns_and_terminators(style: str, contents: list[str]) -> None:
    """In every style, without marks in the template, the supervised runs are the answers with their
    ends.
    """
    contents = contents[: len(contents) // 2 * 2]
    encoder = encoder_of(model_files(TEMPLATES[style]), {})
    documents = tokenise([{"messages": talk(*contents)}], "chat", "assistant", encoder)
    text, runs = parts(encoder, documents)
    assert runs == [answer + TURN_ENDS[style] for answer in contents[1::2]]
    assert text == encoder.render(talk(*contents), False)
    assert documents.count == 1


def test_only_the_last_turn() -> None:
    """`supervise = completion` takes the last answer of a chat."""
    encoder = encoder_of(model_files(CHATML), {})
    documents = tokenise([{"messages": talk("a", "b", "c", "d")}], "chat", "completion", encoder)
    assert parts(encoder, documents)[1] == ["d<|im_end|>"]


def test_rewritten_turns_get_their_own_document() -> None:
    """Where a template drops the thought of earlier turns, each turn is learned as it will be asked
    for.
    """
    encoder = encoder_of(model_files(QWEN), {})
    documents = tokenise([{"messages": talk("a", "b", "c", "d")}], "chat", "assistant", encoder)
    thought = "<think>\n\n</think>\n\n"
    assert documents.count == 2
    first, last = parts(encoder, documents, 0), parts(encoder, documents, 1)
    assert first[1] == [thought + "b<|im_end|>"]
    assert last[1] == [thought + "d<|im_end|>"]
    assert last[0].startswith(encoder.render(talk("a", "b", "c"), True))


def test_generation_marks_mean_nothing() -> None:
    """A template with marks gives what it gives without."""
    marked = CHATML.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    plain, other = (encoder_of(model_files(t), {}) for t in (CHATML, marked))
    rows = [{"messages": talk("a", "b")}]
    one, two = (tokenise(rows, "chat", "assistant", e) for e in (plain, other))
    assert one.tokens.tolist() == two.tokens.tolist()
    assert one.supervised.tolist() == two.supervised.tolist()


def test_pad_that_is_eos_is_still_learned() -> None:
    """The end token is supervised even where the tokenizer pads with it."""
    for format, row in (
        ("prompt-completion", {"prompt": "a", "completion": "b"}),
        ("text", {"text": "ab"}),
    ):
        encoder = encoder_of(model_files(pad="<|endoftext|>"), {})
        supervise = "completion" if format != "text" else "all"
        documents = tokenise([row], format, supervise, encoder)
        assert documents.tokens[-1] == encoder.eos
        assert parts(encoder, documents)[1] == ["b<|endoftext|>"]


@settings(max_examples=40, deadline=None)
@given(WORDS, WORDS)
def test_completion_and_its_end(prompt: str, completion: str) -> None:
    """Of a prompt with a completion the completion and the end token are supervised; or all but one
    token.
    """
    encoder = encoder_of(model_files(), {})
    rows = [{"prompt": prompt, "completion": completion}]
    assert parts(encoder, tokenise(rows, "prompt-completion", "completion", encoder))[1] == [
        completion + "<|endoftext|>"
    ]
    everything = tokenise(rows, "prompt-completion", "all", encoder)
    assert everything.supervised.tolist() == [False] + [True] * (len(everything.tokens) - 1)


@pytest.mark.parametrize("text", ["hello", "<bos>hello"])
def test_one_bos(text: str) -> None:
    """A text gets the tokenizer's BOS once, also when it brings its own; a template's is not
    doubled.
    """
    encoder = encoder_of(model_files(TEMPLATES["llama3"], bos=True), {})
    bos = encoder.tokenizer.token_to_id("<bos>")
    documents = tokenise([{"text": text}], "text", "all", encoder)
    assert documents.tokens.tolist().count(bos) == 1
    assert documents.tokens[0] == bos
    chat = tokenise([{"messages": talk("a", "b")}], "chat", "assistant", encoder)
    assert chat.tokens.tolist().count(bos) == 1


def test_texts_are_scored_without_an_end() -> None:
    """What is measured is the text."""
    encoder = encoder_of(model_files(), {})
    documents = tokenise([{"text": "ab"}], "text", "all", encoder, terminate=False)
    assert encoder.text(documents.tokens.tolist(), specials=True) == "ab"


def test_take_tokens_cuts_exactly() -> None:
    """`take = 5 tokens` keeps the first five tokens and cuts the document there."""
    encoder = encoder_of(model_files(), {})
    whole = tokenise([{"text": "abc"}, {"text": "def"}], "text", "all", encoder)
    taken = tokenise([{"text": "abc"}, {"text": "def"}], "text", "all", encoder, take_tokens=6)
    assert taken.tokens.tolist() == whole.tokens.tolist()[:6]
    assert taken.count == 2


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_bytes_of_tokens_are_those_of_the_text(text: str) -> None:
    """The token table's bytes add up to the text's UTF-8 bytes; special tokens have none."""
    encoder = encoder_of(model_files(), {})
    sizes = token_bytes(encoder.tokenizer)
    ids = encoder.encode_pieces([(text, True)])[0]
    special = [i for i in ids if encoder.tokenizer.id_to_token(i) in encoder.specials]
    if not special:
        assert sum(int(sizes[i]) for i in ids) == len(text.encode())
    assert all(sizes[encoder.tokenizer.token_to_id(s)] == 0 for s in encoder.specials)


def test_nothing_supervised_is_a_fault() -> None:
    """A dataset without a turn of the assistant is refused before training."""
    encoder = encoder_of(model_files(CHATML), {})
    with pytest.raises(RecipeError, match="E0778"):
        tokenise([{"messages": talk("a")}], "chat", "assistant", encoder)


def test_a_refusing_template_names_the_row() -> None:
    """A template's own complaint reaches the reader with the row's number."""
    encoder = encoder_of(model_files(TEMPLATES["gemma"]), {})
    rows = [
        {"messages": talk("a", "b")},
        {"messages": [{"role": "system", "content": "s"}, *talk("a", "b")]},
    ]
    with pytest.raises(RecipeError, match=r"E0779: row 2: .*no system turn"):
        tokenise(rows, "chat", "assistant", encoder)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ '%09999999999d' % 1 }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(999999) %}{{ 'x' * 1 }}{% endfor %}",
        "{% for i in range(200000) %}" + "x" * 100 + "{% endfor %}",
        "{{ messages.append(1) }}",
        "{% include 'secrets' %}",
    ],
)
def test_hostile_templates_are_refused(template: str) -> None:
    """A template cannot reach out, count for ever, or fill the memory."""
    with pytest.raises(RecipeError, match="E0779"):
        compile_template(template)(talk("a", "b"), False)


def test_a_broken_template_is_refused() -> None:
    """What is no Jinja is said so."""
    with pytest.raises(RecipeError, match="E0779: the chat template is not valid Jinja"):
        compile_template("{% if %}")


def test_sentencepiece_continuations_get_no_space() -> None:
    """A tokenizer that writes a space before a text writes none before a completion."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {c: i for i, c in enumerate(["<unk>", "</s>", "▁", "\n", *"abcdef"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": b'{"eos_token": "</s>"}',
    }
    encoder = encoder_of(files, {})
    documents = tokenise(
        [{"prompt": "ab", "completion": "cd"}], "prompt-completion", "completion", encoder
    )
    tokens = [tokenizer.id_to_token(i) for i in documents.tokens.tolist()]
    assert tokens == ["▁", "a", "b", "c", "d", "</s>"]
    assert documents.supervised.tolist() == [False, False, False, True, True, True]


def test_without_a_template_chats_are_refused() -> None:
    """A model without a chat template cannot read chats; a dataset's own template helps."""
    encoder = encoder_of(model_files(None), {})
    with pytest.raises(RecipeError, match="E0779"):
        tokenise([{"messages": talk("a", "b")}], "chat", "assistant", encoder)
    helped = replace(encoder, template=CHATML)
    assert tokenise([{"messages": talk("a", "b")}], "chat", "assistant", helped).supervised.any()
