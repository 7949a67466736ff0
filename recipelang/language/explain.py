"""Syntax faults in words: what stands where it cannot, why, and what to write instead.

The parser says where it stopped and what it wanted. A list of rules, from the most telling to the
most general, makes the diagnostic; the last one always applies. Each rule has a golden test.

Example:
    ``budget { wall = }`` stops at ``}`` wanting a value; `_missing_value` says that ``=`` is not
    followed by one (E0102).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from recipelang.diagnostics import Diagnostic, Fix, Label, Source, Span
from recipelang.language.descent import OPERAND, Unexpected
from recipelang.language.statements import CLOSERS, OPENERS
from recipelang.language.suggest import listed, nearest
from recipelang.language.tokens import KEYWORDS, RESERVED, Token

__all__ = ["explain"]

FORMS: Final = {
    "LANGUAGE": "language 1",
    "USE": 'use "lib/evals.recipe" as evals',
    "PARAM": "param steps: Steps = 100",
    "BUDGET": "budget { wall = 2h }",
    "DEFAULTS": "defaults { seed = 17 }",
    "RECIPE": "recipe specialise(start: Model, text: Dataset) => Model { ... }",
    "REQUIRE": "require accuracy of student on exam >= 62%",
    "EXPECT": "expect accuracy of student on exam >= 62%",
    "PUBLISH": 'publish student to "out/student"',
    "GIVE": "give tuned",
}
"""What each keyword's statement looks like."""

_SIGNS: Final = frozenset({"PLUS", "MINUS", "STAR", "SLASH"})
_ENDS_VALUE: Final = CLOSERS | {"NAME", "NUMBER", "UNIT", "STRING", "BOOL"}
_WANTS_VALUE: Final = _SIGNS | {
    "EQUAL", "PREPOSITION", "AND", "IN", "COMPARE", "GIVE", "REQUIRE", "EXPECT", "PUBLISH",
}  # fmt: skip
_GATES: Final = ("REQUIRE", "EXPECT")


@dataclass(frozen=True, slots=True)
class Case:
    """Where the parser stopped, as the rules ask of it; ``opener`` is the innermost bracket."""

    source: Source
    tokens: list[Token]
    place: int
    wanted: str
    found: Token = field(init=False)
    previous: Token | None = field(init=False)
    opener: int | None = field(init=False)

    def __post_init__(self) -> None:
        stack: list[int] = []
        for place in range(self.place):
            kind = self.tokens[place].kind
            if kind in OPENERS:
                stack.append(place)
            elif kind in CLOSERS and stack:
                stack.pop()
        set_ = object.__setattr__
        set_(self, "found", self.tokens[self.place])
        set_(self, "previous", self.tokens[self.place - 1] if self.place else None)
        set_(self, "opener", stack[-1] if stack else None)

    @property
    def keyword(self) -> str:
        """The kind of the statement's first token."""
        return self.tokens[0].kind

    @property
    def wants_value(self) -> bool:
        """Whether a value was wanted."""
        return self.wanted.startswith(("a value", "a list", "an argument"))

    def kind(self, place: int) -> str:
        """The kind of the token at a place, empty outside the statement."""
        return self.tokens[place].kind if 0 <= place < len(self.tokens) else ""

    def span(self, token: Token) -> Span:
        """Where a token stands."""
        return Span(self.source, token.start, token.end)

    def where(self) -> Span:
        """The token that does not fit; at an end, the last one before it."""
        if self.found.kind in ("END", "NEWLINE") and self.previous:
            return self.span(self.previous)
        return self.span(self.found)

    def error(
        self, code: str, message: str, span: Span, label: str = "", help: str = "", *,
        secondary: tuple[Label, ...] = (), fixes: tuple[Fix, ...] = (),
    ) -> Diagnostic:  # fmt: skip
        """The diagnostic."""
        return Diagnostic(code, "error", message, Label(span, label), secondary, (), help, fixes)


def explain(source: Source, tokens: list[Token], fault: Unexpected) -> Diagnostic:
    """The diagnostic for a fault at ``fault.place`` of a statement's tokens, END included."""
    case = Case(source, tokens, fault.place, fault.wanted)
    return next(found for rule in RULES if (found := rule(case)) is not None)


