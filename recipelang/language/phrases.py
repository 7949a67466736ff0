"""Verb phrases: ``distill teacher into small on notes { steps = 2k }`` becomes a step of the graph.

Phrases carry things with lineage, blocks carry constants. Each preposition finds its operand or its
constant by the verb's declaration; a list is spliced where an operand takes several.

Example: ``student(weight = 0.6) -> ties-merge with chat(weight = 0.4)`` is one step whose role
``inputs`` holds both models and whose field ``weight`` is the tuple ``(0.6, 0.4)``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from recipelang.diagnostics import RecipeError, Span
from recipelang.ir.build import inputs_role
from recipelang.ir.graph import Node
from recipelang.ir.score import score_of
from recipelang.language import metrics, syntax
from recipelang.language.adapters import apply_adapters, declared_base, warn_other_base
from recipelang.language.blocks import own_defaults, read_block
from recipelang.language.clauses import (
    Clauses,
    Input,
    Phrase,
    fill_constant,
    fill_operand,
    read_clauses,
)
from recipelang.language.contexts import warn_of_length
from recipelang.language.fields import Owner
from recipelang.language.inputs import per_input_fields
from recipelang.language.patterns import hidden, matches, unmatched
from recipelang.language.remarks import remark_on_weights
from recipelang.language.report import report_fault
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean
from recipelang.language.values import (
    POISON,
    Elaborated,
)
from recipelang.ops.spec import REQUIRED, Fault, Mark, Operation
from recipelang.program import nodes_of
from recipelang.types import ModelType
from recipelang.values import Attr, Form
from recipelang.weights.compatibility import model_of

__all__ = ["elaborate_phrase"]


def elaborate_phrase(
    operation: Operation, step: syntax.Step, scope: Scope, place: str,
    subject: tuple[Elaborated, Span] | None = None,
) -> Elaborated:  # fmt: skip
    """The step that the phrase stands for; faults are reported, and give poison."""
    phrase = Phrase(operation, step, scope, place, subject)
    owner = Owner(operation.verb, step.head.span, frozenset(f.name for f in operation.fields))
    clauses = read_clauses(phrase)
    for operand in operation.operands:
        if not operand.metric:
            fill_operand(phrase, operand, clauses)
    for spec in operation.fields:
        if spec.prepositions:
            fill_constant(phrase, spec, clauses, owner)
    read_block(operation, step.block, scope, owner, phrase.given)
    inputs = inputs_role(operation)
    per_input_fields(
        operation,
        [i.attached for i in phrase.inputs.get(inputs.name, [])] if inputs else [],
        phrase.given,
        owner,
        scope,
    )
    _refuse_attached(phrase, inputs.name if inputs else "")
    if phrase.given.sound:
        apply_adapters(phrase)
    if any(operand.metric for operand in operation.operands):
        return _choose(phrase, clauses, owner)
    if not phrase.given.sound:
        return POISON
    made = _build(phrase, own_defaults(operation, phrase.given, owner))
    _check_patterns(phrase, made)
    return made if phrase.given.sound else POISON


def _build(phrase: Phrase, fields: Mapping[str, Attr]) -> Elaborated:
    """Make the step; what its type rule complains of is reported at the right place."""
    if not phrase.given.sound:
        return POISON
    roles = {name: [i.node for i in inputs] for name, inputs in phrase.inputs.items()}
    builder = phrase.scope.builder
    owner = phrase.place if phrase.place.endswith("/") else ""
    try:
        node = builder.step(phrase.operation, roles, fields, phrase.step.span, owner)
    except Fault as fault:
        report_fault(fault, phrase.scope.sink, phrase.head, _spans(phrase))
        return POISON
    except RecipeError as error:
        report_fault(error, phrase.scope.sink, _source_span(phrase), _spans(phrase))
        return POISON
    if node.op == "adapter-of" and not _has_adapter(node.inputs[0]):
        phrase.error(
            "E0612",
            "this model was not trained with an adapter",
            phrase.inputs["model"][0].span,
            help="train with `adapter = lora(rank = 16)`, or publish the model itself",
        )
        return POISON
    _warn_of_files(phrase, node)
    _warn_unpinned(phrase, fields)
    _warn_other_base(phrase, node)
    remark_on_weights(phrase, node)
    warn_of_length(phrase, node)
    base = builder.inferred.get(node)
    if base is not None and any(base is n for name in roles for n in roles[name]):
        name = builder.name(base)
        phrase.scope.sink.warning(
            "W0601",
            f"the base found for `{phrase.verb}` is `{name}`, which is also an input",
            phrase.head,
            help=f"write `from {name}` if that is meant, or name the base",
            notes=("an input that is the base has a task vector of zeros",),
        )
    return node


def _warn_of_files(phrase: Phrase, node: Node) -> None:
    """What the reader of a source's files has to tell."""
    if phrase.operation.kind != "source" or not isinstance(node.type, ModelType):
        return
    for remark in node.type.remarks:
        place = _source_span(phrase)
        phrase.scope.sink.warning(remark.code, remark.message, place, help=remark.help)


