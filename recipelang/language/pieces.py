"""What the formatter works on: a statement's tokens as a tree of brackets, comments attached.

A comment belongs to the token before it on its line, or else to the next token: nothing can be lost
between. Commas and newlines that separate are not in the tree; the layout writes its own.

Example:
    ``f(a, # first`` newline ``b)`` is a leaf ``f`` and a bracket of two items; the comment stands
    ``after`` the leaf ``a``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from recipelang.language import syntax
from recipelang.language.statements import CLOSERS, OPENERS
from recipelang.language.tokens import Token

__all__ = ["Bracket", "Element", "Leaf", "attach", "build", "first_leaf", "last_leaf"]


@dataclass(slots=True)
class Leaf:
    """A token with its comments.

    ``before`` are those on lines of their own, each with whether a blank line precedes it;
    ``after`` is the one behind it; ``blank`` says that a blank line stands right before the token.
    """

    token: Token
    before: list[tuple[str, bool]]
    blank: bool
    after: str = ""


@dataclass(slots=True)
class Bracket:
    """``kind`` is one of ``group call list each type block body``; a body is that of a template."""

    kind: str
    open: Leaf
    items: list[list[Element]]
    close: Leaf
    always_broken: bool = False
    flat: str | None = None
    measured: bool = field(default=False)


Element: TypeAlias = "Leaf | Bracket"


def first_leaf(element: Element) -> Leaf:
    """The first token of an element."""
    return element if isinstance(element, Leaf) else element.open


def last_leaf(element: Element) -> Leaf:
    """The last token of an element."""
    return element if isinstance(element, Leaf) else element.close


def attach(tokens: list[Token]) -> tuple[dict[int, Leaf], list[tuple[str, bool]]]:
    """The leaf of every token that is not blank, by offset, and the comments behind the last."""
    leaves: dict[int, Leaf] = {}
    pending: list[tuple[str, bool]] = []
    previous: Leaf | None = None
    newlines = 0
    for token in tokens:
        if token.kind == "NEWLINE":
            newlines += 1
        elif token.kind == "COMMENT":
            text = token.text.rstrip()
            if previous and not newlines and not pending:
                previous.after = text
            else:
                pending.append((text, newlines > 1))
            newlines = 0
        elif token.kind != "SPACE":
            previous = leaves[token.start] = Leaf(token, pending, newlines > 1)
            pending, newlines = [], 0
    return leaves, pending


def build(
    tokens: list[Token], leaves: dict[int, Leaf], statement: syntax.Statement
) -> list[Element]:
    """The tree of a statement from its significant tokens, which parse as ``statement``."""
    types = [(t.span.start, t.span.end) for t in _types(statement)]
    top: list[Element] = []
    items: list[list[Element]] = [top]
    stack: list[tuple[Leaf, list[list[Element]]]] = []
    carried: list[tuple[str, bool]] = []
    for token in tokens:
        kind = token.kind
        body = isinstance(statement, syntax.Template) and _in_body(stack)
        if kind == "NEWLINE" or (kind == "COMMA" and stack and not body):
            if kind == "COMMA":
                carried += _given_up(leaves[token.start], last_leaf(items[-1][-1]))
            items.append([])
            continue
        leaf = leaves[token.start]
        leaf.token = token
        leaf.before[:0] = carried
        carried = []
        if kind in OPENERS:
            stack.append((leaf, items))
            items = [[]]
        elif kind in CLOSERS:
            opener, outer = stack.pop()
            filled = [item for item in items if item]
            bracket = Bracket(_kind(opener, filled, statement, stack, types), opener, filled, leaf)
            setting = isinstance(statement, syntax.Setting) and not stack
            bracket.always_broken = setting and bool(filled)
            items = outer
            items[-1].append(bracket)
        else:
            items[-1].append(leaf)
    return top


def _in_body(stack: list[tuple[Leaf, list[list[Element]]]]) -> bool:
    """Whether a template's body is the innermost bracket: a comma there is part of a gate."""
    return len(stack) == 1 and stack[0][0].token.kind == "LBRACE"


def _given_up(comma: Leaf, previous: Leaf) -> list[tuple[str, bool]]:
    """Hand a comma's comments on: one behind it to the token before, the rest to the one after."""
    rest = comma.before
    if comma.after and not previous.after and not rest:
        previous.after = comma.after
    elif comma.after:
        rest = [*rest, (comma.after, False)]
    return rest


def _kind(
    opener: Leaf, items: list[list[Element]], statement: syntax.Statement,
    stack: list[tuple[Leaf, list[list[Element]]]], types: list[tuple[int, int]],
) -> str:  # fmt: skip
    """What a bracket is."""
    if opener.token.kind == "LBRACE":
        return "body" if isinstance(statement, syntax.Template) and not stack else "block"
    if opener.token.kind != "LSQUARE":
        return "call" if opener.token.kind == "CALL" else "group"
    if any(start <= opener.token.start < end for start, end in types):
        return "type"
    loops = (leaf for item in items for leaf in item if isinstance(leaf, Leaf))
    return "each" if any(leaf.token.kind == "FOR" for leaf in loops) else "list"


def _types(statement: syntax.Statement) -> Iterator[syntax.TypeName]:
    """The types that a statement writes."""
    match statement:
        case syntax.Param():
            yield statement.type
        case syntax.Binding(type=syntax.TypeName() as found):
            yield found
        case syntax.Template():
            yield from (param.type for param in statement.params)
            yield statement.result
            for inner in statement.body:
                if isinstance(inner, syntax.Binding) and inner.type:
                    yield inner.type
        case _:
            return
