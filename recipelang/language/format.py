"""The formatter: one style, no options.

Four spaces; ``->`` starts its line; a block stands on one line only with at most two fields and 88
columns (``budget`` and ``defaults`` never do), otherwise one field a line; lists and calls that do
not fit get one item a line and a trailing comma, numbers alone as many a line as fit; a phrase that
is too wide all the same goes on in the next line before a preposition or `and`; single blank lines
and the author's order stay.
Every token and every comment is written where it stood, so nothing can be lost; the result is
checked all the same.

Example:
    >>> format_source(Source("a.recipe", "m=finetune   base on notes{lr=1e-5,}"))
    'm = finetune base on notes { lr = 1e-5 }\\n'
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass
from typing import Final

from recipelang.diagnostics import RecipeError, Sink, Source, Span, fault
from recipelang.language.parser import parse
from recipelang.language.pieces import (
    Bracket,
    Element,
    Leaf,
    attach,
    build,
    first_leaf,
    last_leaf,
)
from recipelang.language.statements import significant, split
from recipelang.language.tokens import Token, lex

__all__ = ["WIDTH", "comments", "format_source", "shape"]

WIDTH: Final = 88
INDENT: Final = 4
MOST_OPENED: Final = 32
"""Beyond this many brackets in one phrase all go over several lines, to bound the search."""

_TOUCHES_LEFT: Final = frozenset({"COMMA", "DOT", "COLON", "CALL"})
_COMMAS: Final = frozenset({"call", "list"})


def format_source(source: Source) -> str:
    """The text of a recipe in the one style; formatting that again gives the same text.

    Raises RecipeError with the faults of a text that does not parse, and with E0910 when the result
    would not have the comments and the meaning of the source (which would be a bug).
    """
    sink = Sink()
    file = parse(source, sink)
    if sink.has_errors:
        raise RecipeError(*sink)
    tokens = lex(source.text)
    leaves, trailing = attach(tokens)
    page = Page()
    statements = iter(file.statements)
    for piece in split(tokens):
        kept = significant(piece.tokens)
        if not kept:
            continue
        elements = build(kept, leaves, next(statements))
        _leading(page, first_leaf(elements[0]), 0, blanks=page.begun)
        _sequence(page, elements, 0, hang=INDENT)
    for text, blank in trailing:
        page.newline(0, blank and page.begun)
        page.write(text)
    result = page.text()
    _verify(source, file.statements, result)
    return result


def _verify(source: Source, before: tuple[object, ...], text: str) -> None:
    """Raise E0910 unless the text has the source's comments and syntax tree."""
    sink = Sink()
    after = parse(Source(source.path, text), sink).statements
    same = not sink.has_errors and shape(before) == shape(after)
    if not same or comments(source.text) != comments(text):
        raise fault(
            "E0910",
            f"formatting `{source.path}` would change what it says",
            help="the file is as it was; please report this with the file",
        )


def comments(text: str) -> Counter[str]:
    """The comments of a text without trailing spaces, each with how often it occurs."""
    return Counter(token.text.rstrip() for token in lex(text) if token.kind == "COMMENT")


def shape(node: object) -> object:
    """A syntax tree without its spans: equal for texts that differ in layout alone."""
    if isinstance(node, tuple):
        items: tuple[object, ...] = node  # pyright: ignore[reportUnknownVariableType]
        return tuple(shape(item) for item in items)
    if is_dataclass(node) and not isinstance(node, (type, Span)):
        names = [field.name for field in fields(node) if "span" not in field.name]
        return (type(node).__name__, *(shape(getattr(node, name)) for name in names))
    return node


# ---------------------------------------------------------------- the page