def _has_adapter(model: Node) -> bool:
    """Whether the model is kept as a base and a low-rank update, as far as can be told."""
    if model.op == "best":
        return all(_has_adapter(candidate) for candidate in model.role("of"))
    return model.op == "parameter" or isinstance(model.attr("adapter"), Form)


def _warn_other_base(phrase: Phrase, node: Node) -> None:
    """An adapter that says that it was trained on another model than it is said to adapt."""
    role = {"adapter": "base", "apply": "model"}.get(node.op, "")
    adapter = node.one("adapter") if node.op == "apply" else node
    base = node.one(role)
    declared = declared_base(adapter) if node.op == "apply" and adapter else None
    if adapter is not None and base is not None and base is not declared:
        span = phrase.inputs[role][0].span
        warn_other_base(adapter, base, span, phrase.scope.builder, phrase.scope.sink)


def _warn_unpinned(phrase: Phrase, fields: Mapping[str, Attr]) -> None:
    """A Hub repository without a commit may change under the recipe."""
    located = [f.name for f in phrase.operation.fields if f.location]
    uris = [name for name in located if str(fields.get(name, "")).startswith("hf:")]
    if uris and fields.get("revision") is None and phrase.operation.field("revision"):
        phrase.scope.sink.warning(
            "W0703",
            f"`{fields[uris[0]]}` is not pinned to a commit",
            phrase.given.spans[uris[0]],
            help='write the commit behind it: `at "..."`, as the page of the repository shows it',
            notes=("the lock file records what was resolved",),
        )


def _spans(phrase: Phrase) -> dict[str, Span]:
    """The places of roles, their items and fields, as faults of type rules name them."""
    spans = dict(phrase.given.spans)
    for role, inputs in phrase.inputs.items():
        for index, item in enumerate(inputs):
            spans.setdefault(role, item.span)
            spans[f"{role}[{index}]"] = item.span
    return spans


def _source_span(phrase: Phrase) -> Span:
    """Where a fault of files belongs: the location that the phrase names, else its verb."""
    places = (phrase.given.spans.get(f.name) for f in phrase.operation.fields if f.location)
    return next((span for span in places if span), phrase.head)


def _refuse_attached(phrase: Phrase, inputs: str) -> None:
    """Parameters on operands that are not the verb's inputs."""
    for role, items in phrase.inputs.items():
        for item in items:
            if item.attached and role != inputs:
                phrase.error(
                    "E0510", f"`{role}` of `{phrase.verb}` takes no parameters", item.attached.span
                )


def _check_patterns(phrase: Phrase, made: Elaborated) -> None:
    """Patterns of ``per`` that match no tensor of the result; of a merge that is at fault, none of
    its first model."""
    nodes = [made] if isinstance(made, Node) else []
    if not nodes and phrase.operation.takes_layers:
        nodes = [i.node for items in phrase.inputs.values() for i in items]
    tensors = model_of(nodes[0].type).tensors if nodes else None
    if tensors is None:
        return
    for spec in phrase.operation.fields:
        value = phrase.given.values.get(spec.name) if spec.per_tensor else None
        for form in value if isinstance(value, tuple) else (value,):
            if isinstance(form, Form) and form.name == "per":
                patterns = [name for name, _ in form.args]
                _check_per(phrase, spec.name, patterns, tensors)
                if isinstance(spec.default, Mark) and spec.default is REQUIRED:
                    _check_rest(phrase, spec.name, patterns, tensors)


