"""The recipe graph as text: one operation a line, operands before users.

    %0 = model@1 {uri = "a"} : Model<llama 113.3M bf16>
    %1 = cast@1 model(%0) {dtype = "f32"} : Model<llama 113.3M f32>
    give %1

A line names its result, the operation and its version, the operands by role, the attributes, the
hints (``hints {...}``, where there are any) and the type. ``give`` lists the roots. ``#`` starts a
comment. What is printed parses to a graph that prints the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recipelang.diagnostics import RecipeError, Source, Span
from recipelang.diagnostics.diagnostic import Diagnostic, Label
from recipelang.ir.graph import Graph, Node, walk
from recipelang.ir.type_text import parse_type, show_type
from recipelang.types import Type
from recipelang.values import Attr, Form, Quantity
from recipelang.values import show as show_value

__all__ = ["parse", "parse_named", "show", "show_node"]


# ---------------------------------------------------------------- printing


def show(roots: Iterable[Node], names: Mapping[Node, str] | None = None) -> str:
    """The graph below the roots. ``names`` gives results a name (``%student``) in place of a
    number."""
    roots = tuple(roots)
    labels: dict[Node, str] = {}
    taken: set[str] = set()
    lines: list[str] = []
    for node in walk(roots):
        name = (names or {}).get(node, "")
        if not name or not NAME.fullmatch(name) or name in taken or name.isdigit():
            name = str(len(labels))
        labels[node] = f"%{name}"
        taken.add(name)
        lines.append(show_node(node, labels))
    lines.append("give " + ", ".join(labels[root] for root in roots))
    return "\n".join(lines) + "\n"


def show_node(node: Node, labels: Mapping[Node, str]) -> str:
    """One line. ``labels`` names the node's operands and, where it has one, the node."""
    parts = [f"{node.op}@{node.version}"]
    parts += [f"{role}({', '.join(labels.get(n, '%?') for n in ns)})" for role, ns in node.operands]
    if node.attrs:
        parts.append(_block(node.attrs))
    if node.hints:
        parts.append(f"hints {_block(node.hints)}")
    text = " ".join(parts) + f" : {show_type(node.type)}"
    return f"{labels[node]} = {text}" if node in labels else text


def _block(items: Iterable[tuple[str, Attr]]) -> str:
    return "{" + ", ".join(f"{name} = {show_value(value)}" for name, value in items) + "}"


# ---------------------------------------------------------------- parsing

NAME = re.compile(r"[\w.\[\]/-]+")
TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*")|(?P<result>%[\w.\[\]/-]+)|(?P<number>-?\d+(?:\.\d+)?(?![\w.]))
    |(?P<word>[A-Za-z_][\w-]*)|(?P<sign>[(){}\[\],=@:])|(?P<comment>\#.*)|(?P<end>$))""",
    re.VERBOSE,
)
UNITS = frozenset(
    ["tokens", "steps", "epochs", "examples", "fraction", "bytes", "seconds", "gpu", "tpu", "cpu"]
)
ESCAPES = {"n": "\n", "t": "\t"}


def parse(text: str, path: str = "<graph>", graph: Graph | None = None) -> tuple[Node, ...]:
    """The roots of a graph's text. Raises RecipeError E0902 with the line that cannot be read."""
    return parse_named(text, path, graph)[0]


def parse_named(
    text: str, path: str = "<graph>", graph: Graph | None = None
) -> tuple[tuple[Node, ...], dict[str, Node]]:
    """The roots, and every result by its name (``student``, ``0``)."""
    source = Source(path, text)
    graph = Graph() if graph is None else graph
    env: dict[str, Node] = {}
    roots: list[Node] = []
    for number, line in enumerate(text.split("\n"), 1):
        reader = _Line(source, number, line)
        if reader.peek() == ("end", ""):
            continue
        if reader.peek() == ("word", "give"):
            reader.next()
            roots += reader.results(env, until="")
        else:
            _define(reader, graph, env)
        if reader.peek() != ("end", ""):
            raise reader.wrong("the end of the line")
    return tuple(roots), {name.removeprefix("%"): node for name, node in env.items()}


def _define(reader: _Line, graph: Graph, env: dict[str, Node]) -> None:
    """``%name = operation@version role(%a, %b) {name = value} hints {...} : Type``."""
    name = reader.take("result", "a result such as `%0`")
    if name in env:
        raise reader.error(f"`{name}` is defined twice")
    reader.sign("=")
    op = reader.take("word", "the name of an operation")
    reader.sign("@")
    version = reader.take("number", "the version of the operation")
    operands: dict[str, list[Node]] = {}
    attrs: dict[str, Attr] = {}
    hints: dict[str, Attr] = {}
    while reader.peek()[0] == "word":
        role = reader.take("word", "a role")
        if role == "hints" and reader.peek() == ("sign", "{"):
            hints = reader.block()
            continue
        reader.sign("(")
        operands[role] = reader.results(env, until=")")
        if reader.peek() == ("sign", "{"):
            attrs = reader.block()
    if reader.peek() == ("sign", "{"):
        attrs = reader.block()
    if reader.peek() == ("word", "hints"):
        reader.next()
        hints = reader.block()
    type_ = reader.type() if reader.peek() == ("sign", ":") else None
    env[name] = graph.node(op, int(version), operands, attrs, hints, type_)