# ---------------------------------------------------------------- brackets


def _wrong_bracket(case: Case) -> Diagnostic | None:
    """A closing bracket that closes nothing, or another kind than was opened."""
    found = case.found
    if found.kind not in CLOSERS:
        return None
    if case.opener is None:
        return case.error(
            "E0103", f"`{found.text}` closes nothing", case.span(found), "no bracket is open here",
            f"delete it, or open it with `{_pair(found.text)}`",
        )  # fmt: skip
    opener = case.tokens[case.opener]
    if OPENERS[opener.kind] == found.kind:
        return None
    return case.error(
        "E0103", f"`{found.text}` does not close `{opener.text}`", case.span(found),
        f"expected `{_pair(opener.text)}`", f"close it with `{_pair(opener.text)}`",
        secondary=(Label(case.span(opener), "opened here"),),
    )  # fmt: skip


def _unclosed(case: Case) -> Diagnostic | None:
    """The statement ends inside a bracket."""
    if case.found.kind != "END" or case.opener is None:
        return None
    opener = case.tokens[case.opener]
    return case.error(
        "E0103", f"`{opener.text}` is never closed", case.span(opener), "opened here",
        f"close it with `{_pair(opener.text)}`; lines up to there are indented",
    )  # fmt: skip


def _pair(bracket: str) -> str:
    return {"(": ")", "[": "]", "{": "}", ")": "(", "]": "[", "}": "{"}[bracket]


def _spaced_call(case: Case) -> Diagnostic | None:
    """``lora (rank = 16)``: with a space, the parenthesis groups one value."""
    place = case.place if case.found.kind == "LPAREN" else case.opener
    if place is None or place == 0 or case.kind(place) != "LPAREN":
        return None
    name = case.tokens[place - 1]
    declares = place == case.place and "touching" in case.wanted
    listlike = case.found.kind in ("COMMA", "EQUAL") or case.place == place + 1
    if name.kind not in ("NAME", "RPAREN") or not (declares or (place != case.place and listlike)):
        return None
    opener = case.tokens[place]
    gap = Span(case.source, name.end, opener.start)
    return case.error(
        "E0109", f"`{name.text} (` is not a call: there is a space before its parenthesis",
        case.span(opener), "this groups one value", f"write `{name.text}(`",
        fixes=(Fix("remove the space", ((gap, ""),), safe=True),),
    )  # fmt: skip


# ---------------------------------------------------------------- values and chains


def _arrow(case: Case) -> Diagnostic | None:
    """``->`` with nothing on its left or no verb on its right, or where no chain can be."""
    found, previous = case.found, case.previous
    if previous and previous.kind == "ARROW":
        named = f", found {_shown(found)}" if found.kind not in ("END", "NEWLINE") else ""
        return case.error(
            "E0105", f"`->` hands a value to a verb{named}", case.where(), "expected a verb here",
            "name the verb: `-> ties-merge with chat`",
        )  # fmt: skip
    if found.kind != "ARROW":
        return None
    if case.place == 0 or case.wants_value:
        return case.error(
            "E0105", "`->` has nothing on its left", case.span(found), "expected a value before it",
            "begin the chain with a value: `base -> ties-merge with chat`",
        )  # fmt: skip
    return case.error(
        "E0105", "`->` cannot stand here", case.span(found), f"expected {case.wanted}",
        "put the chain in parentheses, or give it a name of its own",
    )  # fmt: skip


def _missing_value(case: Case) -> Diagnostic | None:
    """``lr =`` with nothing behind, or ``with`` without a model."""
    found, previous = case.found, case.previous
    if previous is None:
        return None
    if found.kind == "EQUAL" and previous.kind == "NAME" and case.kind(case.place - 2) == "EQUAL":
        equal = case.tokens[case.place - 2]  # `lr =`, and the next line is `steps = 3`
        if "\n" in case.source.text[equal.end : previous.start]:
            return _no_value(case, equal)
    no_value = {"END", "NEWLINE", "COMMA", "EQUAL", "FIELD", *CLOSERS}
    if previous.kind != "EQUAL":
        no_value.add("LBRACE")
    if not case.wants_value or previous.kind not in _WANTS_VALUE or found.kind not in no_value:
        return None
    return _no_value(case, previous)


