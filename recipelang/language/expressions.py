"""Expressions: names, numbers, lists, arithmetic on numbers, models and measures, calls and chains.

Example: ``a + 0.4 * (b - c)`` on models becomes the steps ``delta``, ``scale-delta`` and
``add-delta``.
"""

from __future__ import annotations

from recipelang.diagnostics import RecipeError, Span
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.builtins import call_builtin
from recipelang.language.calls import resolve_head, template_step
from recipelang.language.methods import call_method, has_method, split_method
from recipelang.language.phrases import elaborate_phrase
from recipelang.language.quantities import QuantityError, arithmetic, read_number
from recipelang.language.report import report_fault
from recipelang.language.resolve import member, resolve
from recipelang.language.scope import Scope
from recipelang.language.sweeps import comprehension, limited
from recipelang.language.templates import arguments, call_template
from recipelang.language.values import (
    POISON,
    Attached,
    Builtin,
    Elaborated,
    ManyOf,
    Opaque,
    TemplateValue,
    Words,
    describe,
    is_measured,
    is_poison,
)
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault, Operation
from recipelang.program import Arithmetic
from recipelang.types import AdapterType, DeltaType, ModelType, ScalarType
from recipelang.values import Attr, Quantity

__all__ = ["evaluate"]


def evaluate(value: syntax.Value, scope: Scope, place: str = "") -> Elaborated:
    """What the expression stands for.

    ``place`` names the step it makes: ``student``; with a slash at the end it is what unnamed steps
    inside are named after.
    """
    found = _evaluate(value, scope, place)
    if isinstance(found, Node) and place and not place.endswith("/"):
        scope.builder.claim(found, place)
    return found


def _evaluate(value: syntax.Value, scope: Scope, place: str) -> Elaborated:
    match value:
        case syntax.Ref():
            return resolve(value, scope)
        case syntax.Number() | syntax.Text() | syntax.Bool():
            return _literal(value, scope)
        case syntax.Group(value=inner):
            return evaluate(inner, scope, place)
        case syntax.ListOf():
            return _list(value, scope, place)
        case syntax.Each():
            return comprehension(value, scope, place)
        case syntax.Member(of=of, name=name):
            return member(evaluate(of, scope, _inside(place)), name, scope, place)
        case syntax.Call():
            return _call(value, scope, place)
        case syntax.Binary():
            return _binary(value, scope, place)
        case syntax.Step():
            return _step(value, scope, place, None)
        case syntax.Chain():
            return _chain(value, scope, place)


def _inside(place: str) -> str:
    """The place of unnamed steps inside this one."""
    return place if not place or place.endswith("/") else place + "/"


def _literal(value: syntax.Number | syntax.Text | syntax.Bool, scope: Scope) -> Elaborated:
    if isinstance(value, syntax.Text):
        return Words(value.value, scope.file.folder)
    if isinstance(value, syntax.Bool):
        return value.value
    try:
        return read_number(value.text, value.unit.text if value.unit else "")
    except QuantityError as error:
        scope.sink.error("E0401", error.message, value.span, help=error.help)
        return POISON


def _list(value: syntax.ListOf, scope: Scope, place: str) -> Elaborated:
    """The items; in a list that has a name they are called ``teachers[0]``, ``teachers[1]``, ..."""
    named = bool(place) and not place.endswith("/")
    places = (f"{place}[{i}]" if named else place for i in range(len(value.items)))
    items = tuple(evaluate(i, scope, p) for i, p in zip(value.items, places, strict=True))
    return limited(items, value, scope)


# ---------------------------------------------------------------- calls and chains


def _call(value: syntax.Call, scope: Scope, place: str) -> Elaborated:
    callee = value.callee
    method = split_method(callee)
    found: Elaborated | Operation
    if method is not None:
        of, name = method
        owner = evaluate(of, scope, _inside(place))
        if has_method(owner):
            return call_method(owner, of, value, scope, place)
        found = member(owner, name, scope)
    elif isinstance(callee, syntax.Ref):
        found = resolve_head(callee, scope)
        if isinstance(found, Operation):
            scope.sink.error(
                "E0210",
                f"`{callee.text}` is a verb, and a verb is not called",
                value.span,
                help=f"write `{callee.text} x`, with what it works on behind it",
            )
            return POISON
    else:
        found = evaluate(callee, scope, _inside(place))
    if isinstance(found, TemplateValue):
        return call_template(
            found, arguments(value.args, scope, _inside(place)), value.span, scope, place
        )
    if isinstance(found, Builtin):
        return call_builtin(found.name, value, scope)
    if is_poison(found):
        return POISON
    if isinstance(found, Node | ManyOf | Opaque) and not isinstance(
        getattr(found, "type", None), ScalarType
    ):
        return Attached(found, value.args, scope, callee.span)
    scope.sink.error(
        "E0210",
        f"{describe(found)} is not called",
        value.span,
        help="a call attaches parameters to an input, or calls a template",
    )
    return POISON


