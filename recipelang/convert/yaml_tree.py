"""A strict reader of YAML: every value with its place, nothing constructed, nothing without bounds.

Files come from strangers, so the reader takes only mappings, lists and plain values; tags, repeated
keys, deep nesting and aliases that multiply are faults. Anchors, aliases and merge keys (``<<``)
are expanded within a bound.

Example:
    >>> sink = Sink()
    >>> (document,) = read_documents(Source("a.yml", "dtype: bfloat16\\n"), sink)
    >>> [(key.text, value.text) for key, value in document.entries]
    [('dtype', 'bfloat16')]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from recipelang.diagnostics import Diagnostic, Label, Sink, Source, Span

__all__ = ["Item", "Mapping", "Scalar", "Sequence", "read_documents"]

_YAML: Final[Any] = yaml  # its types say nothing of what it gives

MAX_CHARACTERS: Final = 1 << 18
MAX_DEPTH: Final = 32
MAX_ITEMS: Final = 20_000
"""Values of a file after its aliases are expanded. A long configuration has some hundreds."""

Kind = Literal["null", "bool", "int", "float", "text"]
PREFIX: Final = "tag:yaml.org,2002:"
REMEDIES: Final = {
    "mapping values are not allowed": "put the line in the column of its neighbours, below the key "
    "that it belongs to; quote a text that holds `: `",
    "expected '<document start>'": "the keys of a mapping start in one column: move this line",
    "did not find expected": "the lines of a list or a mapping start in one column: move this line",
    "expected <block end>": "the lines of a list or a mapping start in one column: move this line",
    "could not find expected ':'": "write a `:` behind the key",
    "that cannot start any token": "quote the text",
}  # fmt: skip
"""What helps, by the words of the parser."""
KINDS: Final[dict[str, Kind]] = {
    "null": "null", "bool": "bool", "int": "int", "float": "float", "str": "text",
    "timestamp": "text", "value": "text", "merge": "text",
}  # fmt: skip
"""What the tags of plain values mean here. A date is the text that was written."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A plain value: its text, and what YAML 1.1 takes it for (``1e-5`` is a text to it).

    Of every item ``named`` says whether an alias elsewhere refers to it.
    """

    text: str
    kind: Kind
    span: Span
    named: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Item, ...]
    span: Span
    named: bool = False


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping, in the file's order; keys are distinct texts."""

    entries: tuple[tuple[Scalar, Item], ...]
    span: Span
    named: bool = False

    def get(self, key: str) -> Item | None:
        """The value of a key, or None."""
        return next((value for name, value in self.entries if name.text == key), None)

    def key(self, key: str) -> Scalar | None:
        """The key as written, for its place."""
        return next((name for name, _ in self.entries if name.text == key), None)


Item: TypeAlias = "Scalar | Sequence | Mapping"


class _Refused(Exception):
    """Ends the reading; carries what is wrong and where."""

    def __init__(
        self, message: str, span: Span | None, help: str = "", first: Span | None = None
    ) -> None:
        super().__init__(message)
        secondary = (Label(first, "first here"),) if first else ()
        primary = Label(span) if span else None
        self.diagnostic = Diagnostic("E0740", "error", message, primary, secondary, (), help)


def read_documents(source: Source, sink: Sink) -> tuple[Item, ...] | None:
    """The documents of a YAML text that are not empty; None and one E0740 in the sink where it
    cannot be read."""
    try:
        if len(source.text) > MAX_CHARACTERS:
            limit = f"{MAX_CHARACTERS >> 10} KiB"
            raise _Refused(f"`{source.path}` is larger than {limit}, which no merge needs", None)
        expansion = _Expansion(source, _scan(source))
        nodes: Iterable[Any] = _YAML.compose_all(source.text, _YAML.SafeLoader)
        items = (expansion.item(node, 0) for node in nodes)
        return tuple(item for item in items if not _is_empty(item))
    except _Refused as refused:
        sink.add(refused.diagnostic)
    except yaml.YAMLError as error:
        sink.add(_syntax(source, error).diagnostic)
    return None


