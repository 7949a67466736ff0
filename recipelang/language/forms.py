"""Settings in fields: ``lora(rank = 16)``, weighted sums of objectives, and values that vary by
tensor.

Example: ``0.7 * forward_kl + 0.3 * cross_entropy`` is the form ``sum`` of two forms ``term``.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recipelang.diagnostics import Label, Span
from recipelang.language import syntax
from recipelang.language.fields import Owner, Reader, bare_word, strip_groups
from recipelang.language.quantities import plain
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean, listed
from recipelang.language.values import POISON, Poison, describe, is_poison
from recipelang.ops.spec import REQUIRED, FieldSpec, Forms, FormSpec, Mark, form_spec
from recipelang.values import Attr, Form, Quantity

__all__ = ["complete", "form_names", "read_form", "read_varying", "schema", "varies"]


# ---------------------------------------------------------------- schemas


@cache
def form_names(forms: Forms) -> tuple[str, ...]:
    """The names of the settings that a field accepts."""
    if not forms.package:
        return tuple(form_spec(f).name for f in forms.functions)
    package = importlib.import_module(forms.package)
    stems = (file.stem for folder in package.__path__ for file in Path(folder).glob("*.py"))
    return tuple(sorted(stem for stem in stems if not stem.startswith("_")))


@cache
def schema(forms: Forms, name: str) -> FormSpec | None:
    """What the setting of that name takes, or None when there is none."""
    if name not in form_names(forms):
        return None
    if not forms.package:
        return next(s for s in map(form_spec, forms.functions) if s.name == name)
    module = importlib.import_module(f"{forms.package}.{name}")
    declared = getattr(module, name)
    return form_spec(_keywords(declared.terms, name, declared.doc))


def _keywords(function: Callable[..., object], name: str, doc: str) -> Callable[..., object]:
    """A function with the keyword-only parameters of another, whose other annotations are never
    read."""
    parameters = [
        p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]

    def stub(**settings: object) -> None: ...

    stub.__name__, stub.__doc__ = name, doc
    stub.__annotations__ = {p.name: p.annotation for p in parameters}
    space: dict[str, Any] = getattr(function, "__globals__", {})
    stub.__annotations__ = typing.get_type_hints(stub, globalns=space, include_extras=True)
    vars(stub)["__signature__"] = inspect.Signature(parameters)
    return stub


def complete(spec: FieldSpec, form: Form, own: frozenset[str]) -> Form:
    """The form with its defaults, except arguments that a field of the operation fills.

    ``lora`` and ``lora(rank = 16)`` are then one constant; ``forward_kl`` keeps taking its
    temperature from the field ``temperature``.
    """
    if form.name == "sum":
        parts: list[tuple[str, Attr]] = []
        for key, part in form.args:
            inner = part.get("of") if isinstance(part, Form) else None
            weight = part.get("weight") if isinstance(part, Form) else None
            if isinstance(inner, Form):
                part = Form("term", (("weight", weight), ("of", complete(spec, inner, own))))
            parts.append((key, part))
        return Form("sum", tuple(parts))
    known = schema(spec.forms, form.name) if spec.forms else None
    if known is None:
        return form
    given = dict(form.args)
    args: list[tuple[str, Attr]] = []
    for argument in known.fields:
        default = argument.default
        if argument.name in given:
            args.append((argument.name, given[argument.name]))
        elif not isinstance(default, Mark) and argument.name not in own:
            args.append((argument.name, default))
    return Form(form.name, tuple(args))


# ---------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class _Context:
    spec: FieldSpec
    forms: Forms
    scope: Scope
    owner: Owner
    read: Reader


def read_form(
    spec: FieldSpec, value: syntax.Value, scope: Scope, owner: Owner, read: Reader
) -> Form | Poison:
    """The setting that the value writes. ``read`` reads the arguments."""
    assert spec.forms is not None
    context = _Context(spec, spec.forms, scope, owner, read)
    if not spec.forms.sums or not isinstance(strip_groups(value), syntax.Binary):
        return _single(context, value)
    terms = _terms(context, value, 1)
    if isinstance(terms, Poison):
        return POISON
    return Form(
        "sum",
        tuple(
            (str(i), Form("term", (("weight", float(w)), ("of", f))))
            for i, (w, f) in enumerate(terms)
        ),
    )


def _terms(
    context: _Context, value: syntax.Value, sign: int
) -> list[tuple[float | int, Form]] | Poison:
    value = strip_groups(value)
    if isinstance(value, syntax.Binary) and value.op in "+-":
        left = _terms(context, value.left, sign)
        right = _terms(context, value.right, sign if value.op == "+" else -sign)
        return POISON if isinstance(left, Poison) or isinstance(right, Poison) else left + right
    if isinstance(value, syntax.Binary):
        return _scaled(context, value, sign)
    form = _single(context, value)
    return POISON if isinstance(form, Poison) else [(sign, form)]


def _scaled(
    context: _Context, value: syntax.Binary, sign: int
) -> list[tuple[float | int, Form]] | Poison:
    """``0.3 * form``, ``form * 0.3`` or ``form / 2``."""
    inner, factor = value.left, value.right
    if value.op == "*" and not _mentions(context, value.left):
        inner, factor = value.right, value.left
    weight = context.scope.evaluate(factor)
    terms = _terms(context, inner, sign)
    if is_poison(weight) or isinstance(terms, Poison):
        return POISON
    number = plain(weight) if isinstance(weight, int | float | Quantity) else None
    if number is None or isinstance(weight, bool) or (value.op == "/" and number == 0):
        context.scope.sink.error(
            "E0509",
            f"a weight in `{context.spec.name}` is a number, found {describe(weight)}",
            factor.span,
            help=f"write `0.7 * {form_names(context.forms)[0]}`",
        )
        return POISON
    factor_number = number if value.op == "*" else 1 / number
    return [(w * factor_number, form) for w, form in terms]


def _mentions(context: _Context, value: syntax.Value) -> bool:
    """Whether the value names one of the field's settings."""
    value = strip_groups(value)
    match value:
        case syntax.Binary(left=left, right=right):
            return _mentions(context, left) or _mentions(context, right)
        case syntax.Call(callee=callee):
            return _mentions(context, callee)
        case _:
            return bare_word(value) in form_names(context.forms)


