"""Values and phrases: the part of the grammar below statements, by recursive descent.

A value is a chain of steps or an arithmetic expression. Whether a name begins a phrase (``finetune
base``) or stands alone is decided by the one token behind it.

Example:
    ``finetune base on notes`` is a ``Step`` with a subject and a clause; ``1.1 * (loss of m on d)``
    is a ``Binary`` whose right side is a ``Group`` around a ``Step``.
"""

from __future__ import annotations

from typing import Final

from recipelang.diagnostics import Source, Span
from recipelang.language.syntax import (
    Arg,
    Binary,
    Block,
    Bool,
    Call,
    Chain,
    Clause,
    Each,
    Field,
    Group,
    ListOf,
    Member,
    Name,
    Number,
    Ref,
    Step,
    Text,
    TypeName,
    Value,
)
from recipelang.language.tokens import Token, unescape

__all__ = ["OPERAND", "Phrases", "Unexpected"]

OPERAND: Final = frozenset({"NAME", "NUMBER", "STRING", "BOOL", "LPAREN", "LSQUARE"})
"""Kinds that an operand begins with."""

_SIGNS: Final = {"PLUS": "+", "MINUS": "-", "STAR": "*", "SLASH": "/"}


class Unexpected(Exception):
    """The token at ``place`` does not fit; ``wanted`` says in words what would."""

    def __init__(self, place: int, wanted: str) -> None:
        super().__init__(place, wanted)
        self.place, self.wanted = place, wanted