def _check_per(phrase: Phrase, field: str, patterns: list[str], tensors: Collection[str]) -> None:
    """E0514 for a pattern without a tensor, or one that earlier patterns leave none."""
    for pattern in unmatched(patterns, tensors):
        parts = dict.fromkeys(p for n in tensors for p in n.split(".") if not p.isdigit())
        message = f"the pattern `{pattern}` matches no tensor"
        help = did_you_mean(pattern, parts)
        phrase.error("E0514", message, _pattern_span(phrase, field, pattern), help=help)
    for pattern, first in hidden(patterns, tensors).items():
        message = f"the pattern `{pattern}` is never reached: `{first}` takes what it matches"
        help = "the first match wins: put the narrower pattern first"
        phrase.error("E0514", message, _pattern_span(phrase, field, pattern), help=help)


def _check_rest(phrase: Phrase, field: str, patterns: list[str], tensors: Collection[str]) -> None:
    """E0503 for tensors that no pattern names, where the field has no default for them."""
    rest = [name for name in tensors if not any(matches(pattern, name) for pattern in patterns)]
    if rest:
        more = f" and {len(rest) - 1} more tensors" if len(rest) > 1 else ""
        message = f"`{field}` has no value for `{rest[0]}`{more}, which no pattern matches"
        span = phrase.given.spans.get(field, phrase.head)
        phrase.error("E0503", message, span, help='end it with a row for the rest: `"*" = ...`')


def _pattern_span(phrase: Phrase, field: str, pattern: str) -> Span:
    """Where the pattern is written: on an input or in the block; else the field's value."""
    attached = (i.attached for items in phrase.inputs.values() for i in items if i.attached)
    args = (arg for item in attached for arg in item.args if arg.name and arg.name.text == field)
    whole = phrase.given.spans.get(field, phrase.head)
    for span in (*(arg.value.span for arg in args), whole):
        start = span.source.text.find(f'"{pattern}"', span.start, span.end)
        if start >= 0:
            return Span(span.source, start, start + len(pattern) + 2)
    return whole


# ---------------------------------------------------------------- best ... by


def _choose(phrase: Phrase, clauses: Clauses, owner: Owner) -> Elaborated:
    """``best of LIST by METRIC over D``: one measure a candidate."""
    operand = next(o for o in phrase.operation.operands if o.metric)
    candidates_role = inputs_role(phrase.operation)
    assert candidates_role is not None
    word = next((w for w in operand.prepositions if w), "by")
    written = clauses.values.get(word, ())
    if len(written) != 1:
        code = "E0508" if written else "E0506"
        phrase.error(
            code,
            f"`{phrase.verb}` needs one metric behind `{word}`",
            written[1].span if written else phrase.head,
            help=did_you_mean("", (), f"write `{word} perplexity`"),
        )
    candidates = phrase.inputs.get(candidates_role.name, [])
    over = [
        i for role, items in phrase.inputs.items() if role != candidates_role.name for i in items
    ]
    if not phrase.given.sound:
        return POISON
    measured = metrics.measure_each(
        written[0],
        [(i.node, i.span) for i in candidates],
        [(i.node, i.span) for i in over],
        phrase.scope,
        "",
    )
    if measured is None:
        return POISON
    measures, direction = measured
    if phrase.operation.kind == "search":
        indirect = metrics.indirect_measure(measures, [i.node for i in candidates])
        if indirect is not None:
            phrase.error(
                "E0670",
                f"`{phrase.verb}` measures means of candidates, and this metric takes "
                f"`{indirect.op}` of something made of one",
                written[0].span,
                help="measure the template's model itself, on data that do not depend on it",
            )
            return POISON
    nodes = [node for each in measures for node in nodes_of(each)]
    phrase.inputs = {
        candidates_role.name: candidates,
        operand.name: [Input(node, written[0].span) for node in nodes],
    }
    own = own_defaults(phrase.operation, phrase.given, owner)
    fields: dict[str, Attr] = {**own, "direction": direction}
    if not isinstance(measures[0], Node):
        fields["score"] = score_of(measures[0])
    return _build(phrase, fields)
