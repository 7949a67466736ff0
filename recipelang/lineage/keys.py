"""The two identities of a step, and the key of its random draws.

The *step id* is the structural hash of a lowered step: operation, semantic version, resolved
parameters, step ids of the operands; a source by its content. It exists before anything ran.
The *action key* has the *content* ids of the inputs in place of their step ids: it finds results in
the store. Both are sha256 over a domain line and canonical JSON in which every number is a string
(RFC 8785 needs nothing more then), so no two documents share their bytes.

Never in either: names, places, hints, where bytes lie, secrets, and values that a field declares
:class:`~recipelang.ops.spec.Absent`.

Example:
    >>> digest("recipelang/step/1", {"op": "cast"})[:12]
    '480588aff81d'
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from recipelang.canonical import canonical_json
from recipelang.ir.graph import Node, walk
from recipelang.ops import registry
from recipelang.ops.spec import FieldSpec, Operation
from recipelang.values import Attr, canonical

__all__ = [
    "ActionKey",
    "Lookup",
    "StepIds",
    "action_key",
    "digest",
    "draw_key",
    "draws_of",
    "identity",
    "input_order",
    "input_role",
    "is_input",
    "step_ids",
]

STEP: Final = "recipelang/step/1"
KEY: Final = "recipelang/key/1"
DRAWS: Final = "recipelang/draws/1"

Lookup: TypeAlias = Callable[[str], Operation | None]
"""Verb -> declaration; :func:`recipelang.ops.registry.lookup` outside tests."""


def digest(domain: str, document: object) -> str:
    """The sha256 (64 hex digits) of a document under a domain such as ``recipelang/key/1``."""
    return hashlib.sha256(domain.encode() + b"\n" + canonical_json(document)).hexdigest()


@dataclass(frozen=True, slots=True)
class ActionKey:
    """``document`` is what was hashed (``op opv class params in draws``); ``digest`` is its
    sha256."""

    document: Mapping[str, object]
    digest: str


# ---------------------------------------------------------------- what of a step counts


def is_input(operation: Operation | None) -> bool:
    """Whether the step brings bytes in from outside: it has a field that says where they are."""
    return operation is not None and any(f.location for f in operation.fields)


def identity(node: Node, operation: Operation | None) -> dict[str, object]:
    """The parameters that count, by name, in canonical form."""
    found: dict[str, object] = {}
    for name, value in node.attrs:
        spec = operation.field(name) if operation else None
        if not _left_out(spec, value):
            found[name] = canonical(value)
    return found


def _left_out(spec: FieldSpec | None, value: Attr) -> bool:
    """Whether a parameter never enters an identity, or says what its absence said."""
    if spec is None:
        return False
    if spec.location or spec.hint or spec.kind == "secret":
        return True
    if spec.absent is None:
        return False
    absent = canonical(spec.absent.value)
    if spec.per_input and isinstance(value, tuple):
        return all(canonical(item) == absent for item in value)
    return canonical(value) == absent


def input_order(node: Node, operation: Operation | None, ids: Sequence[str]) -> tuple[int, ...]:
    """The canonical order of the per-input operands, whose step ids are given.

    Of an operation whose law is ``permutation_invariant`` all inputs but the first are sorted by
    step id, then by their parameters. The first is the subject: the result takes dtype,
    configuration and files from it, so it keeps its place.
    """
    plain = tuple(range(len(ids)))
    if operation is None or "permutation_invariant" not in operation.laws or len(ids) < 3:
        return plain
    rows = per_input_rows(node, operation, len(ids))
    return (0, *sorted(plain[1:], key=lambda i: (ids[i], canonical_json(rows[i]))))


def per_input_rows(node: Node, operation: Operation, count: int) -> list[list[object]]:
    """For each input its own parameters, in canonical form and in the order of the fields'
    names."""
    rows: list[list[object]] = [[] for _ in range(count)]
    for name, value in node.attrs:
        spec = operation.field(name)
        if spec and spec.per_input and isinstance(value, tuple) and len(value) == count:
            for row, item in zip(rows, value, strict=True):
                row.append(canonical(item))
    return rows


def input_role(operation: Operation | None) -> str:
    """The role that per-input fields belong to: the first that takes several, else the first."""
    if operation is None or not any(f.per_input for f in operation.fields):
        return ""
    many = (o.name for o in operation.operands if o.many and not o.metric)
    return next(many, operation.operands[0].name if operation.operands else "")


def _ordered(
    node: Node, operation: Operation | None, params: dict[str, object], ids: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """The ids by role in canonical order; the per-input parameters are moved along in
    ``params``."""
    role = input_role(operation)
    if operation is None or role not in ids:
        return dict(ids)
    order = input_order(node, operation, ids[role])
    for spec in operation.fields:
        value = params.get(spec.name)
        if not spec.per_input or not isinstance(value, list):
            continue
        items = cast("list[object]", value)
        if len(items) == len(order):
            params[spec.name] = [items[i] for i in order]
    return {**ids, role: [ids[role][i] for i in order]}


# ---------------------------------------------------------------- the identities


def step_ids(
    roots: Iterable[Node], content: Callable[[Node], str], *, lookup: Lookup = registry.lookup
) -> dict[Node, str]:
    """The step id (64 hex digits) of every node below the roots.

    ``content(node)`` is asked for sources only: the revision or content digest of what they name.
    What a source's operands say (a declared origin) is lineage, not content, and does not enter.
    """
    ids = StepIds(content, lookup)
    return {node: ids[node] for node in walk(roots)}


@dataclass
class StepIds(Mapping[Node, str]):
    """Step ids, made when they are asked for (so that a source nobody needs is never read)."""

    content: Callable[[Node], str]
    lookup: Lookup = registry.lookup
    _made: dict[Node, str] = field(default_factory=dict[Node, str])

    def __getitem__(self, node: Node) -> str:
        if node not in self._made:
            for below in walk([node]):
                if below not in self._made:
                    self._made[below] = self._make(below)
        return self._made[node]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def _make(self, node: Node) -> str:
        operation = self.lookup(node.op)
        params = identity(node, operation)
        document: dict[str, object] = {"op": node.op, "opv": str(node.version), "params": params}
        if is_input(operation):
            document["content"] = self.content(node)
        else:
            by_role = {role: [self._made[n] for n in nodes] for role, nodes in node.operands}
            document["in"] = _ordered(node, operation, params, by_role)
        return digest(STEP, document)


def action_key(
    node: Node, inputs: Mapping[str, Sequence[str]], draws: str | None = None, *,
    lookup: Lookup = registry.lookup,
) -> ActionKey:  # fmt: skip
    """The key under which the step's result is stored.

    ``inputs`` maps each role to the content ids of its operands, in the node's order, which is the
    order that they are computed in and part of the key: floating-point sums of three and more terms
    depend on it. (The pass ``canonicalise`` has put it into an order that no rewriting of the
    recipe changes.) ``draws`` is the step's :func:`draw_key`, None where it draws nothing.
    """
    operation = lookup(node.op)
    document: dict[str, object] = {
        "op": node.op,
        "opv": str(node.version),
        "class": operation.determinism if operation else "exact",
        "params": identity(node, operation),
        "in": {role: list(ids) for role, ids in inputs.items() if ids},
        "draws": draws,
    }
    return ActionKey(document, digest(KEY, document))


def draw_key(node: Node, ids: Mapping[Node, str], *, lookup: Lookup = registry.lookup) -> str:
    """What the step's random draws are keyed by: seed, operation, and the step ids of its data.

    Data are the operands that are datasets, without those it is only evaluated ``over``; a step
    without data takes all operands. Neither names nor order nor hyper-parameters enter, so members
    of a sweep share their draws.
    """
    operation = lookup(node.op)
    data = _data_roles(node, operation)
    used = {role: nodes for role, nodes in node.operands if not data or role in data}
    seed = (
        node.attr(next((f.name for f in operation.fields if f.draws), "seed")) if operation else 0
    )
    document = {
        "op": node.op,
        "seed": canonical(seed),
        "in": {role: sorted(ids[n] for n in nodes) for role, nodes in used.items()},
    }
    return digest(DRAWS, document)


def _data_roles(node: Node, operation: Operation | None) -> frozenset[str]:
    specs = operation.operands if operation else ()
    data = {o.name for o in specs if "Dataset" in o.type.split("|") and o.prepositions != ("over",)}
    return frozenset(role for role, _ in node.operands if role in data)


def draws_of(
    node: Node, ids: Mapping[Node, str], *, lookup: Lookup = registry.lookup
) -> str | None:
    """The step's draw key, or None where its operation draws nothing."""
    operation = lookup(node.op)
    return draw_key(node, ids, lookup=lookup) if operation and operation.draws else None
