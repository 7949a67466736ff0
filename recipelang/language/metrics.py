"""Metrics as operands: ``best of teachers by evals.exam_score over dev``.

A metric is a verb that gives ``Measured``, or a template that does; it is applied to each
candidate.

Example: ``by perplexity over dev`` makes the step ``perplexity of c on dev`` for each candidate
``c``. A template may give arithmetic over several measures: the mean over two datasets.
"""

from __future__ import annotations

from collections.abc import Sequence

from recipelang.diagnostics import RecipeError, Span
from recipelang.ir.graph import Node
from recipelang.ir.score import direction_of, score_of
from recipelang.language import syntax
from recipelang.language.blocks import Given, metric_verbs, own_defaults, read_block
from recipelang.language.fields import Owner, strip_groups
from recipelang.language.report import report_fault
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean
from recipelang.language.templates import Argument, arguments, call_template
from recipelang.language.values import TemplateValue, describe, is_measured, is_poison
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault, Operation
from recipelang.program import Arithmetic, MeasuredExpr, nodes_of

__all__ = ["indirect_measure", "measure_each"]

Placed = tuple[Node, Span]


def measure_each(
    metric: syntax.Value,
    candidates: Sequence[Placed],
    over: Sequence[Placed],
    scope: Scope,
    place: str,
) -> tuple[list[MeasuredExpr], str] | None:
    """A measure for each candidate, and the metric's direction; None when something is at fault."""
    metric = strip_groups(metric)
    callee, args = (metric.callee, metric.args) if isinstance(metric, syntax.Call) else (metric, ())
    measures: Sequence[MeasuredExpr] | None = None
    if isinstance(callee, syntax.Ref):
        named = scope.evaluate(callee) if scope.holder(callee.parts[0].text) else None
        if named is not None and is_poison(named):
            return None
        template = named if isinstance(named, TemplateValue) else None
        operation = lookup(callee.text) if template is None and len(callee.parts) == 1 else None
        if template is not None:
            measures = _by_template(template, args, callee, candidates, over, scope, place)
            return _directed(measures, callee, scope)
        if operation is not None and operation.result == "Measured":
            measures = _by_verb(operation, args, callee, candidates, over, scope, place)
            return _directed(measures, callee, scope)
    text = callee.text if isinstance(callee, syntax.Ref) else ""
    scope.sink.error(
        "E0512",
        f"`{text}` is not a metric" if text else "this is not a metric",
        callee.span,
        help=did_you_mean(text, metric_verbs()),
    )
    return None


def indirect_measure(measures: Sequence[MeasuredExpr], candidates: Sequence[Node]) -> Node | None:
    """The first measure that is no constant and not of its candidate alone (but of a model or data
    made of it), so that another model cannot be measured in the candidate's place."""
    rows = [nodes_of(each) for each in measures]
    for place in range(len(rows[0])):
        column = [row[place] for row in rows]
        if len(set(column)) == 1:
            continue
        for measure, candidate in zip(column, candidates, strict=True):
            rest = [nodes for role, nodes in measure.operands if role != "model"]
            first = [nodes for role, nodes in column[0].operands if role != "model"]
            if measure.one("model") is not candidate or rest != first:
                return measure
    return None


def _directed(
    measures: Sequence[MeasuredExpr] | None, callee: syntax.Ref, scope: Scope
) -> tuple[list[MeasuredExpr], str] | None:
    if not measures:
        return None
    direction = direction_of(measures[0])
    if direction and all(score_of(m) == score_of(measures[0]) for m in measures):
        return list(measures), direction
    scope.sink.error(
        "E0512",
        f"`{callee.text}` does not say which candidate is better",
        callee.span,
        help="join measures that are better in one direction, the same way for every candidate",
    )
    return None


def _by_template(
    template: TemplateValue, args: tuple[syntax.Arg, ...], callee: syntax.Ref,
    candidates: Sequence[Placed], over: Sequence[Placed], scope: Scope, place: str,
) -> list[MeasuredExpr] | None:  # fmt: skip
    """Call the template on each candidate: its first model, and its first datasets, are the
    operands."""
    params = template.template.params
    extra = arguments(args, scope, place)
    named = {name for name, _, _ in extra}
    free = [p for p in params if p.name.text not in named]
    models = [p.name.text for p in free if p.type.name.text == "Model"]
    datasets = [p.name.text for p in free if p.type.name.text == "Dataset"]
    if not models or len(datasets) < len(over):
        what = "a model" if not models else f"{len(over)} datasets"
        scope.sink.error(
            "E0512",
            f"`{callee.text}` does not take {what}",
            callee.span,
            help="a metric takes the candidate, and what stands behind `over`",
        )
        return None
    measures: list[MeasuredExpr] = []
    for node, span in candidates:
        given: list[Argument] = [(models[0], node, span)]
        given += [(name, n, s) for name, (n, s) in zip(datasets, over, strict=False)]
        found = call_template(template, [*given, *extra], callee.span, scope, place)
        if is_poison(found):
            return None
        if not isinstance(found, Node | Arithmetic) or not is_measured(found):
            scope.sink.error(
                "E0512",
                f"`{callee.text}` gives {describe(found)}, and a choice needs a measure",
                callee.span,
                help="give a metric, such as `accuracy of m on d`, or arithmetic over metrics",
            )
            return None
        measures.append(found)
    return measures


def _by_verb(
    operation: Operation, args: tuple[syntax.Arg, ...], callee: syntax.Ref,
    candidates: Sequence[Placed], over: Sequence[Placed], scope: Scope, place: str,
) -> list[Node] | None:  # fmt: skip
    """Make the metric's step for each candidate."""
    models = [o for o in operation.operands if "Model" in o.type.split("|")]
    data = [o for o in operation.operands if "Dataset" in o.type.split("|")]
    wanted = sum(not o.optional for o in data)
    if not models or len(over) < wanted or (over and not data):
        help = "add `over DATASET`" if wanted else "leave `over` out"
        scope.sink.error(
            "E0506" if wanted else "E0502",
            f"`{operation.verb}` measures {'on a dataset' if wanted else 'without data'}",
            callee.span,
            help=help,
        )
        return None
    owner = Owner(operation.verb, callee.span, frozenset(f.name for f in operation.fields))
    given = Given()
    rows = tuple(syntax.Field(a.name, False, a.value, a.span) for a in args if a.name)
    read_block(operation, syntax.Block(rows, callee.span), scope, owner, given)
    if not given.sound:
        return None
    fields = own_defaults(operation, given, owner)
    datasets = [n for n, _ in over]
    measures: list[Node] = []
    for node, span in candidates:
        roles = {models[0].name: [node]}
        if data:
            roles[data[0].name] = datasets
        try:
            measures.append(scope.builder.step(operation, roles, fields, callee.span, place))
        except (Fault, RecipeError) as fault:
            report_fault(fault, scope.sink, callee.span, {models[0].name: span})
            return None
    return measures
