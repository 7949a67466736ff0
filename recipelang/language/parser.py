"""The parser: recursive descent over the tokens of one statement at a time.

``grammar/recipe.lark`` is the normative form of the grammar; a test holds the two together. Written
by hand, the parser needs no tables at start-up and knows at every place what it wanted, which is
what an error message is made of.

Example:
    >>> sink = Sink()
    >>> file = parse(Source("a.recipe", 'base = model "x"\\nnext = = 3\\n'), sink)
    >>> len(file.statements), file.broken, [d.code for d in sink]
    (1, ('next',), ['E0102'])
"""

from __future__ import annotations

from typing import Final

from recipelang.diagnostics import Diagnostic, Sink, Source
from recipelang.language import syntax
from recipelang.language.descent import Phrases, Unexpected
from recipelang.language.reading import MAX_BYTES, screen
from recipelang.language.statements import CLOSERS, MAX_NESTING, OPENERS, significant, split
from recipelang.language.tokens import FAULTY, Token, lex

__all__ = ["parse"]

MAX_HEIGHT: Final = 150
"""Levels of the syntax tree of one statement; later passes recurse once or twice a level."""


def parse(source: Source, sink: Sink) -> syntax.File:
    """The syntax tree of a file. Never raises: every fault is in the sink, one a bad statement.

    The tree's source is the given one, unless that holds a secret: then it is a copy without it.
    """
    if len(source.text) > MAX_BYTES:
        message = f"`{source.path}` is larger than {MAX_BYTES >> 20} MiB, which no recipe is"
        sink.error("E0118", message, help="split it with `use`")
        return syntax.File(source, ())
    source = screen(source, sink)
    statements: list[syntax.Statement] = []
    broken: list[str] = []
    first = True
    for piece in split(lex(source.text)):
        tokens = significant(piece.tokens)
        if not tokens:
            continue
        if piece.misplaced:
            from recipelang.language.refusals import misplaced

            sink.add(misplaced(source, piece.misplaced))
        elif first and _is_indented(source, tokens[0]):
            from recipelang.language.refusals import indented

            sink.add(indented(source, tokens[0]))
        first = False
        statement = _statement(source, tokens, sink)
        if statement is None:
            broken += _names(tokens)
        else:
            statements.append(statement)
    return syntax.File(source, tuple(statements), tuple(broken))


def _is_indented(source: Source, token: Token) -> bool:
    """Whether a file's first token is beyond column 1; a misplaced ``->`` has its own error."""
    return token.kind != "ARROW" and source.position(token.start)[1] > 1


def _statement(source: Source, tokens: list[Token], sink: Sink) -> syntax.Statement | None:
    """The statement that the tokens make, or None and at least one diagnostic."""
    parser = _Statements(source, tokens)
    try:
        if FAULTY.isdisjoint(parser.kinds) and _deepest(tokens) is None:
            statement = parser.statement()
            known = not isinstance(statement, syntax.Language) or statement.version.text == "1"
            if known and (len(tokens) <= MAX_HEIGHT or _height(statement) <= MAX_HEIGHT):
                return statement
    except Unexpected as fault:
        sink.add(_explained(source, parser, fault))
        return None
    _report_beyond_grammar(source, tokens, sink)
    return None


def _explained(source: Source, parser: Phrases, fault: Unexpected) -> Diagnostic:
    """The diagnostic for a fault; the words are loaded only when there is one."""
    from recipelang.language.explain import explain

    return explain(source, parser.tokens, fault)


def _report_beyond_grammar(source: Source, tokens: list[Token], sink: Sink) -> None:
    """Report what is wrong besides the grammar: broken tokens, the depth, the version."""
    from recipelang.language import refusals
    from recipelang.language.spelling import lexical

    broken = lexical(source, tokens)
    if broken:
        sink.extend(broken)
    elif tokens[0].kind == "LANGUAGE" and _deepest(tokens) is None:
        sink.add(refusals.wrong_version(source, tokens[1]))
    else:
        sink.add(refusals.too_deep(source, _deepest(tokens) or tokens[0]))


def _deepest(tokens: list[Token]) -> Token | None:
    """The first bracket beyond the limit, if there is one."""
    if len(tokens) <= MAX_NESTING:
        return None
    depth = 0
    for token in tokens:
        if token.kind in OPENERS:
            depth += 1
            if depth > MAX_NESTING:
                return token
        elif token.kind in CLOSERS:
            depth -= 1
    return None


def _height(root: object) -> int:
    """The number of levels of a tree, found without recursion."""
    height = 0
    level: list[object] = [root]
    while level:
        height += 1
        level = [child for node in level for child in _children(node)]
    return height


def _children(node: object) -> list[object]:
    """The parts of a node that are nodes or tuples."""
    if isinstance(node, tuple):
        inner: tuple[object, ...] = node  # pyright: ignore[reportUnknownVariableType]
        return [part for item in inner for part in _children_or_self(item)]
    names = getattr(type(node), "__slots__", ())
    parts = [getattr(node, name) for name in names if "span" not in name]
    return [part for item in parts for part in _children_or_self(item)]


