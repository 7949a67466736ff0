"""The normative grammar as a parser: lark's LALR tables over our tokens, and its trees as ours.

The hand-written parser is compared with it. It is slow to start and only for the tests.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput
from lark.lexer import Lexer

from recipelang._resources import grammar_file
from recipelang.diagnostics import Source, Span
from recipelang.language import syntax, tokens
from recipelang.language.statements import significant, split


class _Given(Lexer):
    """A lexer that passes on the tokens that it is given."""

    def __init__(self, configuration: Any) -> None:
        pass

    def make_lexer_state(self, text: Any) -> Any:
        return text

    def lex(self, data: Any, *_: Any) -> Any:
        yield from data


@cache
def grammar() -> Lark:
    """The tables; lark's strict mode raises on any conflict."""
    text = grammar_file("recipe.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer=_Given, strict=True, maybe_placeholders=True)


def parse(source: Source) -> list[syntax.Statement | None]:
    """The statements of a file as the grammar reads them; None for one that it refuses."""
    return [
        _statement(source, kept)
        for piece in split(tokens.lex(source.text))
        if (kept := significant(piece.tokens))
    ]


def _statement(source: Source, kept: list[tokens.Token]) -> syntax.Statement | None:
    given = [Token(t.kind, t.text, start_pos=t.start, end_pos=t.end) for t in kept]
    try:
        tree = grammar().parse(given)  # type: ignore[arg-type]
    except UnexpectedInput:
        return None
    return _Reader(source).read(tree.children[0])


class _Reader:
    """Turns lark's trees into the syntax tree, rule by rule."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def read(self, tree: Any) -> Any:
        if isinstance(tree, Token):
            return syntax.Name(str(tree), self.at(tree))
        return getattr(self, tree.data)(tree.children, self.at(tree))

    def at(self, tree: Any) -> Span:
        leaves = [tree] if isinstance(tree, Token) else list(tree.scan_values(bool))
        return Span(self.source, leaves[0].start_pos, leaves[-1].end_pos)

    def some(self, parts: list[Any], *rules: str) -> tuple[Any, ...]:
        found = [p for p in parts if isinstance(p, Tree) and (not rules or p.data in rules)]
        return tuple(self.read(p) for p in found)

    def names(self, parts: list[Any]) -> list[syntax.Name]:
        kinds = ("NAME", "FIELD")
        return [self.read(p) for p in parts if isinstance(p, Token) and p.type in kinds]

    def string(self, token: Token) -> syntax.Text:
        value = tokens.unescape(str(token))
        assert value is not None
        return syntax.Text(value, self.at(token))

    # statements

    def language(self, parts: Any, span: Span) -> Any:
        return syntax.Language(syntax.Number(str(parts[1]), None, self.at(parts[1])), span)

    def use(self, parts: Any, span: Span) -> Any:
        return syntax.Use(self.string(parts[1]), self.read(parts[3]), span)

    def param_statement(self, parts: Any, span: Span) -> Any:
        return self.param(parts, span)

    def param(self, parts: Any, span: Span) -> Any:
        kind, *default = self.some(parts)
        return syntax.Param(self.names(parts)[0], kind, *(default or [None]), span)

    def setting(self, parts: Any, span: Span) -> Any:
        return syntax.Setting(self.read(parts[0]), self.read(parts[1]), span)

    def binding(self, parts: Any, span: Span) -> Any:
        kinds, values = self.some(parts, "type"), [p for p in self.some(parts)]
        return syntax.Binding(self.names(parts)[0], kinds[0] if kinds else None, values[-1], span)

    def recipe(self, parts: Any, span: Span) -> Any:
        params = self.some(parts, "param")
        body = self.some(parts, "binding", "gate", "give")
        return syntax.Template(
            self.names(parts)[0], params, self.some(parts, "type")[0], body, span
        )

    def gate(self, parts: Any, span: Span) -> Any:
        left, right = self.some(parts)
        compare = next(p for p in parts if isinstance(p, Token) and p.type == "COMPARE")
        texts = [p for p in parts if isinstance(p, Token) and p.type == "STRING"]
        message = self.string(texts[0]) if texts else None
        return syntax.Gate(self.read(parts[0]), left, str(compare), right, message, span)

    def publish(self, parts: Any, span: Span) -> Any:
        what, clause, *block = self.some(parts)
        return syntax.Publish(what, clause, *(block or [None]), span)

    def give(self, parts: Any, span: Span) -> Any:
        return syntax.Give(*self.some(parts), span)

    def type(self, parts: Any, span: Span) -> Any:
        return syntax.TypeName(self.names(parts)[0], self.some(parts), span)

    # values

    def chain(self, parts: Any, span: Span) -> Any:
        first, *tails = self.some(parts)
        return syntax.Chain(first, tuple(tails), span) if tails else first

    def step(self, parts: Any, span: Span) -> Any:
        head, *rest = [p for p in parts if isinstance(p, Tree)]
        clauses = tuple(self.read(p) for p in rest if p.data == "clause")
        blocks = [self.read(p) for p in rest if p.data == "block"]
        subjects = [self.read(p) for p in rest if p.data not in ("clause", "block")]
        return syntax.Step(
            self.read(head),
            subjects[0] if subjects else None,
            clauses,
            blocks[0] if blocks else None,
            span,
        )

    tail = step

    def clause(self, parts: Any, span: Span) -> Any:
        return syntax.Clause(self.read(parts[0]), self.some(parts), span)

    def block(self, parts: Any, span: Span) -> Any:
        return syntax.Block(self.some(parts), span)

    def field(self, parts: Any, span: Span) -> Any:
        quoted = parts[0].type == "STRING"
        name = self.read(parts[0])
        if quoted:
            name = syntax.Name(self.string(parts[0]).value, name.span)
        return syntax.Field(name, quoted, self.read(parts[2]), span)

    def sum(self, parts: Any, span: Span) -> Any:
        left, sign, right = parts
        return syntax.Binary(str(sign), self.read(left), self.read(right), span, self.at(sign))

    product = sum

    def ref(self, parts: Any, span: Span) -> Any:
        return syntax.Ref(tuple(self.names(parts)), span)

    def group(self, parts: Any, span: Span) -> Any:
        return syntax.Group(self.read(parts[1]), span)

    def member(self, parts: Any, span: Span) -> Any:
        return syntax.Member(self.read(parts[0]), self.read(parts[2]), span)

    def call(self, parts: Any, span: Span) -> Any:
        return syntax.Call(self.read(parts[0]), self.some(parts, "arg"), span)

    def arg(self, parts: Any, span: Span) -> Any:
        names = self.names(parts)
        return syntax.Arg(names[0] if names else None, self.read(parts[-1]), span)

    def number(self, parts: Any, span: Span) -> Any:
        unit = None if parts[1] is None else self.read(parts[1])
        return syntax.Number(str(parts[0]), unit, span)

    def text(self, parts: Any, span: Span) -> Any:
        return self.string(parts[0])

    def truth(self, parts: Any, span: Span) -> Any:
        return syntax.Bool(parts[0] == "true", span)

    def list(self, parts: Any, span: Span) -> Any:
        return syntax.ListOf(self.some(parts), span)

    def each(self, parts: Any, span: Span) -> Any:
        value, *loops = self.some(parts)
        return syntax.Each(value, tuple(loops), span)

    def loop(self, parts: Any, span: Span) -> Any:
        return (self.read(parts[1]), self.read(parts[3]))
