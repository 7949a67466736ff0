"""Diagnostics as text: golden renderings."""

import io

from recipelang.diagnostics import Diagnostic, Label, Sink, Source, Span
from recipelang.diagnostics.terminal import render, render_all

SOURCE = Source(
    "recipes/medic.recipe",
    "language 1\n\nm = a\n    -> ties-merge with chat(weight = 0.4) { density = 2h }\n",
)


def span(text: str, source: Source = SOURCE) -> Span:
    """The place of a text."""
    start = source.text.index(text)
    return Span(source, start, start + len(text))


def test_two_labels_on_one_line() -> None:
    """The rightmost label stands beside its carets, the other hangs below."""
    diagnostic = Diagnostic(
        "E0412",
        "error",
        "`density` is a fraction, found a duration",
        Label(span("2h"), "expected a fraction in (0, 1]"),
        (Label(span("ties-merge"), "`ties-merge` keeps this share of each task vector"),),
        help="write a percentage or a number: `density = 60%`",
    )
    expected = """\
error[E0412]: `density` is a fraction, found a duration
 --> recipes/medic.recipe:4:55
  |
4 |     -> ties-merge with chat(weight = 0.4) { density = 2h }
  |        ----------                                     ^^ expected a fraction in (0, 1]
  |        |
  |        `ties-merge` keeps this share of each task vector
  = help: write a percentage or a number: `density = 60%`"""
    assert render(diagnostic) == expected


def test_other_lines_and_files() -> None:
    """Labels on other lines and in other files have snippets of their own; gaps are dots."""
    other = Source("lib.recipe", "x = 1\n")
    diagnostic = Diagnostic(
        "E0203",
        "warning",
        "twice",
        Label(span("m = a"), "again"),
        (Label(span("language"), "first"), Label(Span(other, 0, 1), "and here")),
        notes=("one\ntwo",),
    )
    expected = """\
warning[E0203]: twice
 --> recipes/medic.recipe:3:1
  |
1 | language 1
  | -------- first
2 |
3 | m = a
  | ^^^^^ again
 ::: lib.recipe:1:1
  |
1 | x = 1
  | - and here
  = note: one
          two"""
    assert render(diagnostic) == expected


def test_what_is_printed_steers_no_terminal() -> None:
    """Control and bidirectional characters are escaped, wide characters take two columns."""
    source = Source("a.recipe", '\tx = "\x1b[2J\u202e語" !\n')
    rendered = render(Diagnostic("E0101", "error", "\x07bad", Label(span("!", source))))
    assert "\x1b" not in rendered
    assert "\u202e" not in rendered
    line, marks = rendered.splitlines()[3:5]
    assert marks.index("^") - line.index("!") == 1  # one wide character before it
    assert rendered.startswith("error[E0101]: \\u{7}bad")


def test_colours_only_where_asked() -> None:
    """A stream that is no terminal gets none; asked for, they wrap the same text."""
    sink = Sink()
    sink.error("E0101", "bad", span("2h"))
    plain, painted = io.StringIO(), io.StringIO()
    render_all(sink, plain)
    render_all(sink, painted, colour=True)
    assert "\x1b" not in plain.getvalue()
    assert "\x1b[1;31m^^\x1b[0m" in painted.getvalue()


def test_at_most_twenty() -> None:
    """The twenty-first diagnostic and later ones are counted."""
    sink = Sink()
    for i in range(23):
        sink.error("E0101", f"fault {i}", Span(SOURCE, i, i + 1))
    stream = io.StringIO()
    render_all(sink, stream)
    assert stream.getvalue().endswith("... and 3 more\n")
    assert stream.getvalue().count("error[E0101]") == 20