def _no_value(case: Case, behind: Token) -> Diagnostic:
    return case.error(
        "E0102", f"a value is missing after `{behind.text}`", case.span(behind),
        "nothing follows", "write the value, or delete what asks for it",
    )  # fmt: skip


def _comparison(case: Case) -> Diagnostic | None:
    """``=`` for ``==`` in a gate, and a comparison where there is none."""
    found = case.found
    if found.kind == "EQUAL" and case.keyword in _GATES and case.opener is None:
        fix = Fix("compare with `==`", ((case.span(found), "=="),))
        return case.error(
            "E0113", "`=` gives a name to a value and does not compare", case.span(found),
            "expected a comparison", "write `==`", fixes=(fix,),
        )  # fmt: skip
    if found.kind != "COMPARE":
        return None
    if found.text == "==" and case.wanted.startswith("`=`"):
        fix = Fix("write one `=`", ((case.span(found), "="),))
        return case.error(
            "E0113", "`==` compares and gives no name to a value", case.span(found),
            f"expected {case.wanted}", "write `=`", fixes=(fix,),
        )  # fmt: skip
    return case.error(
        "E0113", f"the comparison `{found.text}` stands only in a gate", case.span(found),
        f"expected {case.wanted}", f"a gate reads: `{FORMS['REQUIRE']}`",
    )  # fmt: skip


def _operator(case: Case) -> Diagnostic | None:
    """``3 -1``, and arithmetic behind a phrase without parentheses."""
    found, previous = case.found, case.previous
    after_value = previous is not None and previous.kind in _ENDS_VALUE
    if previous and after_value and found.kind == "NUMBER" and found.text[0] == "-":
        sign = Span(case.source, found.start, found.start + 1)
        left = "" if previous.end < found.start else " "
        return case.error(
            "E0108", "the operator `-` needs a space on both sides", sign, "no space here",
            "write `a - b`; a sign that touches its number belongs to it",
            fixes=(Fix("put a space on both sides", ((sign, f"{left}- "),), safe=True),),
        )  # fmt: skip
    if found.kind not in _SIGNS or case.wants_value or not previous:
        return None
    if previous.kind not in _ENDS_VALUE:
        return None
    return case.error(
        "E0121", f"`{found.text}` cannot follow a phrase", case.span(found),
        f"expected {case.wanted}",
        f"put what it joins in parentheses: `f (a {found.text} b)` or `(f of a) {found.text} b`",
    )  # fmt: skip


# ---------------------------------------------------------------- lines and statements


def _line(case: Case) -> Diagnostic | None:
    """A new line where the statement cannot be cut, or an indented statement."""
    place = case.place
    if case.found.kind == "NEWLINE":
        place += 1
    elif case.kind(place - 1) != "NEWLINE" or place == 0:
        return None
    following = case.tokens[place]
    if following.kind in (*_SIGNS, "LBRACE", "COMPARE", "COMMA", "EQUAL"):
        return case.error(
            "E0122", f"a line cannot begin with `{following.text}`", case.span(following), "",
            f"put `{following.text}` at the end of the line before",
        )  # fmt: skip
    named = following.kind == "NAME" and case.kind(place + 1) in ("EQUAL", "COLON")
    if case.opener is None and (named or following.text in KEYWORDS):
        return case.error(
            "E0104", f"the statement `{following.text} ...` is indented", case.span(following),
            "looks like the start of a statement", "a statement starts in column 1",
        )  # fmt: skip
    return None


def _keyword(case: Case) -> Diagnostic | None:
    """A statement's keyword where that statement cannot be."""
    found = case.found
    if found.kind not in FORMS:
        return None
    if found.kind == "GIVE":
        message = "`give` stands only in a recipe template"
        help = "name the value instead: `tuned = ...`, or publish it"
    else:
        message = f"`{found.text}` cannot stand inside a recipe template"
        help = "a template holds bindings, gates and one `give`; move this to the top of the file"
    return case.error("E0112", message, case.span(found), "", help)