def _chain(value: syntax.Chain, scope: Scope, place: str) -> Elaborated:
    """``first -> step -> step``: the earlier positions are named ``place.1``, ``place.2``, ..."""
    named = bool(place) and not place.endswith("/")
    current = evaluate(value.first, scope, f"{place}.1" if named else place)
    span = value.first.span
    for position, tail in enumerate(value.tails, 2):
        last = position == len(value.tails) + 1
        where = place if last or not named else f"{place}.{position}"
        current = _step(tail, scope, where, (current, span))
        if isinstance(current, Node) and named:
            scope.builder.claim(current, where)
        span = tail.head.span
    return current


def _step(
    step: syntax.Step, scope: Scope, place: str, subject: tuple[Elaborated, Span] | None
) -> Elaborated:
    """A verb phrase, or a template called as one."""
    head = step.head.callee if isinstance(step.head, syntax.Call) else step.head
    args = step.head.args if isinstance(step.head, syntax.Call) else ()
    found = (
        resolve_head(head, scope, step) if isinstance(head, syntax.Ref) else evaluate(head, scope)
    )
    if isinstance(found, TemplateValue):
        if subject is None and step.subject is not None:
            subject = (evaluate(step.subject, scope, _inside(place)), step.subject.span)
        return template_step(found, step, args, subject, scope, place)
    if isinstance(found, Operation) and not isinstance(step.head, syntax.Call):
        return elaborate_phrase(found, step, scope, place, subject)
    if isinstance(found, Operation):
        scope.sink.error(
            "E0210",
            f"`{found.verb}` is a verb, and a verb is not called",
            head.span,
            help=f"write `{found.verb} x`, and its fields in a block",
        )
    elif not is_poison(found):
        scope.sink.error(
            "E0210",
            f"{describe(found)} is not a verb",
            head.span,
            help="a phrase starts with a verb or a template",
        )
    for operand in (*([step.subject] if step.subject else []),
                    *(o for clause in step.clauses for o in clause.operands)):  # fmt: skip
        evaluate(operand, scope)
    return POISON


# ---------------------------------------------------------------- arithmetic


def _binary(value: syntax.Binary, scope: Scope, place: str) -> Elaborated:
    left = evaluate(value.left, scope, _inside(place))
    right = evaluate(value.right, scope, _inside(place))
    if is_poison(left) or is_poison(right):
        return POISON
    numbers = (int, float, Quantity)
    bools = isinstance(left, bool) or isinstance(right, bool)
    if isinstance(left, numbers) and isinstance(right, numbers) and not bools:
        try:
            return arithmetic(value.op, left, right)
        except QuantityError as error:
            scope.sink.error("E0402", error.message, value.span, help=error.help)
            return POISON
    if _unknown_number(left) or _unknown_number(right):
        return POISON
    if is_measured(left) or is_measured(right):
        return _measured(value, left, right, scope)
    return _models(value, left, right, scope, place)


def _unknown_number(value: Elaborated) -> bool:
    return isinstance(value, Opaque) and isinstance(value.type, ScalarType)


def _measured(
    value: syntax.Binary, left: Elaborated, right: Elaborated, scope: Scope
) -> Elaborated:
    """Arithmetic over measures and plain numbers."""
    parts: list[Node | int | float | Arithmetic] = []
    for part in (left, right):
        if isinstance(part, Opaque):
            return POISON
        if isinstance(part, Quantity):
            part = part.value
        if isinstance(part, Arithmetic | int | float) or (
            isinstance(part, Node) and is_measured(part)
        ):
            parts.append(part)
    if len(parts) == 2 and not (value.op == "/" and parts[1] == 0):
        return Arithmetic(value.op, parts[0], parts[1])
    _refuse(value, left, right, scope)
    return POISON