def _scan(source: Source) -> frozenset[int]:
    """Where the items start that aliases refer to. Brackets and indents are counted before anything
    recurses."""
    depth = 0
    anchors: dict[str, int] = {}
    named: set[int] = set()
    for event in _YAML.parse(source.text, _YAML.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            named.add(anchors.get(event.anchor, -1))
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            anchors[event.anchor] = event.start_mark.index
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused("the values nest too deeply", _span(source, event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return frozenset(named)


def _is_empty(item: Item) -> bool:
    """Whether a document holds nothing."""
    return isinstance(item, Scalar) and item.kind == "null"


def _syntax(source: Source, error: Any) -> _Refused:
    """What the parser could not read, at the place it stopped."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = mark.index if mark is not None else getattr(error, "position", None)
    if not isinstance(place, int):
        return _Refused(f"`{source.path}` is not YAML", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is not YAML"
    place = min(place, max(0, len(source.text) - 1))
    help = next((help for words, help in REMEDIES.items() if words in problem), "")
    if source.text[place : place + 1] == "\t":
        help = "write spaces for the tab"
    return _Refused(f"the YAML cannot be read: {problem}", Span(source, place, place + 1), help)


def _span(source: Source, node: Any) -> Span:
    """The place of a node, without the white space that the parser counts to a block."""
    start, end = node.start_mark.index, node.end_mark.index
    text = source.text[start:end]
    return Span(source, start, max(start + 1, start + len(text.rstrip())))


@dataclass
class _Expansion:
    """Turns composed nodes into items, with a bound on how many there may be."""

    source: Source
    named: frozenset[int]
    """Where the items start that aliases refer to."""
    count: int = 0
    open: list[int] = field(default_factory=list[int])
    """The collections that are being read, to find one that holds itself."""

    def item(self, node: Any, depth: int) -> Item:
        """The node and everything below it. Raises _Refused."""
        span = _span(self.source, node)
        self.count += 1
        if self.count > MAX_ITEMS:
            raise _Refused("the aliases multiply to too many values", span)
        if isinstance(node, yaml.ScalarNode):
            kind = KINDS.get(str(node.tag).removeprefix(PREFIX))
            if kind is None:
                raise self._tag(node, span)
            return Scalar(str(node.value), kind, span, self._is_named(node))
        if id(node) in self.open or depth > MAX_DEPTH:
            raise _Refused("an alias stands inside what it names", span)
        self.open.append(id(node))
        found = self._collection(node, span, depth)
        self.open.pop()
        return found

    def _collection(self, node: Any, span: Span, depth: int) -> Item:
        plain = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != PREFIX + plain:
            raise self._tag(node, span)
        if isinstance(node, yaml.SequenceNode):
            items = tuple(self.item(child, depth + 1) for child in node.value)
            return Sequence(items, span, self._is_named(node))
        return Mapping(self._entries(node, depth), span, self._is_named(node))

    def _is_named(self, node: Any) -> bool:
        return node.start_mark.index in self.named

    def _tag(self, node: Any, span: Span) -> _Refused:
        help = "write plain values, lists and mappings"
        return _Refused(f"the tag `{node.tag}` is not allowed", span, help)

    def _entries(self, node: Any, depth: int) -> tuple[tuple[Scalar, Item], ...]:
        """The entries of a mapping; its own keys win over those that ``<<`` brings."""
        own: dict[str, tuple[Scalar, Item]] = {}
        brought: list[tuple[Scalar, Item]] = []
        for key_node, value_node in node.value:
            key = self.item(key_node, depth + 1)
            if not isinstance(key, Scalar):
                raise _Refused("a key is a plain text", key.span)
            value = self.item(value_node, depth + 1)
            if key_node.tag == PREFIX + "merge":
                brought += self._brought(value)
            elif key.text in own:
                first = own[key.text][0].span
                raise _Refused(f"the key `{key.text}` stands twice", key.span, first=first)
            else:
                own[key.text] = (key, value)
        for key, value in brought:
            own.setdefault(key.text, (key, value))
        return tuple(own.values())

    def _brought(self, value: Item) -> list[tuple[Scalar, Item]]:
        items = value.items if isinstance(value, Sequence) else (value,)
        found: list[tuple[Scalar, Item]] = []
        for item in items:
            if not isinstance(item, Mapping):
                raise _Refused("`<<` brings in mappings only", item.span)
            found += item.entries
        return found