def _reserved(case: Case) -> Diagnostic | None:
    """A reserved word where a name or a value is wanted."""
    word = case.found.text
    if word not in RESERVED or not (
        case.wants_value or case.place == 0 or case.wanted.startswith(("a name", "a field", "a ty"))
    ):
        return None
    return case.error(
        "E0111", f"`{word}` is a reserved word and cannot name a value", case.span(case.found),
        f"expected {case.wanted}", f"choose another name, such as `{word}_1`",
    )  # fmt: skip


def _spelling(case: Case) -> Diagnostic | None:
    """A name of the wrong case, or with a hyphen."""
    if case.wanted != "snake_case":
        return None
    text = case.found.text
    better = text.lower().replace("-", "_")
    return case.error(
        "E0115", f"`{text}` cannot name a value", case.span(case.found),
        "expected lower-case letters, digits and `_`", f"write `{better}`",
    )  # fmt: skip


def _nameless(case: Case) -> Diagnostic | None:
    """``finetune base on notes`` by itself, or a misspelt keyword."""
    if case.keyword != "NAME" or case.opener is not None or not case.wanted.startswith("`=`"):
        return None
    first = case.tokens[0]
    near = nearest(first.text, KEYWORDS)
    if case.place == 1 and near and case.found.kind in ("NAME", "STRING", "NUMBER", "LBRACE"):
        help = f"did you mean `{near}`? a value needs a name: `result = {first.text} ...`"
    else:
        help = f"give the value a name: `result = {first.text} ...`"
    return case.error(
        "E0120", f"`{first.text}` begins no statement", case.span(first),
        "expected a name and `=`, or a keyword", help,
    )  # fmt: skip


def _general(case: Case) -> Diagnostic:
    """What was wanted, and what stands there."""
    help = ""
    if case.opener is None and case.keyword in FORMS:
        help = f"the statement reads: `{FORMS[case.keyword]}`"
    elif case.place == 0:
        help = f"a statement is `name = value`, or begins with {listed(sorted(KEYWORDS))}"
    elif case.found.kind == "COLON" and case.wanted.startswith("`=`"):
        help = f"write `{case.previous.text if case.previous else 'x'} = ...`"
    elif case.wanted.startswith("`=` after the field"):
        help = f"write `{case.previous.text if case.previous else 'x'} = {_value(case.found)}`"
    elif case.found.kind == "LBRACE":
        help = "a block follows a verb and what it works on; a call takes its settings inside `()`"
    elif case.found.kind == "AND" and case.wanted == "the end of the statement":
        help = "`and` joins what stands behind a preposition; several subjects are a list: `[a, b]`"
    elif case.found.kind in OPERAND and case.wanted == "the end of the statement":
        help = "a verb takes one operand, then prepositions: `finetune base on notes`"
    elif case.wanted == "the end of the statement":
        help = "begin another statement in the first column of a line"
    else:
        where = "" if " after " in case.wanted else f" before {_shown(case.found)}"
        help = f"write {case.wanted}{where}"
    secondary: tuple[Label, ...] = ()
    if case.opener is not None:
        secondary = (Label(case.span(case.tokens[case.opener]), "opened here"),)
    return case.error(
        "E0101", f"expected {case.wanted}, found {_shown(case.found)}", case.where(),
        "" if case.found.kind not in ("END", "NEWLINE") else "after this", help,
        secondary=secondary,
    )  # fmt: skip


RULES: Final[tuple[Callable[[Case], Diagnostic | None], ...]] = (
    _spelling, _wrong_bracket, _unclosed, _spaced_call, _arrow, _missing_value, _comparison,
    _operator, _line, _keyword, _reserved, _nameless, _general,
)  # fmt: skip


def _value(token: Token) -> str:
    """A token where a value may stand, else an ellipsis."""
    return token.text if token.kind in OPERAND and token.kind not in OPENERS else "..."


def _shown(token: Token) -> str:
    """A token as a message names it."""
    if token.kind == "END":
        return "the end of the statement"
    if token.kind == "NEWLINE":
        return "a new line"
    if token.kind == "STRING":
        return "a string"
    return f"`{token.text}`"
