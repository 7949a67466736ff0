"""Templates: ``recipe specialise(start: Model, text: Dataset) => Model { ... }``.

A call binds the parameters in a new scope and works the body out there; equal calls are one call. A
template that nothing calls is checked with parameters of which only the type is known.

Example: ``base -> specialise(text = notes.train)`` binds ``start`` to ``base``.
"""

from __future__ import annotations

from dataclasses import replace

from recipelang.diagnostics import Label, Span
from recipelang.ir.build import Builder
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.annotations import conform, expected_type
from recipelang.language.fields import Owner
from recipelang.language.scope import Declaration, Scope
from recipelang.language.suggest import did_you_mean
from recipelang.language.values import (
    POISON,
    Elaborated,
    Opaque,
    TemplateValue,
    is_poison,
)
from recipelang.program import GateRoot
from recipelang.types import ListType, MeasuredType, ScalarType, Type

__all__ = ["Argument", "arguments", "call_template", "check_alone"]

LIMIT = 100_000
"""How many calls of templates a program may make in all."""

Argument = tuple[str | None, Elaborated, Span]
"""A name or None, the value, and where it was written."""


def arguments(args: tuple[syntax.Arg, ...], scope: Scope, place: str) -> list[Argument]:
    """The arguments of a call, worked out in the caller's scope."""
    return [
        (arg.name.text if arg.name else None, scope.evaluate(arg.value, place), arg.value.span)
        for arg in args
    ]


def call_template(
    target: TemplateValue, given: list[Argument], span: Span, scope: Scope, place: str
) -> Elaborated:
    """What the template gives for these arguments; faults are reported, and give poison."""
    template, session = target.template, scope.session
    session.called.add(template)
    if template in session.calling:
        session.sink.error(
            "E0209",
            f"`{template.name.text}` calls itself",
            span,
            secondary=(Label(template.name.span, "defined here"),),
            help="templates do not recurse: write the steps, or a list with `for`",
        )
        return POISON
    session.calls += 1
    if session.calls > LIMIT:
        session.sink.error(
            "E0505",
            f"more than {LIMIT} calls of templates",
            span,
            help="templates that call templates twice grow fast: share the result",
        )
        return POISON
    values = _bind(target, given, span, scope)
    if values is None:
        return POISON
    key = (template, tuple(values.items()), id(session.builder))
    if key not in session.results:
        session.calling.append(template)
        prefix = _prefix(template, values, scope, place)
        body = target.scope.child(values, prefix)
        body = replace(body, session=session)
        session.results[key] = _give(template, body)
        session.calling.pop()
    return session.results[key]


def _prefix(
    template: syntax.Template, values: dict[str, Elaborated], scope: Scope, place: str
) -> str:
    """What the names of the body's steps start with: ``teachers[2]/``, or ``student/score/`` for a
    call that is not bound to a name."""
    if place and not place.endswith("/"):
        return f"{place}/"
    if not place:
        first = next((v for v in values.values() if isinstance(v, Node)), None)
        place = f"{scope.builder.name(first)}/" if first is not None else ""
    return f"{place}{template.name.text}/"


def _bind(
    target: TemplateValue, given: list[Argument], span: Span, scope: Scope
) -> dict[str, Elaborated] | None:
    """The parameters' values, or None when an argument is missing, unknown or of a wrong type."""
    template = target.template
    names = [p.name.text for p in template.params]
    chosen: dict[str, tuple[Elaborated, Span]] = {}
    sound = True
    for position, (name, value, where) in enumerate(given):
        known = name if name is not None else names[position] if position < len(names) else None
        if known is None or known not in names or known in chosen:
            sound = False
            _bad_argument(scope, template, known or name, where, known in chosen)
            continue
        chosen[known] = (value, where)
    owner = Owner(template.name.text, template.name.span)
    values: dict[str, Elaborated] = {}
    missing: list[str] = []
    for param in template.params:
        name = param.name.text
        type_ = expected_type(param.type, scope.sink)
        if name in chosen:
            value, where = chosen[name]
        elif param.default is not None:
            value, where = target.scope.evaluate(param.default), param.default.span
        else:
            missing.append(name)
            continue
        values[name] = conform(value, type_, name, where, scope, owner)
        sound = sound and not is_poison(values[name])
    if missing:
        scope.sink.error(
            "E0511",
            f"`{template.name.text}` needs `{missing[0]}`",
            span,
            help=f"write `{template.name.text}({', '.join(f'{n} = ...' for n in missing)})`",
            secondary=(Label(template.name.span, "defined here"),),
        )
    return values if sound and not missing else None