class Phrases:
    """A cursor over the significant tokens of one statement, and a method for each rule."""

    __slots__ = ("at", "kinds", "source", "tokens")

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        end = tokens[-1].end if tokens else 0
        self.source = source
        self.tokens = [*tokens, Token("END", "", end, end)]
        self.kinds = [token.kind for token in self.tokens]
        self.at = 0

    # ------------------------------------------------------------ the cursor

    def take(self, kind: str, wanted: str) -> Token:
        """The next token, which must be of that kind."""
        if self.kinds[self.at] != kind:
            raise Unexpected(self.at, wanted)
        self.at += 1
        return self.tokens[self.at - 1]

    def skip(self, kind: str) -> bool:
        """Step over the next token if it is of that kind."""
        if self.kinds[self.at] != kind:
            return False
        self.at += 1
        return True

    def span(self, start: int) -> Span:
        """From the token at index ``start`` to the last one taken."""
        return Span(self.source, self.tokens[start].start, self.tokens[self.at - 1].end)

    def name(self, wanted: str) -> Name:
        """A plain name."""
        return self.named(self.take("NAME", wanted))

    def named(self, token: Token) -> Name:
        """The name that a token is."""
        return Name(token.text, Span(self.source, token.start, token.end))

    def text(self, wanted: str) -> Text:
        """A string literal."""
        token = self.take("STRING", wanted)
        value = unescape(token.text)
        return Text(value or "", Span(self.source, token.start, token.end))

    # ------------------------------------------------------------ values

    def value(self, wanted: str = "a value") -> Value:
        """A chain: a phrase or an expression, and the steps that ``->`` hands it to."""
        start = self.at
        first = self._head(wanted)
        if self.kinds[self.at] != "ARROW":
            return first
        tails: list[Step] = []
        while self.skip("ARROW"):
            tails.append(self._tail())
        return Chain(first, tuple(tails), self.span(start))

    def _head(self, wanted: str) -> Value:
        """The first element of a chain: a phrase, or an expression."""
        start = self.at
        if self.kinds[start] == "NAME":
            ref = self._ref()
            following = self.kinds[self.at]
            if following in OPERAND or following == "PREPOSITION" or following == "LBRACE":
                subject = self.operand() if following in OPERAND else None
                return self._step(start, ref, subject)
            first = self._postfix(start, ref)
        else:
            first = self.operand(wanted)
        if isinstance(first, Call) and self.kinds[self.at] == "PREPOSITION":
            return self._step(start, first, None)
        return self._expression(start, first)

    def _tail(self) -> Step:
        """A step behind ``->``: a verb with an operand of its own or none, or a template's call."""
        start = self.at
        if self.kinds[start] == "NAME":
            ref = self._ref()
            if self.kinds[self.at] != "CALL":
                subject = self.operand() if self.kinds[self.at] in OPERAND else None
                return self._step(start, ref, subject)
            head = self._postfix(start, ref)
        elif self.kinds[start] == "LPAREN":
            head = self.operand()
        else:
            raise Unexpected(start, "a verb")
        if not isinstance(head, Call):
            raise Unexpected(self.at, "a verb")
        return self._step(start, head, None)

    def _step(self, start: int, head: Ref | Call, subject: Value | None) -> Step:
        clauses: list[Clause] = []
        while self.kinds[self.at] == "PREPOSITION":
            clauses.append(self.clause())
        block = self.block() if self.kinds[self.at] == "LBRACE" else None
        return Step(head, subject, tuple(clauses), block, self.span(start))

    def clause(self, wanted: str = "a preposition") -> Clause:
        """``with a and b``."""
        start = self.at
        preposition = self.named(self.take("PREPOSITION", wanted))
        operands = [self.operand(f"a value after `{preposition.text}`")]
        while self.skip("AND"):
            operands.append(self.operand("a value after `and`"))
        return Clause(preposition, tuple(operands), self.span(start))

    def block(self) -> Block:
        """``{ field, field }``, separated by newlines or commas."""
        start = self.at
        self.take("LBRACE", "`{`")
        found: list[Field] = []
        while self.kinds[self.at] != "RBRACE":
            found.append(self._field())
            if not (self.skip("COMMA") or self.skip("NEWLINE")):
                break
        self.take("RBRACE", "`,`, a new line or `}`")
        return Block(tuple(found), self.span(start))

    def _field(self) -> Field:
        start = self.at
        quoted = self.kinds[start] == "STRING"
        if quoted:
            pattern = self.text("a field")
            name = Name(pattern.value, pattern.span)
        elif self.kinds[start] == "FIELD":
            name = self.named(self.take("FIELD", "a field"))
        else:
            name = self.name("a field")
        self.take("EQUAL", f"`=` after the field `{name.text}`")
        return Field(name, quoted, self.value(), self.span(start))

    # ------------------------------------------------------------ expressions

    def _expression(self, start: int, first: Value) -> Value:
        """Sums of products, left to right, whose first operand was read already."""
        left = self._product(start, first)
        while self.kinds[self.at] in ("PLUS", "MINUS"):
            sign = self._sign()
            begin = self.at
            right = self._product(begin, self.operand(f"a value after `{sign.text}`"))
            left = Binary(sign.text, left, right, self.span(start), sign.span)
        return left

    def _product(self, start: int, left: Value) -> Value:
        while self.kinds[self.at] in ("STAR", "SLASH"):
            sign = self._sign()
            right = self.operand(f"a value after `{sign.text}`")
            left = Binary(sign.text, left, right, self.span(start), sign.span)
        return left

    def _sign(self) -> Name:
        self.at += 1
        return self.named(self.tokens[self.at - 1])

    def operand(self, wanted: str = "a value") -> Value:
        """The smallest value that stands alone, with the calls and members that touch it."""
        start = self.at
        kind = self.kinds[start]
        if kind == "NAME":
            return self._postfix(start, self._ref())
        if kind == "LPAREN":
            self.at += 1
            inner = self.value()
            self.take("RPAREN", "`)`")
            return self._postfix(start, Group(inner, self.span(start)))
        if kind == "NUMBER":
            return self._number()
        if kind == "STRING":
            return self.text(wanted)
        if kind == "BOOL":
            self.at += 1
            return Bool(self.tokens[start].text == "true", self.span(start))
        if kind == "LSQUARE":
            return self._list()
        raise Unexpected(start, wanted)

    def _ref(self) -> Ref:
        """One or more names joined by dots."""
        start = self.at
        parts = [self.name("a name")]
        while self.skip("DOT"):
            parts.append(self.name("a name after `.`"))
        return Ref(tuple(parts), self.span(start))

    def _postfix(self, start: int, inner: Value) -> Value:
        """Calls and members behind a name or a group."""
        while True:
            if self.skip("CALL"):
                args = self._args()
                inner = Call(inner, args, self.span(start))
            elif not isinstance(inner, Ref) and self.skip("DOT"):
                name = self.name("a name after `.`")
                inner = Member(inner, name, self.span(start))
            else:
                return inner

    def _args(self) -> tuple[Arg, ...]:
        """The arguments of a call, up to and with its closing parenthesis."""
        args: list[Arg] = []
        while self.kinds[self.at] != "RPAREN":
            start = self.at
            name: Name | None = None
            if self.kinds[start] in ("NAME", "FIELD") and self.kinds[start + 1] == "EQUAL":
                name = self.named(self.tokens[start])
                self.at += 2
            value = self.value("an argument" if name is None else "a value")
            args.append(Arg(name, value, self.span(start)))
            if not self.skip("COMMA"):
                break
        self.take("RPAREN", "`,` or `)`")
        return tuple(args)

    def _number(self) -> Number:
        start = self.at
        self.at += 1
        unit = self.named(self.tokens[self.at]) if self.kinds[self.at] == "UNIT" else None
        self.at += unit is not None
        return Number(self.tokens[start].text, unit, self.span(start))

    def _list(self) -> ListOf | Each:
        """``[a, b]`` or ``[value for name in list]``."""
        start = self.at
        self.at += 1
        items: list[Value] = []
        while self.kinds[self.at] != "RSQUARE":
            items.append(self.value())
            if len(items) == 1 and self.kinds[self.at] == "FOR":
                return self._each(start, items[0])
            if not self.skip("COMMA"):
                break
        self.take("RSQUARE", "`,` or `]`")
        return ListOf(tuple(items), self.span(start))

    def _each(self, start: int, value: Value) -> Each:
        loops: list[tuple[Name, Value]] = []
        while self.skip("FOR"):
            name = self.variable("a name after `for`")
            self.take("IN", f"`in` after `for {name.text}`")
            loops.append((name, self.value("a list after `in`")))
        self.take("RSQUARE", "`for` or `]`")
        return Each(value, tuple(loops), self.span(start))

    # ------------------------------------------------------------ names and types

    def variable(self, wanted: str, hyphens: bool = False) -> Name:
        """A name that the recipe gives: lower case, without hyphens unless it is a verb's."""
        name = self.name(wanted)
        if name.text[0].isupper() or ("-" in name.text and not hyphens):
            raise Unexpected(self.at - 1, "snake_case")
        return name

    def type(self) -> TypeName:
        """``Model`` or ``List[Model]``."""
        start = self.at
        name = self.name("a type")
        args: list[TypeName] = []
        if self.skip("LSQUARE"):
            args.append(self.type())
            while self.skip("COMMA"):
                args.append(self.type())
            self.take("RSQUARE", "`,` or `]`")
        return TypeName(name, tuple(args), self.span(start))
