"""Reading a recipe's text: from a file, and past what must not stand in one.

Characters that hide or reorder text are errors wherever they stand, and so are literals that look
like secrets. A secret is blotted out of the text before anything else sees it, so that no message,
tree or key can hold it.

Example:
    >>> sink = Sink()
    >>> screen(Source("a.recipe", "# hf_" + "A" * 34), sink).text == "# hf_" + "x" * 34
    True
    >>> [d.code for d in sink]
    ['E0702']
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Final

from recipelang.diagnostics import Sink, Source, Span

__all__ = ["MAX_BYTES", "is_hidden", "read_source", "screen"]

MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest recipe, in bytes (and so in code points). 10,000 lines are about a tenth of it."""

_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
    "|\r(?!\n)"
)
_HIDDEN_SHOWN: Final = 50

_SECRET: Final = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic and others
    r"|\b(?:ghp|gho|ghs|ghu)_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}"  # GitHub
    r"|\bglpat-[A-Za-z0-9_-]{20,}"  # GitLab
    r"|\bA[KS]IA[0-9A-Z]{16}\b"  # Amazon
    r"|\bAIza[A-Za-z0-9_-]{35}"  # Google
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"(?:[^-]{0,16384}-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
)
_SECRET_HEAD: Final = re.compile(r"hf_|sk-|gh._|github_pat_|glpat-|A[KS]IA|AIza|xox.-|-----BEGIN ")


def read_source(path: str | Path, sink: Sink, what: str = "recipe") -> Source | None:
    """The text of a recipe file, or None with an E0701 in the sink when it cannot be read.

    A byte-order mark is dropped; line ends stay as they are. Never reads more than ``MAX_BYTES``.
    ``what`` is what the file is called in messages.
    """
    shown = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        sink.error(
            "E0701",
            f"cannot read `{shown}`: {reason.lower()}",
            help=f"give the path of a {what} file",
        )
        return None
    if len(data) > MAX_BYTES:
        message = f"`{shown}` is larger than {MAX_BYTES >> 20} MiB, which no {what} is"
        sink.error("E0701", message, help=f"give the path of a {what} file")
        return None
    try:
        return Source(shown, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"`{shown}` is not UTF-8: byte 0x{data[error.start]:02x} on line {line}"
        sink.error("E0701", message, help="save the file as UTF-8")
        return None


def screen(source: Source, sink: Sink) -> Source:
    """Report hidden characters (E0117) and secrets (E0702); the result holds no secret."""
    if _SECRET.search(source.text):
        source = _blot(source, sink)
    for count, match in enumerate(_HIDDEN.finditer(source.text)):
        if count == _HIDDEN_SHOWN:
            break
        character = match[0][0]
        name = unicodedata.name(character, "a control character")
        sink.error(
            "E0117",
            f"the text holds U+{ord(character):04X} ({name.lower()}), which a reader cannot see",
            Span(source, match.start(), match.start() + 1),
            label="here",
            help=f"delete it; inside a string write `\\u{{{ord(character):x}}}`",
        )
    return source


def is_hidden(character: str) -> bool:
    """Whether `screen` reports this character."""
    return _HIDDEN.match(character) is not None


def _blot(source: Source, sink: Sink) -> Source:
    """The same text with every secret's letters replaced, and an error for each."""
    pieces: list[str] = []
    places: list[tuple[int, int]] = []
    done = 0
    for match in _SECRET.finditer(source.text):
        head = _SECRET_HEAD.match(match[0])
        kept = head.end() if head else 0
        pieces += [source.text[done : match.start()], match[0][:kept]]
        pieces.append(re.sub(r"[A-Za-z0-9+/=_]", "x", match[0][kept:]))
        places.append((match.start(), match.end()))
        done = match.end()
    clean = Source(source.path, "".join([*pieces, source.text[done:]]))
    for start, end in places:
        line_end = clean.text.find("\n", start, end)
        sink.error(
            "E0702",
            "this looks like a secret, and a recipe is read by everyone who has its repository",
            Span(clean, start, line_end if line_end >= 0 else end),
            label="blotted out here",
            help='revoke it, set it in the environment, and write `secret("NAME")`',
        )
    return clean
