"""The recipe graph: a hash-consed SSA DAG of pure steps.

A node is an operation with operands by role, constant attributes and a typed result. Equal nodes
are the same object, so sharing common steps is construction. Source spans and names are side tables
of the :class:`~recipelang.program.Program`, never part of a node.

Example:
    >>> g = Graph()
    >>> a = g.node("model", 1, {}, {"uri": "x"})
    >>> a is g.node("model", 1, {}, {"uri": "x"})
    True
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from recipelang.types import Type
from recipelang.values import Attr

__all__ = ["Graph", "Node", "walk"]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Node:
    """One step. Nodes compare by identity; make them with :meth:`Graph.node` only.

    ``operands`` maps each role to its nodes, in the order of the operation's declaration; absent
    optional roles are missing. ``attrs`` are the resolved fields, sorted by name, defaults
    included; a per-input field is a tuple along the inputs. ``hints`` never change what the result
    means (micro-batch, checkpoint interval) and are not part of the identity of the node. ``type``
    is what is known of the result.
    """

    op: str
    version: int
    operands: tuple[tuple[str, tuple[Node, ...]], ...]
    attrs: tuple[tuple[str, Attr], ...]
    hints: tuple[tuple[str, Attr], ...]
    type: Type | None

    def __repr__(self) -> str:
        """Short: a whole repr would print every step below, once for each path to it."""
        operands = ", ".join(f"{role}({len(nodes)})" for role, nodes in self.operands)
        return f"<{self.op}@{self.version} {operands}>"

    def role(self, name: str) -> tuple[Node, ...]:
        """The operands of a role; empty when absent."""
        return next((nodes for role, nodes in self.operands if role == name), ())

    def one(self, name: str) -> Node | None:
        """The only operand of a role, or None."""
        nodes = self.role(name)
        return nodes[0] if nodes else None

    @property
    def inputs(self) -> tuple[Node, ...]:
        """All operands, flat, in order."""
        return tuple(node for _, nodes in self.operands for node in nodes)

    def attr(self, name: str, default: Attr = None) -> Attr:
        """The value of an attribute."""
        return next((value for key, value in self.attrs if key == name), default)

    def hint(self, name: str, default: Attr = None) -> Attr:
        """The value of a hint."""
        return next((value for key, value in self.hints if key == name), default)


Operands = Mapping[str, Sequence[Node]]


@dataclass
class Graph:
    """A table of nodes, one for each (operation, operands, attributes)."""

    _table: dict[tuple[object, ...], Node] = field(default_factory=dict[tuple[object, ...], Node])

    def node(
        self, op: str, version: int, operands: Operands, attrs: Mapping[str, Attr],
        hints: Mapping[str, Attr] | None = None, type: Type | None = None,
    ) -> Node:  # fmt: skip
        """The node with these contents; the first one's hints and type win."""
        ordered = tuple((role, tuple(nodes)) for role, nodes in operands.items() if nodes)
        items = tuple(sorted(attrs.items()))
        key = (op, version, ordered, _typed(items))
        found = self._table.get(key)
        if found is None:
            extra = tuple(sorted((hints or {}).items()))
            found = self._table[key] = Node(op, version, ordered, items, extra, type)
        return found

    def __len__(self) -> int:
        return len(self._table)


def _typed(items: tuple[tuple[str, Attr], ...]) -> tuple[object, ...]:
    """Keep ``True`` and ``1`` apart, which Python's equality does not."""
    return tuple((name, isinstance(value, bool), value) for name, value in items)


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node below the roots once, operands before users, in a stable order."""
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(node.inputs))
