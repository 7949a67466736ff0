"""Random recipes, and edits of a recipe that do not change what it means.

`recipes()` makes text that parses: every form of the grammar, with valid names and plausible
values, but no promise that a verb exists. The edits work on any text that parses, real recipes too:

    rename(text, {"student": "pupil"})      whitespace(text, Random(1))
    comment(text, Random(1))                reorder(text, Random(1))

A test of "renaming, reformatting, reordering and commenting re-runs nothing" lowers a valid recipe
and its edits and compares the step ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import strategies as st

from recipelang.diagnostics import Sink, Source
from recipelang.language import syntax
from recipelang.language.parser import parse
from recipelang.language.statements import significant, split
from recipelang.language.tokens import lex

NAMES = ("base", "small", "notes", "chat", "x1", "steps", "model_b", "tokens", "language", "give")
VERBS = ("finetune", "ties-merge", "model", "split", "distill", "evals.score", "per")
FIELDS = ("lr", "epochs", "steps", "with", "to", "in", "weight_decay", "at", "true", "use")
NUMBERS = ("1", "0.5", "-0.3", "1e-5", "60%", "4k", "80GiB", "2h", "1_000", "10min", "2.5M")
UNITS = ("tokens", "steps", "gpus", "examples")
TEXTS = ('"out/student"', '"*.mlp"', '"a # b"', '"\\"quoted\\""', '"\\u{e9} →"', '""')
PREPOSITIONS = ("on", "into", "with", "from", "to", "of", "by", "at", "over")
TYPES = ("Model", "Float", "Steps", "List[Model]", "List[List[Dataset]]")
COMPARISONS = ("<=", ">=", "<", ">", "==")

# ---------------------------------------------------------------- values

_name = st.sampled_from(NAMES)
_verb = st.sampled_from(VERBS)
_number = st.one_of(
    st.sampled_from(NUMBERS),
    st.builds("{} {}".format, st.sampled_from(("3", "4k", "0.5")), st.sampled_from(UNITS)),
)
_ref = st.one_of(_name, st.builds("{}.{}".format, _name, st.sampled_from(("train", "holdout"))))
_leaf = st.one_of(_ref, _ref, _number, st.sampled_from(TEXTS), st.sampled_from(("true", "false")))


def _joined(items: Any, separator: str = ", ", largest: int = 3) -> Any:
    return st.lists(items, max_size=largest).map(separator.join)


def _args(value: Any) -> Any:
    arg = st.one_of(value, st.builds("{} = {}".format, st.sampled_from(FIELDS), value))
    return _joined(arg)


def _operand(value: Any) -> Any:
    call = st.builds("{}({})".format, _ref, _args(value))
    group = st.builds("({})".format, value)
    items = st.builds("[{}]".format, _joined(value))
    loops = st.builds(" for {} in {}".format, _name, value)
    each = st.builds("[{}{}]".format, value, st.lists(loops, min_size=1, max_size=2).map("".join))
    member = st.builds("{}.train".format, st.one_of(call, group))
    again = st.builds("{}({})".format, group, _args(value))
    return st.one_of(_leaf, _leaf, call, group, items, each, member, again)


def _block(value: Any) -> Any:
    name = st.one_of(st.sampled_from(FIELDS), st.sampled_from(FIELDS), st.sampled_from(TEXTS))
    field = st.builds("{} = {}".format, name, value)
    inline = _joined(field).map("{{ {} }}".format)
    lines = _joined(field, "\n        ").map("{{\n        {}\n    }}".format)
    return st.one_of(inline, lines)


def _phrase(value: Any) -> Any:
    operand = _operand(value)
    clause = st.builds(
        "{} {}".format,
        st.sampled_from(PREPOSITIONS),
        st.lists(operand, min_size=1, max_size=3).map(" and ".join),
    )
    clauses = st.lists(clause, min_size=1, max_size=2).map(" ".join)
    return st.one_of(
        st.builds("{} {}".format, _verb, operand),
        st.builds("{} {} {}".format, _verb, operand, clauses),
        st.builds("{} {} {} {}".format, _verb, operand, clauses, _block(value)),
        st.builds("{} {}".format, _verb, _block(value)),
        st.builds("{}({}) {}".format, _verb, _args(value), clauses),
    )


def _tail(value: Any) -> Any:
    call = st.builds("{}({})".format, _verb, _args(value))
    return st.one_of(_verb, call, _phrase(value), st.builds("{} {}".format, _verb, _block(value)))


def _deeper(value: Any) -> Any:
    sign = st.sampled_from(("+", "-", "*", "/"))
    sums = st.builds("{} {} {}".format, _operand(value), sign, _operand(value))
    first = st.one_of(_operand(value), _phrase(value), sums)
    tails = st.lists(_tail(value).map("\n    -> {}".format), min_size=1, max_size=2).map("".join)
    return st.one_of(first, st.builds("{}{}".format, first, tails))


values = st.recursive(_leaf, _deeper, max_leaves=8)

# ---------------------------------------------------------------- statements

_type = st.sampled_from(TYPES)
_comment = st.sampled_from(("", "", "", "  # why", " #tight", " # café → ü"))


def _gate(value: Any) -> Any:
    message = st.sampled_from(("", ', "too low"'))
    keyword = st.sampled_from(("require", "expect"))
    comparison = st.sampled_from(COMPARISONS)
    return st.builds("{} {} {} {}{}".format, keyword, value, comparison, value, message)


def _template() -> Any:
    param = st.one_of(
        st.builds("{}: {}".format, st.sampled_from(("a", "b", "to", "in")), _type),
        st.builds("{}: {} = {}".format, st.sampled_from(("c", "d")), _type, _leaf),
    )
    binding = st.builds("{} = {}".format, _name, values)
    inner = st.one_of(binding, _gate(values), st.builds("give {}".format, values))
    body = st.lists(inner, max_size=3).map(lambda lines: "".join(f"\n    {x}" for x in lines))
    return st.builds(
        "recipe {}({}) => {} {{{}\n}}".format,
        st.sampled_from(("specialise", "my-merge")), _joined(param), _type, body,
    )  # fmt: skip


_statement = st.one_of(
    st.builds("{} = {}".format, _name, values),
    st.builds("{} = {}".format, _name, values),
    st.builds("{}: {} =\n    {}".format, _name, _type, values),
    st.just("language 1"),
    st.builds("use {} as {}".format, st.sampled_from(TEXTS), _name),
    st.builds("param {}: {} = {}".format, _name, _type, values),
    st.builds("param {}: {}".format, _name, _type),
    st.builds("{} {}".format, st.sampled_from(("budget", "defaults")), _block(values)),
    _gate(values),
    st.builds("publish {} to {}".format, _operand(values), st.sampled_from(TEXTS)),
    _template(),
)


def recipes(largest: int = 4) -> st.SearchStrategy[str]:
    """Texts of up to ``largest`` statements that parse, with comments and blank lines between."""
    line = st.builds("{}{}\n".format, _statement, _comment)
    between = st.sampled_from(("", "", "\n", "\n\n\n", "# own line\n", "\n    # indented\n"))
    return st.lists(st.builds("{}{}".format, between, line), min_size=1, max_size=largest).map(
        "".join
    )


# ---------------------------------------------------------------- edits that change nothing


def names(text: str) -> tuple[str, ...]:
    """The names that the recipe gives to values and templates, in the file's order."""
    statements = parse(Source("a.recipe", text), Sink()).statements
    kinds = (syntax.Binding, syntax.Template)
    return tuple(s.name.text for s in statements if isinstance(s, kinds))


