"""Checks a graph against the declarations of its operations. A fault here is one of recipelang
itself.

Example: ``verify(roots)`` raises E0901, such as ``ties-merge (student): density has 2 values for 3
inputs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from recipelang.diagnostics import Diagnostic, RecipeError
from recipelang.ir.graph import Node, walk
from recipelang.ir.text import show_node
from recipelang.lineage.keys import input_role
from recipelang.ops import registry
from recipelang.ops.spec import FieldSpec, OperandSpec, Operation
from recipelang.types import LayersType, type_name
from recipelang.values import Attr, Form, Quantity, show

__all__ = ["faults", "verify"]

CHOICE = ("direction", "score")
"""What lowering adds to a step that chooses by a metric: which way is better, and arithmetic."""
HELP = "this is a fault of recipelang: please report it with the recipe and the line above"


def verify(
    roots: Iterable[Node], places: Mapping[Node, str] | None = None, *,
    lookup: Callable[[str], Operation | None] = registry.lookup, after: str = "",
) -> None:  # fmt: skip
    """Raise RecipeError E0901 with every fault below the roots. ``after`` names the pass that ran
    last."""
    found: list[Diagnostic] = []
    labels: dict[Node, str] = {}
    for node in walk(roots):
        labels[node] = f"%{(places or {}).get(node) or len(labels)}"
        for text in faults(node, lookup(node.op)):
            where = f"{node.op} ({labels[node].removeprefix('%')})" + (
                f" after {after}" if after else ""
            )
            line = show_node(node, labels)
            found.append(
                Diagnostic("E0901", "error", f"{where}: {text}", notes=(line,), help=HELP)
            )  # fmt: skip
    if found:
        raise RecipeError(*found)


def faults(node: Node, operation: Operation | None) -> Iterator[str]:
    """What is wrong with one node; nothing where it is as its operation declares."""
    if operation is None:
        yield f"there is no operation `{node.op}`"
        return
    if node.version != operation.version:
        yield f"is version {node.version}, the operation is version {operation.version}"
    yield from _operand_faults(node, operation)
    yield from _attribute_faults(node, operation)
    lifted = operation.takes_layers and isinstance(node.type, LayersType)
    known = node.type is None or type_name(node.type) in operation.result.split("|")
    if not known and not lifted:
        yield f"gives {operation.result}, but is typed {type_name(node.type)}"


def _operand_faults(node: Node, operation: Operation) -> Iterator[str]:
    declared = [o.name for o in operation.operands]
    roles = [role for role, _ in node.operands]
    for role in roles:
        if role not in declared:
            yield f"has no operand `{role}`"
    known = [role for role in roles if role in declared]
    if known != sorted(known, key=declared.index):
        yield f"has its operands in the order {', '.join(known)}"
    for spec in operation.operands:
        given = node.role(spec.name)
        if not given and not spec.optional:
            yield f"lacks its operand `{spec.name}`"
        if len(given) > 1 and not (spec.many or spec.metric):
            yield f"takes one `{spec.name}`, found {len(given)}"
        yield from _head_faults(operation, spec, given)


def _head_faults(operation: Operation, spec: OperandSpec, given: tuple[Node, ...]) -> Iterator[str]:
    if spec.metric:
        return
    heads = operation.accepted(spec)
    for operand in given:
        head = type_name(operand.type)
        if operand.type is not None and head not in heads:
            yield f"takes a {spec.type} as `{spec.name}`, found a {head}"


def _attribute_faults(node: Node, operation: Operation) -> Iterator[str]:
    given = dict(node.attrs)
    for name in given:
        spec = operation.field(name)
        if spec is None and any(o.metric for o in operation.operands) and name in CHOICE:
            continue
        if spec is None:
            yield f"has no attribute `{name}`"
        elif spec.hint:
            yield f"has the hint `{name}` among its attributes"
    for name, value in node.hints:
        spec = operation.field(name)
        if spec is None or not spec.hint:
            yield f"has no hint `{name}`"
        else:
            yield from _field_faults(node, operation, spec, value)
    for spec in operation.fields:
        if spec.hint or spec.kind == "secret":
            continue
        if spec.name not in given:
            yield f"lacks the attribute `{spec.name}`"
        else:
            yield from _field_faults(node, operation, spec, given[spec.name])


def _field_faults(
    node: Node, operation: Operation, spec: FieldSpec, value: Attr
) -> Iterator[str]:  # fmt: skip
    if not spec.per_input:
        yield from _value_faults(spec, value)
        return
    count = len(node.role(input_role(operation)))
    if not isinstance(value, tuple):
        yield f"`{spec.name}` is one value, not one for each input"
    elif len(value) != count:
        yield f"`{spec.name}` has {len(value)} values for {count} inputs"
    else:
        for item in value:
            yield from _value_faults(spec, item)


def _value_faults(spec: FieldSpec, value: Attr) -> Iterator[str]:
    """What is wrong with one value: its kind, its choice, its range."""
    if value is None:
        if not spec.optional:
            yield f"`{spec.name}` has no value"
        return
    if spec.per_tensor and isinstance(value, Form) and value.name in ("gradient", "per"):
        for _, item in value.args:
            yield from _value_faults(spec, item)
        return
    if not _is_kind(spec, value):
        yield f"`{spec.name}` is a {spec.kind}, found `{show(value)}`"
        return
    if spec.kind == "choice" and value not in spec.choices:
        yield f"`{spec.name}` is one of {', '.join(spec.choices)}, found `{show(value)}`"
    if spec.item is not None and isinstance(value, tuple):
        for item in value:
            yield from _value_faults(spec.item, item)
    number = value.value if isinstance(value, Quantity) else value
    if spec.range is not None and isinstance(number, (int, float)) and not spec.range.holds(number):
        yield f"`{spec.name}` is in {spec.range}, found `{show(value)}`"


def _is_kind(spec: FieldSpec, value: Attr) -> bool:
    match spec.kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "text" | "choice" | "secret":
            return isinstance(value, str)
        case "form":
            return isinstance(value, Form)
        case "quantity":
            return isinstance(value, Quantity) and value.unit in spec.units
        case _:
            return isinstance(value, tuple)