def _children_or_self(part: object) -> list[object]:
    if isinstance(part, tuple):
        return _children(part)  # pyright: ignore[reportUnknownArgumentType]
    return [part] if part is not None and not isinstance(part, (str, bool)) else []


def _names(tokens: list[Token]) -> list[str]:
    """The names that a statement with a fault would have given, as far as can be told."""
    kinds = [token.kind for token in tokens]
    if kinds[0] in ("PARAM", "RECIPE") and len(kinds) > 1 and kinds[1] == "NAME":
        return [tokens[1].text]
    if kinds[0] == "USE":
        return [token.text for token in tokens[1:] if token.kind == "NAME"][-1:]
    starts = [0, *(place + 1 for place, kind in enumerate(kinds) if kind == "NEWLINE")]
    return [
        tokens[place].text
        for place in starts
        if kinds[place] == "NAME" and kinds[place + 1 : place + 2] in _NAMING
    ]


_NAMING: Final = (["EQUAL"], ["COLON"], ["COMPARE"])


class _Statements(Phrases):
    """The rules for statements."""

    __slots__ = ()

    def statement(self) -> syntax.Statement:
        """The one statement that the tokens are."""
        kind = self.kinds[0]
        found: syntax.Statement
        if kind in ("REQUIRE", "EXPECT"):
            found = self._gate()
        elif kind in ("BUDGET", "DEFAULTS"):
            self.at = 1
            keyword = self.named(self.tokens[0])
            found = syntax.Setting(keyword, self.block(), self.span(0))
        elif kind == "LANGUAGE":
            found = self._language()
        elif kind == "USE":
            found = self._use()
        elif kind == "PARAM":
            self.at = 1
            found = self._param(0, self.variable("a name after `param`"))
        elif kind == "RECIPE":
            found = self._template()
        elif kind == "PUBLISH":
            found = self._publish()
        else:
            found = self._binding()
        if self.kinds[self.at] != "END":
            raise Unexpected(self.at, "the end of the statement")
        return found

    def _language(self) -> syntax.Language:
        self.at = 1
        token = self.take("NUMBER", "a number after `language`")
        number = syntax.Number(token.text, None, self.span(1))
        return syntax.Language(number, self.span(0))

    def _use(self) -> syntax.Use:
        self.at = 1
        path = self.text("a file's path in quotes")
        self.take("AS", "`as` and a name")
        name = self.variable("a name after `as`")
        return syntax.Use(path, name, self.span(0))

    def _param(self, start: int, name: syntax.Name) -> syntax.Param:
        self.take("COLON", f"`:` and a type after `{name.text}`")
        kind = self.type()
        default = self.value() if self.skip("EQUAL") else None
        return syntax.Param(name, kind, default, self.span(start))

    def _binding(self) -> syntax.Binding:
        start = self.at
        if self.kinds[start] == "NAME" and self.kinds[start + 1] in ("EQUAL", "COLON"):
            name = self.variable("a name")
        else:
            name = self.name("a statement" if start == 0 else "a binding, a gate or `give`")
        kind = self.type() if self.skip("COLON") else None
        self.take("EQUAL", f"`=` after `{name.text}`")
        return syntax.Binding(name, kind, self.value(), self.span(start))

    def _gate(self) -> syntax.Gate:
        start = self.at
        self.at += 1
        left = self.value()
        compare = self.take("COMPARE", "a comparison")
        right = self.value()
        message = self.text("a message in quotes") if self.skip("COMMA") else None
        keyword = self.named(self.tokens[start])
        return syntax.Gate(keyword, left, compare.text, right, message, self.span(start))

    def _publish(self) -> syntax.Publish:
        self.at = 1
        what = self.operand()
        clause = self.clause("`to` and a place")
        block = self.block() if self.kinds[self.at] == "LBRACE" else None
        return syntax.Publish(what, clause, block, self.span(0))

    def _template(self) -> syntax.Template:
        self.at = 1
        name = self.variable("a name after `recipe`", hyphens=True)
        self.take("CALL", "`(` touching the name")
        params: list[syntax.Param] = []
        while self.kinds[self.at] != "RPAREN":
            start = self.at
            if self.kinds[start] == "FIELD":
                self.at += 1
                word = self.named(self.tokens[start])
            else:
                word = self.variable("a parameter")
            params.append(self._param(start, word))
            if not self.skip("COMMA"):
                break
        self.take("RPAREN", "`,` or `)`")
        self.take("GIVES", "`=>` and the type of the result")
        result = self.type()
        self.take("LBRACE", "`{`")
        body: list[syntax.Binding | syntax.Gate | syntax.Give] = []
        while self.kinds[self.at] != "RBRACE":
            body.append(self._inner())
            if not self.skip("NEWLINE"):
                break
        self.take("RBRACE", "a new line or `}`")
        return syntax.Template(name, tuple(params), result, tuple(body), self.span(0))

    def _inner(self) -> syntax.Binding | syntax.Gate | syntax.Give:
        """A statement of a template."""
        start = self.at
        if self.kinds[start] in ("REQUIRE", "EXPECT"):
            return self._gate()
        if self.kinds[start] == "GIVE":
            self.at += 1
            return syntax.Give(self.value(), self.span(start))
        return self._binding()