def _bad_argument(
    scope: Scope, template: syntax.Template, name: str | None, span: Span, twice: bool
) -> None:
    names = [p.name.text for p in template.params]
    verb = template.name.text
    if twice:
        scope.sink.error("E0507", f"`{name}` is given twice", span, help="keep one of the two")
    elif name is None:
        scope.sink.error(
            "E0511",
            f"`{verb}` takes {len(names)} arguments",
            span,
            help=f"its parameters are {', '.join(f'`{n}`' for n in names)}"
            if names
            else "write `()`",
        )
    else:
        scope.sink.error(
            "E0511",
            f"`{verb}` has no parameter `{name}`",
            span,
            help=did_you_mean(name, names, f"`{verb}` takes none"),
        )


# ---------------------------------------------------------------- bodies


def _give(template: syntax.Template, body: Scope) -> Elaborated:
    """Work the body out: all bindings, the gates, then the result."""
    declare_local(template, body)
    for name in list(body.declared):
        body.own(name)
    result: Elaborated = POISON
    for statement in template.body:
        if isinstance(statement, syntax.Gate):
            from recipelang.language.roots import gate

            found = gate(statement, body)
            if found is not None and not any(_same(found, g) for g in body.session.gates):
                body.session.gates.append(found)
        elif isinstance(statement, syntax.Give):
            result = body.evaluate(statement.value, body.prefix)
            type_ = expected_type(template.result, body.sink)
            owner = Owner(template.name.text, template.name.span)
            name, span = template.name.text, statement.value.span
            result = conform(result, type_, name, span, body, owner, "gives")
    return result


def _same(a: GateRoot, b: GateRoot) -> bool:
    return (a.span, a.left, a.right) == (b.span, b.left, b.right)


def declare_local(template: syntax.Template, body: Scope) -> None:
    """Enter the template's bindings into its scope; a name stands once."""
    for statement in template.body:
        if not isinstance(statement, syntax.Binding):
            continue
        name = statement.name.text
        if name in body.declared or name in body.values:
            body.sink.error(
                "E0203",
                f"`{name}` is bound twice",
                statement.name.span,
                help="a name is bound once; call one of them something else",
            )
        else:
            declared: Declaration = statement
            body.declared[name] = declared


def check_shape(template: syntax.Template, scope: Scope) -> None:
    """What is true of a template whoever calls it: one `give`, parameters with different names."""
    seen: set[str] = set()
    for param in template.params:
        if param.name.text in seen:
            scope.sink.error(
                "E0203", f"the parameter `{param.name.text}` stands twice", param.name.span
            )
        seen.add(param.name.text)
    gives = [s for s in template.body if isinstance(s, syntax.Give)]
    if not gives:
        scope.sink.error(
            "E0306",
            f"`{template.name.text}` gives nothing",
            template.name.span,
            help="end the template with `give x`",
        )
    for extra in gives[1:]:
        scope.sink.error(
            "E0306",
            f"`{template.name.text}` gives twice",
            extra.span,
            secondary=(Label(gives[0].span, "first here"),),
        )


def check_alone(target: TemplateValue) -> None:
    """Check a template that nothing calls, with unknown parameters and a graph that is thrown
    away."""
    template, real = target.template, target.scope.session
    session = replace(
        real, builder=Builder(real.builder.seed), gates=[], calling=[template], results={}
    )
    values: dict[str, Elaborated] = {}
    owner = Owner(template.name.text, template.name.span)
    for param in template.params:
        type_ = expected_type(param.type, real.sink)
        if param.default is not None:
            default = target.scope.evaluate(param.default)
            conform(default, type_, param.name.text, param.default.span, target.scope, owner)
        values[param.name.text] = _unknown(session.builder, param.name.text, type_)
    body = replace(target.scope.child(values, template.name.text + "/"), session=session)
    _give(template, body)


def _unknown(builder: Builder, name: str, type_: Type | None) -> Elaborated:
    if type_ is None:
        return POISON
    if isinstance(type_, ScalarType | ListType | MeasuredType):
        return Opaque(type_)
    return builder.parameter(name, type_)
