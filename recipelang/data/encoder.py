"""A model's tokenizer with what belongs to it: the end token, the prefix it writes, the chat
template.

Example:
    >>> encoder = encoder_of({"tokenizer.json": b"..."}, {})  # doctest: +SKIP
    >>> encoder.encode_pieces([("hello", True)])  # doctest: +SKIP
    [[31373]]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from recipelang.data.chat import Render, compile_template
from recipelang.diagnostics.diagnostic import fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

__all__ = ["Encoder", "encoder_of", "token_bytes"]

SENTINEL = "\n"


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """``prefix`` are the ids that the tokenizer puts before a text (BOS, usually); ``eos`` ends a
    text; ``stops`` are all tokens at which the model is done; ``specials`` the texts of special
    tokens. ``marks_start`` says that the tokenizer writes a space before a text, which a
    continuation must not get. ``digest`` is the sha256 of ``tokenizer.json``.
    """

    tokenizer: Tokenizer
    eos: int | None
    stops: frozenset[int]
    prefix: tuple[int, ...]
    specials: tuple[str, ...]
    template: str | None
    bos_text: str
    eos_text: str
    marks_start: bool
    digest: str

    @property
    def key(self) -> tuple[object, ...]:
        """What decides the tokens of a text: equal keys, equal tokens."""
        return self.digest, self.eos, self.template, self.specials, self.bos_text, self.eos_text

    @property
    def render(self) -> Render:
        """The chat template as a function. Raises RecipeError E0779 without one."""
        if self.template is None:
            raise fault(
                "E0779",
                "the data are chats, but the model has no chat template",
                help='give one: `dataset "…" { template = "chatml.jinja" }`',
            )
        return compile_template(self.template, bos=self.bos_text, eos=self.eos_text)

    def encode_pieces(self, pieces: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """The ids of each (text, starts a document); special tokens are taken as such."""
        texts = [t if first or not self.marks_start else SENTINEL + t for t, first in pieces]
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        found: list[list[int]] = [e.ids for e in encoded]
        if self.marks_start:
            head: list[int] = self.tokenizer.encode(SENTINEL, add_special_tokens=False).ids
            for i, (text, first) in enumerate(pieces):
                if first:
                    continue
                if found[i][: len(head)] == head:
                    found[i] = found[i][len(head) :]
                else:
                    found[i] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def prompt(self, text: str) -> list[int]:
        """The ids of a prompt that the model goes on from, with the prefix."""
        ids = self.encode_pieces([(text, True)])[0]
        prefix = list(self.prefix)
        return ids if ids[: len(prefix)] == prefix else prefix + ids

    def text(self, ids: Sequence[int], *, specials: bool = False) -> str:
        """The text of some tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not specials))


def encoder_of(
    files: Mapping[str, Path | bytes], config: Mapping[str, object], template: str | None = None
) -> Encoder:
    """The encoder of a model, from its files and configuration; ``template`` replaces its chat
    template.

    Raises RecipeError E0780 where there is no usable ``tokenizer.json``.
    """
    from tokenizers import Tokenizer

    data = _bytes(files, "tokenizer.json")
    if data is None:
        raise fault(
            "E0780",
            "the model has no tokenizer.json",
            help="save the tokenizer beside the model, in the `tokenizers` format",
        )
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises plain Exceptions
        raise fault(
            "E0780", f"tokenizer.json cannot be read: {str(error).splitlines()[0][:200]}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings = _json(files, "tokenizer_config.json")
    bos, eos = _text(settings.get("bos_token")), _text(settings.get("eos_token"))
    ends = _ids(config.get("eos_token_id")) + _ids(
        _json(files, "generation_config.json").get("eos_token_id")
    )
    named = tokenizer.token_to_id(eos) if eos else None
    eos_id = named if named is not None else next(iter(ends), None)
    if eos_id is not None and not eos:
        eos = tokenizer.id_to_token(eos_id) or ""
    added: dict[int, Any] = tokenizer.get_added_tokens_decoder()
    specials = tuple(t.content for t in added.values() if t.special)
    if eos and eos not in specials:
        specials = (*specials, eos)
    stops: set[int] = {*ends, *([] if eos_id is None else [eos_id])}
    return Encoder(
        tokenizer,
        eos_id,
        frozenset(stops),
        _prefix(tokenizer),
        specials,
        template or _template(files, settings),
        bos,
        eos,
        _marks_start(tokenizer),
        hashlib.sha256(data).hexdigest(),
    )


def _bytes(files: Mapping[str, Path | bytes], name: str) -> bytes | None:
    found = files.get(name)
    if found is None or isinstance(found, bytes):
        return found
    try:
        return found.read_bytes()
    except OSError as error:
        raise fault("E0771", f"cannot read `{found}`: {(error.strerror or '').lower()}") from None


def _json(files: Mapping[str, Path | bytes], name: str) -> dict[str, object]:
    data = _bytes(files, name)
    try:
        found: object = json.loads(data) if data else {}
    except ValueError as error:
        raise fault("E0780", f"{name} is not JSON: {error}") from None
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _text(value: object) -> str:
    """A token of tokenizer_config.json: its text, or an object with ``content``."""
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else ""


def _ids(value: object) -> list[int]:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return [i for i in items if isinstance(i, int) and not isinstance(i, bool)]


def _template(files: Mapping[str, Path | bytes], settings: Mapping[str, object]) -> str | None:
    """chat_template.jinja, or the (default) one of tokenizer_config.json."""
    data = _bytes(files, "chat_template.jinja")
    if data is not None:
        return data.decode(errors="replace")
    found = settings.get("chat_template")
    if isinstance(found, list):
        rows: list[object] = [t for t in cast("list[object]", found) if isinstance(t, dict)]
        entries = cast("list[dict[str, object]]", rows)
        named = {str(entry.get("name")): entry.get("template") for entry in entries}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer's post-processor puts before a text."""
    with_specials: list[int] = tokenizer.encode("a", add_special_tokens=True).ids
    plain: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    for i in range(len(with_specials) - len(plain) + 1):
        if with_specials[i : i + len(plain)] == plain:
            return tuple(with_specials[:i])
    return ()


def _marks_start(tokenizer: Tokenizer) -> bool:
    """Whether a space is written before every text, as SentencePiece does."""
    plain: list[str] = tokenizer.encode("a", add_special_tokens=False).tokens
    return bool(plain) and plain[0].startswith("▁")


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """The number of UTF-8 bytes of text that each token id stands for, (vocabulary,); special
    tokens have none.

    It is read off the tokens' own spelling: byte-level alphabets write one character a byte,
    SentencePiece writes ``▁`` for a space and ``<0x0A>`` for a byte.
    """
    import numpy as np

    document = json.loads(tokenizer.to_str())
    decoder = json.dumps(document.get("decoder") or {})
    byte_level = '"ByteLevel"' in decoder
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    added: dict[int, Any] = tokenizer.get_added_tokens_decoder()
    sizes = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int32)
    for token, i in vocabulary.items():
        if i in added:
            sizes[i] = 0 if added[i].special else len(added[i].content.encode())
        elif byte_level:
            sizes[i] = len(token)
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            sizes[i] = 1
        else:
            sizes[i] = len(token.replace("▁", " ").removeprefix("##").encode())
    return sizes
