"""Reading files, and secrets that must not be in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipelang.diagnostics import Sink, Source
from recipelang.language.parser import parse
from recipelang.language.reading import MAX_BYTES, read_source, screen


def test_file_is_read_as_it_is(tmp_path: Path) -> None:
    """A byte-order mark goes, line ends stay, and the path is the given one."""
    path = tmp_path / "a.recipe"
    path.write_bytes("\ufeffa = 1\r\n# é\n".encode())
    sink = Sink()
    source = read_source(path, sink)
    assert source == Source(str(path), "a = 1\r\n# é\n")
    assert not sink.diagnostics


@pytest.mark.parametrize("fault", ["missing", "folder", "encoding", "size", "name"])
def test_unreadable(tmp_path: Path, fault: str) -> None:
    """A file that cannot be read is an E0701 that names it, and exit code 2."""
    path = tmp_path / "a.recipe"
    if fault == "folder":
        path.mkdir()
    elif fault == "encoding":
        path.write_bytes(b"a = 1\nb = \xff\n")
    elif fault == "size":
        path.write_bytes(b"#" * (MAX_BYTES + 1))
    sink = Sink()
    given: Path | str = "a\0b" if fault == "name" else path
    assert read_source(given, sink) is None
    assert [d.code for d in sink] == ["E0701"]
    assert str(given) in next(iter(sink)).message
    assert sink.exit_code == 2
    if fault == "encoding":
        assert "0xff on line 2" in next(iter(sink)).message


LETTERS = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1A"
SECRETS = [
    f"hf_{LETTERS}", f"sk-proj-{LETTERS}", f"ghp_{LETTERS}{LETTERS}",
    f"github_pat_{LETTERS}{LETTERS}", "AKIA" + "ABCDEFGH12345678", f"xoxb-{LETTERS}",
    f"-----BEGIN RSA PRIVATE KEY-----\n# {LETTERS}\n# -----END RSA PRIVATE KEY-----",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", ["# {}\na = 1\n", 'a = f "x" {{ token = "{}" }}\n', "a = {}\n"])
def test_secrets_are_found_and_blotted_out(secret: str, form: str) -> None:
    """A secret in a comment, a string or bare text is an E0702, and no tree or message holds it."""
    sink = Sink()
    file = parse(Source("a.recipe", form.format(secret)), sink)
    assert "E0702" in {d.code for d in sink}
    letters = secret[-16:] if "PRIVATE" not in secret else LETTERS
    assert letters not in repr(file)
    assert letters not in repr(sink.diagnostics)
    assert len(file.source.text) == len(form.format(secret))


@pytest.mark.parametrize(
    "text", ["# sk-learn is a library\n", 'a = "hf:org/name"\n', "hf_model = 1\n"]
)
def test_plain_words_are_no_secrets(text: str) -> None:
    """Short names that begin like tokens stay, and the source is the very same."""
    sink = Sink()
    source = Source("a.recipe", text)
    assert screen(source, sink) is source
    assert not sink.diagnostics