@dataclass
class _Line:
    """The tokens of one line."""

    source: Source
    number: int
    text: str
    at: int = 0
    start: int = field(default=0)

    def peek(self) -> tuple[str, str]:
        """Kind and text of the next token; nothing is consumed."""
        found = TOKEN.match(self.text, self.at)
        if found is None:
            self.start = self.at
            raise self.error(f"cannot read `{self.text[self.at :].strip()[:20]}`")
        kind = found.lastgroup or "end"
        self.start = found.start(kind)
        return ("end", "") if kind in ("end", "comment") else (kind, found[kind])

    def next(self) -> tuple[str, str]:
        """Consume the next token."""
        kind, text = self.peek()
        self.at = self.start + len(text)
        return kind, text

    def take(self, kind: str, what: str) -> str:
        """Consume a token of a kind."""
        if self.peek()[0] != kind:
            raise self.wrong(what)
        return self.next()[1]

    def sign(self, text: str) -> None:
        """Consume one sign."""
        if self.peek() != ("sign", text):
            raise self.wrong(f"`{text}`")
        self.next()

    def accept(self, text: str) -> bool:
        """Consume the sign if it is next."""
        if self.peek() != ("sign", text):
            return False
        self.next()
        return True

    def results(self, env: Mapping[str, Node], until: str) -> list[Node]:
        """``%a, %b`` up to a closing sign, or to the end of the line."""
        found: list[Node] = []
        while True:
            name = self.take("result", "a result such as `%0`")
            if name not in env:
                raise self.error(f"`{name}` is not defined above this line")
            found.append(env[name])
            if not self.accept(","):
                break
        if until:
            self.sign(until)
        return found

    def block(self) -> dict[str, Attr]:
        """``{name = value, ...}``."""
        self.sign("{")
        found: dict[str, Attr] = {}
        while not self.accept("}"):
            if found:
                self.sign(",")
            name = self.take("word", "the name of an attribute")
            self.sign("=")
            found[name] = self.value()
        return found

    def value(self) -> Attr:
        """A constant, as ``recipelang.values.show`` prints it."""
        kind, text = self.next()
        match kind, text:
            case "string", _:
                return _unquote(text)
            case "number", _:
                number = float(text) if "." in text else int(text)
                if self.peek()[0] == "word" and self.peek()[1] in UNITS:
                    return Quantity(number, self.next()[1])
                return number
            case "word", "true" | "false":
                return text == "true"
            case "word", "none":
                return None
            case "word", _:
                return self._form(text)
            case "sign", "[":
                return self._values("]")
            case _:
                raise self.error(f"expected a value, found `{text or 'the end of the line'}`")

    def _values(self, close: str) -> tuple[Attr, ...]:
        found: list[Attr] = []
        while not self.accept(close):
            if found:
                self.sign(",")
            found.append(self.value())
        return tuple(found)

    def _form(self, name: str) -> Form:
        if name == "gradient" and self.accept("("):
            return Form(name, tuple((str(i), v) for i, v in enumerate(self._values(")"))))
        close = "}" if name == "per" else ")"
        if not self.accept("{" if name == "per" else "("):
            return Form(name)
        args: list[tuple[str, Attr]] = []
        while not self.accept(close):
            if args:
                self.sign(",")
            kind, key = self.next()
            self.sign("=")
            args.append((_unquote(key) if kind == "string" else key, self.value()))
        return Form(name, tuple(args))

    def type(self) -> Type | None:
        """``: Model<llama 113.3M bf16>``, up to the end of the line or a comment."""
        self.sign(":")
        text = self.text[self.at :].partition("#")[0]
        try:
            found = parse_type(text.strip())
        except ValueError as wrong:
            raise self.error(str(wrong)) from None
        self.at += len(text)
        return found

    def wrong(self, expected: str) -> RecipeError:
        """The error that something else stands here."""
        kind, text = self.peek()
        return self.error(
            f"expected {expected}, found {f'`{text}`' if kind != 'end' else 'the end'}"
        )

    def error(self, message: str) -> RecipeError:
        """An error at the current token."""
        offset = self.source.line_starts[self.number - 1] + min(self.start, len(self.text))
        span = Span(self.source, offset, min(offset + 1, len(self.source.text)))
        text = f"line {self.number} of the graph: {message}"
        return RecipeError(Diagnostic("E0902", "error", text, Label(span, "here")))


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), text[1:-1])