def _single(context: _Context, value: syntax.Value) -> Form | Poison:
    value = strip_groups(value)
    args: tuple[syntax.Arg, ...] = ()
    head = value
    if isinstance(value, syntax.Call):
        head, args = value.callee, value.args
    name = bare_word(head)
    legal = form_names(context.forms)
    if name is None:
        return _not_a_setting(context, value, legal)
    known = schema(context.forms, name)
    if known is None:
        context.scope.sink.error(
            "E0509",
            f"`{name}` is not a value of `{context.spec.name}`",
            head.span,
            label=f"expected {listed(legal)}",
            help=did_you_mean(name, legal),
            secondary=_about(context),
        )
        return POISON
    return _arguments(context, known, args, head.span)


def _not_a_setting(context: _Context, value: syntax.Value, legal: tuple[str, ...]) -> Poison:
    if isinstance(value, syntax.Step) and isinstance(value.subject, syntax.Group):
        head = value.head.text if isinstance(value.head, syntax.Ref) else ""
        context.scope.sink.error(
            "E0210",
            f"`{head} (` with a space is not a call",
            value.span,
            help=f"write `{head}(...)`: the parenthesis of a call touches the name",
        )
        return POISON
    found = context.scope.evaluate(value)
    if not is_poison(found):
        context.scope.sink.error(
            "E0513",
            f"`{context.spec.name}` is a setting, found {describe(found)}",
            value.span,
            label=f"expected {listed(legal)}",
            secondary=_about(context),
        )
    return POISON


def _about(context: _Context) -> tuple[Label, ...]:
    doc = f": {context.spec.doc}" if context.spec.doc else ""
    return (Label(context.owner.span, f"`{context.owner.name}` takes `{context.spec.name}`{doc}"),)