class Page:
    """The lines written so far and the one being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line = ""
        self.begun = False
        self.indent = 0
        self.comment = ""
        """The comment that ends the current line; only a comma is written after it is set."""

    def newline(self, indent: int, blank: bool = False) -> None:
        """End the current line, perhaps leave one empty, and begin the next."""
        self._flush()
        if blank:
            self.lines.append("")
        self.begun, self.indent, self.line = True, indent, " " * indent

    def write(self, text: str) -> None:
        """Add to the current line."""
        self.line += text

    def text(self) -> str:
        """Everything."""
        self._flush()
        self.begun = False
        return "".join(line + "\n" for line in self.lines)

    def _flush(self) -> None:
        if self.begun:
            comment = f" {self.comment}" if self.comment else ""
            self.lines.append((self.line + comment).rstrip())
        self.comment = ""


def _leading(page: Page, leaf: Leaf, indent: int, blanks: bool) -> None:
    """Begin a line for a token, after the comments that stand before it."""
    for text, blank in leaf.before:
        page.newline(indent, blank and blanks)
        page.write(text)
        blanks = True
    page.newline(indent, leaf.blank and blanks)


def _sequence(page: Page, elements: list[Element], indent: int, hang: int, suffix: int = 0) -> None:
    """Write a statement, a field or an item whose line has begun; a chain over several lines.

    ``hang`` is how far the links of a chain without ``name =`` are indented; ``suffix`` the columns
    that the caller still adds.
    """
    arrows = [i for i, element in enumerate(elements) if _kind(element) == "ARROW"]
    if not arrows:
        _run(page, elements, indent, suffix)
        return
    equal = next((i for i in range(arrows[0]) if _kind(elements[i]) == "EQUAL"), None)
    begin = 0
    if equal is not None:
        begin, hang = equal + 1, INDENT
        _run(page, elements[:begin], indent, 0)
        _leading(page, first_leaf(elements[begin]), indent + hang, blanks=False)
        _run(page, elements[begin : arrows[0]], indent + hang, 0)
    else:
        _run(page, elements[: arrows[0]], indent, 0)
    for start, end in zip(arrows, [*arrows[1:], len(elements)], strict=True):
        _leading(page, first_leaf(elements[start]), indent + hang, blanks=True)
        _run(page, elements[start:end], indent + hang, suffix if end == len(elements) else 0)


def _run(page: Page, elements: list[Element], indent: int, suffix: int) -> None:
    """Write elements on one line where they fit; what must go on does so indented once more."""
    broken, wraps = _layout(elements, len(page.line), indent, suffix)
    for place, element in enumerate(elements):
        first = first_leaf(element)
        if place:
            if first.before:
                _leading(page, first, indent + INDENT, blanks=False)
            elif page.comment or place in wraps:
                page.newline(indent + INDENT)
            elif _spaced(elements[place - 1], element):
                page.write(" ")
        if isinstance(element, Leaf):
            page.write(_written(element.token))
        elif place in broken:
            _broken(page, element, page.indent)
        else:
            page.write(_flat(element) or "")
        page.comment = last_leaf(element).after


def _layout(
    elements: list[Element], column: int, indent: int, suffix: int
) -> tuple[set[int], set[int]]:
    """The brackets that go over several lines, and the prepositions that begin a new line, which
    they do where opening brackets does not help."""
    broken = _choose_broken(elements, column, indent, suffix)
    if _too_wide(elements, broken, column, indent, suffix) is None:
        return broken, set()
    must = {i for i, e in enumerate(elements) if isinstance(e, Bracket) and _flat(e) is None}
    wraps, fits = _wrap(elements, must, column, indent, suffix)
    return (must, wraps) if fits else (broken, _wrap(elements, broken, column, indent, suffix)[0])


def _wrap(
    elements: list[Element], broken: set[int], column: int, indent: int, suffix: int
) -> tuple[set[int], bool]:
    """The last `and` or preposition of each line that is too wide, and whether all fits then."""
    wraps: set[int] = set()
    fits, width, place, start, last = True, column, 0, 0, 0
    while place < len(elements):
        element = elements[place]
        previous = elements[place - 1] if place else None
        forced = previous and (first_leaf(element).before or last_leaf(previous).after)
        if forced or place in wraps:
            width, start, last = indent + INDENT, place, 0
        elif previous:
            width += _spaced(previous, element)
        if place > start and _kind(element) in ("AND", "PREPOSITION"):
            last = place
        if isinstance(element, Leaf):
            width += len(_written(element.token))
        else:
            width += 1 if place in broken else len(_flat(element) or "")
        if width + (suffix if place + 1 == len(elements) else 0) > WIDTH:
            if last:
                wraps.add(last)
                place = last
                continue
            fits = False
        if place in broken:
            width, start, last = indent + 1, place, 0
        place += 1
    return wraps, fits


def _choose_broken(elements: list[Element], column: int, indent: int, suffix: int) -> set[int]:
    """The brackets that go over several lines: those that must, and as few more as help.

    The last bracket of a line that is too wide goes first; those not needed then close again.
    """
    broken = {i for i, e in enumerate(elements) if isinstance(e, Bracket) and _flat(e) is None}
    opened: list[int] = []
    while (wide := _too_wide(elements, broken, column, indent, suffix)) is not None:
        if wide < 0:
            return broken
        broken.add(wide)
        opened.append(wide)
        if len(opened) > MOST_OPENED:
            return {i for i, e in enumerate(elements) if isinstance(e, Bracket) and _opens(e)}
    for place in opened[:-1]:
        if _too_wide(elements, broken - {place}, column, indent, suffix) is None:
            broken.discard(place)
    return broken


def _opens(bracket: Bracket) -> bool:
    """Whether a bracket may go over several lines."""
    flat = _flat(bracket)
    return flat is None or (len(flat) > 2 and bracket.kind != "type")


def _too_wide(
    elements: list[Element], broken: set[int], column: int, indent: int, suffix: int
) -> int | None:
    """The last bracket in the first line beyond the width; -1 for none there, None when all fit."""
    width, last, found = column, -1, list[int]()
    for place, element in enumerate(elements):
        previous = elements[place - 1] if place else None
        if previous and (first_leaf(element).before or last_leaf(previous).after):
            found += [last] * (width > WIDTH)
            width, last = indent + INDENT, -1
        elif previous:
            width += _spaced(previous, element)
        if isinstance(element, Leaf):
            width += len(_written(element.token))
        elif place in broken:
            found += [last] * (width + 1 > WIDTH)
            width, last = indent + 1, -1
        else:
            flat = _flat(element) or ""
            width += len(flat)
            last = place if _opens(element) else last
    found += [last] * (width + suffix > WIDTH)
    return next((place for place in found if place >= 0), -1 if found else None)


def _broken(page: Page, bracket: Bracket, indent: int) -> None:
    """Write a bracket with every item on lines of its own, or rows of plain numbers."""
    page.write(bracket.open.token.text)
    page.comment = bracket.open.after
    inner = indent + INDENT
    comma = bracket.kind in _COMMAS
    numbers = _numbers(bracket) if comma else []
    for place, text in enumerate(numbers):
        if place and len(page.line) + len(f" {text},") <= WIDTH:
            page.write(f" {text},")
        else:
            page.newline(inner)
            page.write(f"{text},")
    for number, item in enumerate([] if numbers else bracket.items):
        _leading(page, first_leaf(item[0]), inner, blanks=number > 0)
        ends = comma or (bracket.kind == "type" and number + 1 < len(bracket.items))
        if bracket.kind == "each":
            _loops(page, item, inner)
        else:
            hang = INDENT if bracket.kind == "body" else 0
            _sequence(page, item, inner, hang, suffix=int(ends))
        if ends:
            page.write(",")
    blanks = bool(bracket.items)
    for text, blank in bracket.close.before:
        page.newline(inner, blank and blanks)
        page.write(text)
        blanks = True
    page.newline(indent)
    page.write(bracket.close.token.text)


def _numbers(bracket: Bracket) -> list[str]:
    """The items where all are numbers without comments or blank lines, else none."""
    leaves = [item[0] for item in bracket.items if len(item) == 1 and isinstance(item[0], Leaf)]
    plain = all(
        leaf.token.kind == "NUMBER" and not (leaf.before or leaf.after or leaf.blank)
        for leaf in leaves
    )
    whole = plain and len(leaves) == len(bracket.items)
    return [_written(leaf.token) for leaf in leaves] if whole else []


def _loops(page: Page, item: list[Element], indent: int) -> None:
    """Write ``value for a in b`` with each ``for`` on a line of its own."""
    starts = [i for i, element in enumerate(item) if _kind(element) == "FOR"]
    _sequence(page, item[: starts[0]], indent, hang=0)
    for start, end in zip(starts, [*starts[1:], len(item)], strict=True):
        _leading(page, first_leaf(item[start]), indent, blanks=False)
        _sequence(page, item[start:end], indent, hang=INDENT)


# ---------------------------------------------------------------- one line


def _flat(bracket: Bracket) -> str | None:
    """A bracket on one line, or None when it must be broken."""
    if not bracket.measured:
        bracket.flat, bracket.measured = _flatten(bracket), True
    return bracket.flat


def _flatten(bracket: Bracket) -> str | None:
    if bracket.kind == "body" or bracket.always_broken:
        return None
    if bracket.open.after or bracket.close.before:
        return None
    if bracket.kind == "block" and len(bracket.items) > 2:
        return None
    texts: list[str] = []
    for item in bracket.items:
        text = _line(item)
        if text is None:
            return None
        texts.append(text)
    pad = " " if bracket.kind == "block" and texts else ""
    inner = ", ".join(texts)
    return f"{bracket.open.token.text}{pad}{inner}{pad}{bracket.close.token.text}"


def _line(elements: list[Element]) -> str | None:
    """Elements on one line, or None when a comment or a chain stands in the way."""
    parts: list[str] = []
    for place, element in enumerate(elements):
        if first_leaf(element).before or last_leaf(element).after or _kind(element) == "ARROW":
            return None
        if place and _spaced(elements[place - 1], element):
            parts.append(" ")
        text = _written(element.token) if isinstance(element, Leaf) else _flat(element)
        if text is None:
            return None
        parts.append(text)
    return "".join(parts)


def _kind(element: Element) -> str:
    """The kind of a single token, empty for a bracket."""
    return element.token.kind if isinstance(element, Leaf) else ""


def _spaced(left: Element, right: Element) -> bool:
    """Whether a space stands between two elements."""
    if isinstance(right, Bracket) and right.kind == "type":
        return False
    return last_leaf(left).token.kind != "DOT" and first_leaf(right).token.kind not in _TOUCHES_LEFT


def _written(token: Token) -> str:
    """A token as the style writes it."""
    return "->" if token.kind == "ARROW" else token.text