def rename(text: str, mapping: Mapping[str, str]) -> str:
    """The recipe with its bindings and templates renamed; fields, arguments and members stay.

    A bare word in a field of enumeration type looks like a name: map no name that is one.
    """
    edits = [
        (name.span.start, name.span.end, mapping[name.text])
        for statement in parse(Source("a.recipe", text), Sink()).statements
        for name in _value_names(statement)
        if name.text in mapping
    ]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _value_names(node: Any) -> Iterator[syntax.Name]:
    """Names that stand for values and templates, where they are given and where they are used."""
    if isinstance(node, tuple):
        for item in node:
            yield from _value_names(item)
        return
    if isinstance(node, (syntax.Binding, syntax.Template)):
        yield node.name
    if isinstance(node, syntax.Ref):
        yield node.parts[0]
    elif is_dataclass(node) and not isinstance(node, (type, syntax.TypeName)):
        for field in fields(node):
            if "span" not in field.name:
                yield from _value_names(getattr(node, field.name))


def _pieces(text: str) -> list[str]:
    """The statements' texts, each with its comments and ending in a newline."""
    found = ["".join(t.text for t in piece.tokens) for piece in split(lex(text))]
    return [piece if piece.endswith("\n") else piece + "\n" for piece in found]


def reorder(text: str, random: Random) -> str:
    """The recipe with its statements in another order."""
    pieces = _pieces(text)
    random.shuffle(pieces)
    return "".join(pieces)


def comment(text: str, random: Random) -> str:
    """The recipe with comments put at the ends of lines and on lines of their own."""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines()):
        if random.random() < 0.3:
            lines.append(" " * random.choice((0, 2, 4)) + f"# own line {number}")
        quiet = "#" in line or random.random() < 0.6
        lines.append(line if quiet else f"{line}  # end of line {number}")
    return "\n".join(lines) + "\n"


def whitespace(text: str, random: Random) -> str:
    """The recipe in another layout: spaces, blank lines, line breaks where they mean nothing."""
    parts: list[str] = []
    for piece in split(lex(text)):
        solid = significant(piece.tokens)
        between = {a.end: (a.kind, b.kind) for a, b in pairwise(solid)}
        brackets: list[str] = []
        for token in piece.tokens:
            parts.append(_loosened(token.kind, token.text, random))
            if token.kind in ("LPAREN", "CALL", "LSQUARE", "LBRACE"):
                brackets.append(token.kind)
            elif token.kind in ("RPAREN", "RSQUARE", "RBRACE"):
                brackets.pop()
            free = bool(brackets) and brackets[-1] != "LBRACE"
            left, right = between.get(token.end, ("", ""))
            if _breakable(left, right, free) and random.random() < 0.3:
                parts.append("\n" + " " * random.choice((1, 4, 7)))
    return "".join(parts)


def _loosened(kind: str, text: str, random: Random) -> str:
    if kind == "SPACE" and random.random() < 0.3:
        return text + " " * random.choice((1, 3)) if not text.startswith("\t") else text
    if kind == "NEWLINE" and random.random() < 0.3:
        return text * 2
    if kind == "ARROW" and random.random() < 0.3:
        return "→"
    return text


def _breakable(left: str, right: str, free: bool) -> bool:
    """Whether a line may be broken between two tokens of these kinds."""
    if not left or right in ("CALL", "NEWLINE") or left == "NEWLINE":
        return False
    if left == "NUMBER" and right == "UNIT":
        return False
    if (left, right) in (("NAME", "EQUAL"), ("FIELD", "EQUAL"), ("FIELD", "COLON")):
        return False
    return free or left in ("EQUAL", "LBRACE") or right in ("ARROW", "PREPOSITION", "AND")