def _kind(value: Elaborated) -> str:
    """``Model``, ``Delta`` (also an adapter), ``number``, or empty."""
    if isinstance(value, Node):
        if isinstance(value.type, ModelType):
            return "Model"
        return "Delta" if isinstance(value.type, DeltaType | AdapterType) else ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number or (isinstance(value, Quantity) and value.unit == "fraction") else ""


def _models(
    value: syntax.Binary, left: Elaborated, right: Elaborated, scope: Scope, place: str
) -> Elaborated:
    """Arithmetic over models and deltas."""
    plan = _lower(value.op, left, right)
    if plan is None:
        _refuse(value, left, right, scope)
        return POISON
    verb, operands, fields = plan
    operation = lookup(verb)
    assert operation is not None, verb
    owner = place if place.endswith("/") else ""
    try:
        return scope.builder.step(operation, operands, fields, value.span, owner)
    except (Fault, RecipeError) as fault:
        sides = iter((value.left.span, value.right.span))
        spans = {role: next(sides) for role in operands}
        report_fault(fault, scope.sink, value.op_span, spans)
        return POISON


def _lower(
    op: str, left: Elaborated, right: Elaborated
) -> tuple[str, dict[str, list[Node]], dict[str, Attr]] | None:
    """The operation that the arithmetic means, its operands and its fields; None where it means
    nothing."""
    sign = 1.0 if op == "+" else -1.0
    kinds = (_kind(left), op, _kind(right))
    if isinstance(left, Node) and isinstance(right, Node):
        match kinds:
            case ("Model", "-", "Model"):
                return "delta", {"of": [left], "minus": [right]}, {}
            case ("Model", "+" | "-", "Delta"):
                delta, share = _unscaled(right)
                return "add-delta", {"model": [left], "delta": [delta]}, {"scale": sign * share}
            case ("Delta", "+", "Model"):
                delta, share = _unscaled(left)
                return "add-delta", {"delta": [delta], "model": [right]}, {"scale": share}
            case ("Delta", "+" | "-", "Delta") if not (_adapts(left) or _adapts(right)):
                return "add-deltas", {"left": [left], "right": [right]}, {"scale": sign}
            case _:
                return None
    node, factor = (left, right) if isinstance(left, Node) else (right, left)
    number = factor.value if isinstance(factor, Quantity) else factor
    if not isinstance(node, Node) or not isinstance(number, int | float) or _kind(node) != "Delta":
        return None
    if op == "*" and "number" in kinds:
        return "scale-delta", {"delta": [node]}, {"factor": float(number)}
    if op == "/" and kinds[2] == "number" and number != 0:
        return "scale-delta", {"delta": [node]}, {"factor": 1.0 / number}
    return None


def _unscaled(delta: Node) -> tuple[Node, float]:
    """The adapter in a multiple of one, and the factor; any other delta as it is. What an adapter
    changes is known beside the model that it is added to."""
    inner, factor = delta, 1.0
    while inner.op == "scale-delta":
        share = inner.attr("factor")
        assert isinstance(share, float)
        inner, factor = inner.inputs[0], factor * share
    return (inner, factor) if isinstance(inner.type, AdapterType) else (delta, 1.0)


def _adapts(delta: Node) -> bool:
    return isinstance(_unscaled(delta)[0].type, AdapterType)


def _refuse(value: syntax.Binary, left: Elaborated, right: Elaborated, scope: Scope) -> None:
    """Arithmetic that has no meaning."""
    words = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
    kinds = {_kind(left), _kind(right)}
    help = ""
    if kinds == {"Model"} and value.op == "+":
        help = "average them: `linear-merge a with b`; or add a difference: `a + (b - c)`"
    elif kinds == {"Model", "number"}:
        help = "weights stand in a merge: `linear-merge a(weight = 0.4) with b(weight = 0.6)`"
    elif value.op == "/":
        help = "the divisor is a number that is not zero"
    elif any(isinstance(side, Node) and _adapts(side) for side in (left, right)):
        help = "add adapters to a model one after the other: `m + 0.4 * a + 0.3 * b`"
    elif value.op == "-" and "Delta" in kinds:
        help = "a delta is subtracted from a model: `m - d`"
    scope.sink.error(
        "E0304",
        f"cannot {words[value.op]} {describe(left)} and {describe(right)}",
        value.span,
        help=help,
    )
