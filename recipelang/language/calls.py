"""What stands at the head of a phrase or a call: a verb, a template, a built-in function or a
value.

Example: ``finetun base`` is an unknown verb whose help offers ``finetune``.
"""

from __future__ import annotations

from recipelang.diagnostics import Fix, RecipeError, Span
from recipelang.language import syntax
from recipelang.language.forms import varies
from recipelang.language.report import report_fault
from recipelang.language.resolve import resolve, spaced, unknown_name
from recipelang.language.scope import BUILTINS, Scope
from recipelang.language.suggest import did_you_mean, nearest
from recipelang.language.templates import Argument, arguments, call_template
from recipelang.language.values import POISON, Elaborated, TemplateValue
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import Operation

__all__ = ["resolve_head", "template_step"]

VARYING = ("gradient", "per")
PLANNED = frozenset(
    [
        "align",
        "detox",
        "ensemble",
        "expand",
        "filter",
        "fisher-merge",
        "generate",
        "lm-eval",
        "moe",
        "pair-accuracy",
        "pretrain",
        "quantize",
        "regmean-merge",
        "reinforce",
        "reward-model",
        "search",
        "transplant",
    ]
)
"""Verbs that are designed and that no version has yet: nobody should look for a typing error."""

UNWRITTEN = ("add-delta", "layers")
"""Operations that look like verbs and are written otherwise."""


def resolve_head(
    ref: syntax.Ref, scope: Scope, step: syntax.Step | None = None
) -> Elaborated | Operation:
    """The verb, template or value that a head names. ``step`` is given where it must be a verb."""
    name = ref.parts[0]
    if len(ref.parts) > 1:
        return resolve(ref, scope)
    holder = scope.holder(name.text)
    if holder is not None and (
        step is None or isinstance(holder.declared.get(name.text), syntax.Template)
    ):
        return resolve(ref, scope)
    try:
        operation = lookup(name.text)
    except RecipeError as error:  # a plug-in that fails
        report_fault(error, scope.sink, name.span, {})
        return POISON
    if operation is not None and not operation.internal:
        return operation
    if name.text in VARYING and (step is None or varies(step)):
        scope.sink.error(
            "E0515",
            f"`{name.text}` stands in a field that varies by tensor",
            name.span,
            help="write it as the value of such a field: `density = gradient(0.2, 0.8)`",
        )
        return POISON
    if step is None:
        return unknown_name(name, scope)
    return _unknown_verb(name, scope, step)


def _unknown_verb(name: syntax.Name, scope: Scope, step: syntax.Step) -> Elaborated:
    text = name.text
    subject = step.subject
    bound = scope.holder(text) is not None
    callable_names = bound or text in (*BUILTINS, *VARYING)
    if isinstance(subject, syntax.Number) and subject.text.startswith("-") and bound:
        apart = f"{text} - {subject.text[1:]}"
        span = name.span.to(subject.span)
        scope.sink.error(
            "E0202",
            f"unknown verb `{text}`",
            name.span,
            help=f"did you mean `{apart}`? an operator has a space on both sides",
            fixes=(Fix(f"write `{apart}`", ((span, apart),)),),
        )
    elif isinstance(subject, syntax.Group) and callable_names:
        scope.sink.error(
            "E0210",
            f"`{text} (` with a space is a phrase, and `{text}` is not a verb",
            name.span,
            help=f"write `{text}(...)`: the parenthesis of a call touches the name",
        )
    elif spaced(text, scope):
        scope.sink.error(
            "E0202",
            f"unknown verb `{text}`",
            name.span,
            help=f"did you mean `{spaced(text, scope)}`? an operator has a space on both sides",
        )
    else:
        _misspelt(name, scope, bound)
    return POISON


def _misspelt(name: syntax.Name, scope: Scope, bound: bool) -> None:
    text = name.text
    if text in PLANNED and not bound:
        help = "`recipe ops` lists the verbs that there are"
        scope.sink.error("E0202", f"the verb `{text}` is not built yet", name.span, help=help)
        return
    templates = [n for n in scope.known() if n != text]
    found = nearest(text, [v for v in verbs() if not v.startswith(UNWRITTEN)] + templates)
    fixes = (Fix(f"write `{found}`", ((name.span, found),)),) if found else ()
    if bound:
        message = f"`{text}` is a name of this file, and not a verb"
        help = "a phrase starts with a verb: `finetune base on notes`"
        scope.sink.error("E0202", message, name.span, help=help)
        return
    help = did_you_mean(text, [found] if found else [], "`recipe ops` lists the verbs")
    help = f"did you mean `{found}`?" if found else help
    scope.sink.error("E0202", f"unknown verb `{text}`", name.span, help=help, fixes=fixes)


def template_step(
    target: TemplateValue, step: syntax.Step, args: tuple[syntax.Arg, ...],
    subject: tuple[Elaborated, Span] | None, scope: Scope, place: str,
) -> Elaborated:  # fmt: skip
    """``base -> specialise(text = notes)``: the subject is the first parameter."""
    if step.clauses or step.block:
        span = step.clauses[0].span if step.clauses else step.head.span
        scope.sink.error(
            "E0502",
            f"`{target.template.name.text}` is a template: it takes arguments only",
            span,
            help=f"write `{target.template.name.text}(name = value)`",
        )
        return POISON
    given: list[Argument] = []
    if subject is not None:
        given.append((None, *subject))
    inside = place if not place or place.endswith("/") else place + "/"
    given += arguments(args, scope, inside)
    return call_template(target, given, step.span, scope, place)