def _arguments(
    context: _Context, known: FormSpec, args: tuple[syntax.Arg, ...], span: Span
) -> Form | Poison:
    scope = context.scope
    fields = {f.name: f for f in known.fields}
    owner = Owner(known.name, span)
    given: dict[str, Attr] = {}
    sound = True
    for arg in args:
        name = arg.name.text if arg.name else ""
        where = arg.name.span if arg.name else arg.span
        if not name or name not in fields or name in given:
            sound = False
            _bad_argument(scope, known, name, where, given)
            continue
        value = context.read(fields[name], arg.value, scope, owner)
        sound = sound and not isinstance(value, Poison)
        if not isinstance(value, Poison):
            given[name] = value
    if not sound:
        return POISON
    for name, argument in fields.items():
        if argument.default is REQUIRED and name not in given:
            scope.sink.error(
                "E0503",
                f"`{known.name}` needs `{name}`",
                span,
                label=argument.doc,
                help=f"write `{known.name}({name} = ...)`",
            )
            return POISON
    return complete(context.spec, Form(known.name, tuple(given.items())), context.owner.fields)


def _bad_argument(
    scope: Scope, known: FormSpec, name: str, span: Span, given: Mapping[str, Attr]
) -> None:
    names = [f.name for f in known.fields]
    if not name:
        first = names[0] if names else ""
        help = f"write `{known.name}({first} = ...)`" if first else f"`{known.name}` takes none"
        scope.sink.error("E0511", f"arguments of `{known.name}` have names", span, help=help)
    elif name in given:
        scope.sink.error("E0507", f"`{name}` is given twice", span, help="keep one of the two")
    else:
        help = did_you_mean(name, names, f"`{known.name}` takes no arguments")
        scope.sink.error("E0511", f"`{known.name}` takes no `{name}`", span, help=help)


# ---------------------------------------------------------------- by layer and tensor


def varies(value: syntax.Value) -> bool:
    """Whether the value is written as ``gradient(...)`` or ``per { ... }``."""
    match strip_groups(value):
        case syntax.Call(callee=callee):
            return bare_word(callee) == "gradient"
        case syntax.Step(head=syntax.Ref() as head, subject=None, clauses=()):
            return head.text == "per"
        case _:
            return False


def read_varying(
    spec: FieldSpec, value: syntax.Value, scope: Scope, owner: Owner, read: Reader
) -> Form | Poison:
    """``gradient(0, 1)`` or ``per { "mlp" = 0.3, "*" = 0.5 }``, each value read as the field's."""
    value = strip_groups(value)
    if isinstance(value, syntax.Call):
        return _gradient(spec, value, scope, owner, read)
    assert isinstance(value, syntax.Step)
    rows: list[tuple[str, Attr]] = []
    sound = True
    seen: set[str] = set()
    for row in value.block.fields if value.block else ():
        if row.name.text in seen:
            scope.sink.error(
                "E0507",
                f"the pattern `{row.name.text}` is given twice",
                row.name.span,
                help="keep one of the two",
            )
            sound = False
        seen.add(row.name.text)
        inner = read(spec, row.value, scope, owner)
        if isinstance(inner, Form) and inner.name == "per":
            scope.sink.error(
                "E0515",
                "`per` inside `per`",
                row.value.span,
                help="write the patterns in one `per`, the narrowest first",
            )
            sound = False
        elif isinstance(inner, Poison):
            sound = False
        else:
            rows.append((row.name.text, inner))
    if sound and not rows:
        scope.sink.error(
            "E0515",
            "`per` without patterns",
            value.span,
            help=f'write `{spec.name} = per {{ "mlp" = ..., "*" = ... }}`',
        )
        return POISON
    return Form("per", tuple(rows)) if sound else POISON


def _gradient(
    spec: FieldSpec, value: syntax.Call, scope: Scope, owner: Owner, read: Reader
) -> Form | Poison:
    points: list[Attr] = []
    if len(value.args) < 2 or any(arg.name for arg in value.args):
        scope.sink.error(
            "E0515",
            "`gradient` takes two or more numbers, without names",
            value.span,
            help="write `gradient(0.0, 0.5, 1.0)`, from the first layer to the last",
        )
        return POISON
    for arg in value.args:
        if varies(arg.value):
            scope.sink.error("E0515", "`gradient` takes numbers", arg.span)
            return POISON
        point = read(spec, arg.value, scope, owner)
        if isinstance(point, Poison):
            return POISON
        points.append(point)
    return Form("gradient", tuple((str(i), point) for i, point in enumerate(points)))
