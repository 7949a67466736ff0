"""Verb phrases: ``distill teacher into small on notes { steps = 2k }`` becomes a step of the graph.

Phrases carry things with lineage, blocks carry constants. Each preposition finds its operand or its
constant by the verb's declaration; a list is spliced where an operand takes several.

Example: ``student(weight = 0.6) -> ties-merge with chat(weight = 0.4)`` is one step whose role
``inputs`` holds both models and whose field ``weight`` is the tuple ``(0.6, 0.4)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recipelang.diagnostics import Label, RecipeError, Span
from recipelang.ir.build import inputs_role
from recipelang.ir.graph import Node
from recipelang.language import metrics, syntax
from recipelang.language.blocks import Given, own_defaults, read_block, read_field
from recipelang.language.fields import Owner
from recipelang.language.inputs import per_input_fields
from recipelang.language.patterns import unmatched
from recipelang.language.report import report_fault
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean, listed
from recipelang.language.values import (
    POISON,
    Attached,
    Elaborated,
    ManyOf,
    Opaque,
    article,
    describe,
    is_poison,
)
from recipelang.ops.spec import Fault, FieldSpec, OperandSpec, Operation
from recipelang.types import ModelType, SplitType, type_name
from recipelang.values import Attr, Form

__all__ = ["Input", "Phrase", "elaborate_phrase"]


@dataclass(frozen=True, slots=True)
class Input:
    """An operand: its step, the parameters attached to it, and where it was written."""

    node: Node
    span: Span
    attached: Attached | None = None


@dataclass
class Phrase:
    """A verb phrase while it is worked out. ``subject`` is a value from the left of an arrow."""

    operation: Operation
    step: syntax.Step
    scope: Scope
    place: str
    subject: tuple[Elaborated, Span] | None
    inputs: dict[str, list[Input]] = field(default_factory=dict[str, list[Input]])
    given: Given = field(default_factory=Given)
    misplaced: bool = False

    @property
    def verb(self) -> str:
        """The verb."""
        return self.operation.verb

    @property
    def head(self) -> Span:
        """Where the verb stands."""
        return self.step.head.span

    def error(self, code: str, message: str, span: Span, **more: str) -> None:
        """Report a fault of this phrase, which then has no value."""
        label = Label(self.head, f"of this `{self.verb}`")
        secondary = (label,) if span != self.head else ()
        self.scope.sink.error(code, message, span, secondary=secondary, **more)
        self.given.sound = False


def elaborate_phrase(
    operation: Operation, step: syntax.Step, scope: Scope, place: str,
    subject: tuple[Elaborated, Span] | None = None,
) -> Elaborated:  # fmt: skip
    """The step that the phrase stands for; faults are reported, and give poison."""
    phrase = Phrase(operation, step, scope, place, subject)
    owner = Owner(operation.verb, step.head.span, frozenset(f.name for f in operation.fields))
    clauses = _clauses(phrase)
    for operand in operation.operands:
        if not operand.metric:
            _fill_operand(phrase, operand, clauses)
    for spec in operation.fields:
        if spec.prepositions:
            _fill_constant(phrase, spec, clauses, owner)
    read_block(operation, step.block, scope, owner, phrase.given)
    inputs = inputs_role(operation)
    per_input_fields(
        operation, [i.attached for i in phrase.inputs.get(inputs.name, [])] if inputs else [],
        phrase.given, owner, scope,
    )  # fmt: skip
    _refuse_attached(phrase, inputs.name if inputs else "")
    if any(operand.metric for operand in operation.operands):
        return _choose(phrase, clauses)
    if not phrase.given.sound:
        return POISON
    _check_patterns(phrase)
    return _build(phrase, own_defaults(operation, phrase.given, owner))


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
    _warn_unpinned(phrase, fields)
    base = builder.inferred.get(node)
    if base is not None and any(base is n for name in roles for n in roles[name]):
        name = builder.name(base)
        phrase.scope.sink.warning(
            "W0601", f"the base found for `{phrase.verb}` is `{name}`, which is also an input",
            phrase.head, help=f"write `from {name}` if that is meant, or name the base",
            notes=("an input that is the base has a task vector of zeros",),
        )  # fmt: skip
    return node


def _warn_unpinned(phrase: Phrase, fields: Mapping[str, Attr]) -> None:
    """A Hub repository without a commit may change under the recipe."""
    located = [f.name for f in phrase.operation.fields if f.location]
    uris = [name for name in located if str(fields.get(name, "")).startswith("hf:")]
    if uris and fields.get("revision") is None and phrase.operation.field("revision"):
        phrase.scope.sink.warning(
            "W0703", f"`{fields[uris[0]]}` is not pinned to a commit", phrase.given.spans[uris[0]],
            help='write the commit behind it: `at "8faed761d45a263340a0528343f099c05c9a4323"`',
            notes=("the lock file records what was resolved",),
        )  # fmt: skip


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


# ---------------------------------------------------------------- clauses


@dataclass(frozen=True, slots=True)
class Clauses:
    """What stands behind each preposition: ``""`` is the subject. ``chained`` comes from an arrow."""

    values: dict[str, tuple[syntax.Value, ...]]
    spans: dict[str, Span]
    chained: tuple[Elaborated, Span] | None


def _legal(operation: Operation) -> list[str]:
    """The prepositions that the verb takes, ``""`` for a subject."""
    owners: Iterable[OperandSpec | FieldSpec] = (*operation.operands, *operation.fields)
    return list(dict.fromkeys(p for owner in owners for p in owner.prepositions))


def _clauses(phrase: Phrase) -> Clauses:
    step = phrase.step
    legal = _legal(phrase.operation)
    values: dict[str, tuple[syntax.Value, ...]] = {}
    spans: dict[str, Span] = {}
    subject = step.subject.span if step.subject else None
    if phrase.subject and step.subject:
        phrase.error("E0516", f"`{phrase.verb}` has two subjects", step.subject.span,
                     help="the arrow brings the subject already: write this one in a clause")  # fmt: skip
    elif "" not in legal and (phrase.subject or step.subject):
        _no_subject(phrase, legal, subject or step.head.span)
    elif step.subject:
        values[""], spans[""] = (step.subject,), step.subject.span
    for clause in step.clauses:
        word = clause.preposition.text
        if word not in legal:
            _unknown_clause(phrase, clause, legal)
        elif word in values:
            phrase.error("E0507", f"`{word}` stands twice", clause.preposition.span,
                         help="join what belongs to it: `x and y`")  # fmt: skip
        else:
            values[word], spans[word] = clause.operands, clause.span
    return Clauses(values, spans, phrase.subject if "" in legal else None)


def _no_subject(phrase: Phrase, legal: list[str], span: Span) -> None:
    phrase.misplaced = True
    first = next((word for word in legal if word), "")
    help = f"write `{phrase.verb} {first} x`" if first else f"`{phrase.verb}` takes a block alone"
    phrase.error("E0502", f"`{phrase.verb}` takes nothing right behind it", span, help=help)
    if phrase.step.subject:
        phrase.scope.evaluate(phrase.step.subject)


def _unknown_clause(phrase: Phrase, clause: syntax.Clause, legal: list[str]) -> None:
    phrase.misplaced = True
    word = clause.preposition.text
    words = [w for w in legal if w]
    taken = {w for c in phrase.step.clauses for w in [c.preposition.text]}
    free = [w for w in words if w not in taken]
    help = f"`{phrase.verb}` takes {listed(words, 'and')}" if words else ""
    if len(free) == 1:
        help = f"did you mean `{free[0]}`?"
    phrase.error("E0502", f"`{phrase.verb}` takes no `{word}`", clause.preposition.span, help=help)
    for operand in clause.operands:
        phrase.scope.evaluate(operand)


def _inner(phrase: Phrase) -> str:
    """The place of steps that stand unnamed inside this phrase."""
    return phrase.place if phrase.place.endswith("/") or not phrase.place else phrase.place + "/"


def _fill_operand(phrase: Phrase, operand: OperandSpec, clauses: Clauses) -> None:
    items: list[Input] = []
    sound = True
    found = False
    for word in sorted(operand.prepositions, key=bool):
        values: list[tuple[Elaborated, Span]] = []
        if word == "" and clauses.chained:
            values.append(clauses.chained)
        for written in clauses.values.get(word, ()):
            values.append((phrase.scope.evaluate(written, _inner(phrase)), written.span))
        for value, span in values:
            found = True
            spliced = _splice(phrase, operand, value, span)
            sound = sound and spliced is not None
            items += spliced or []
    if not sound:
        phrase.given.sound = False
    elif not found or not items:
        required = not (operand.optional or operand.by_origin)
        if any(o.metric for o in phrase.operation.operands):
            required = operand is inputs_role(phrase.operation)  # the metric says what data it needs
        if required:
            _missing(phrase, operand, found)
        return
    if len(items) > 1 and not operand.many:
        phrase.error(
            "E0508", f"`{_written(operand)}` of `{phrase.verb}` takes one {operand.type}, found {len(items)}",
            items[1].span,
        )  # fmt: skip
    phrase.inputs[operand.name] = items


def _written(operand: OperandSpec) -> str:
    """How the recipe refers to the operand: its preposition, else its name."""
    return next((word for word in operand.prepositions if word), "") or operand.name


def _missing(phrase: Phrase, operand: OperandSpec, empty: bool) -> None:
    if phrase.misplaced:
        return  # one fault, not two: the operand probably stands at the wrong place
    word = next((w for w in operand.prepositions if w), "")
    doc = f": {operand.doc}" if operand.doc else ""
    kind = article(operand.type.replace("|", " or "))
    if empty:
        phrase.error("E0506", f"`{phrase.verb}` needs {kind}, found an empty list", phrase.head)
        return
    subject = "" in operand.prepositions
    what = "its subject" if subject else f"`{word}`"
    help = f"write `{phrase.verb} x`, or `x -> {phrase.verb}`" if subject else f"add `{word} x`"
    phrase.error("E0506", f"`{phrase.verb}` needs {what}{doc}", phrase.head, help=help, label=kind)


def _splice(
    phrase: Phrase, operand: OperandSpec, value: Elaborated, span: Span
) -> list[Input] | None:
    """The steps of an operand; a list is spliced where several are taken. None when at fault."""
    if is_poison(value) or (isinstance(value, Opaque) and operand.many):
        return None
    attached = value if isinstance(value, Attached) else None
    inner = attached.value if attached else value
    if isinstance(inner, ManyOf) and operand.many:
        if attached:
            phrase.error("E0510", "parameters stand on one input, not on a list", attached.span,
                         help="write them on each item: `[a(weight = 0.4), b(weight = 0.6)]`")  # fmt: skip
            return None
        spliced = [_splice(phrase, operand, item, span) for item in inner.items]
        if any(items is None for items in spliced):
            return None
        return [item for items in spliced for item in items or []]
    if not isinstance(inner, Node) or not _fits(operand, inner):
        _wrong_type(phrase, operand, inner, span)
        return None
    return [Input(inner, span, attached)]


def _fits(operand: OperandSpec, node: Node) -> bool:
    wanted = operand.type.split("|")
    found = type_name(node.type)
    return found in wanted or (found == "Adapter" and "Delta" in wanted)


def _wrong_type(phrase: Phrase, operand: OperandSpec, value: Elaborated, span: Span) -> None:
    wanted = article(operand.type.replace("|", " or "))
    help = ""
    if isinstance(value, Node) and isinstance(value.type, SplitType):
        help = "write `.train` or `.holdout` behind it"
    elif isinstance(value, ManyOf):
        help = f"`{phrase.verb}` takes one here: write `[{phrase.verb} ... for x in list]` for each"
    elif operand.metric:
        help = "name a metric"
    where = f"`{_written(operand)}` of `{phrase.verb}`"
    phrase.error("E0301", f"{where} is {wanted}, found {describe(value)}", span,
                 label=f"expected {wanted}", help=help)  # fmt: skip


def _fill_constant(phrase: Phrase, spec: FieldSpec, clauses: Clauses, owner: Owner) -> None:
    """A constant that the phrase writes: the URI of a source, a revision."""
    for word in spec.prepositions:
        if word == "" and clauses.chained:
            phrase.error("E0301", f"`{phrase.verb}` takes a text here, found {describe(clauses.chained[0])}",
                         clauses.chained[1], help=f'write `{phrase.verb} "..."`')  # fmt: skip
        written = clauses.values.get(word, ())
        if len(written) > 1:
            phrase.error("E0508", f"`{word or spec.name}` takes one value", written[1].span)
        for value in written[:1]:
            phrase.given.put(spec.name, read_field(spec, value, phrase.scope, owner), value.span)


def _refuse_attached(phrase: Phrase, inputs: str) -> None:
    """Parameters on operands that are not the verb's inputs."""
    for role, items in phrase.inputs.items():
        for item in items:
            if item.attached and role != inputs:
                phrase.error(
                    "E0510", f"`{role}` of `{phrase.verb}` takes no parameters", item.attached.span
                )


def _check_patterns(phrase: Phrase) -> None:
    """Patterns of ``per`` that match no tensor of the model."""
    models = [
        i for items in phrase.inputs.values() for i in items if isinstance(i.node.type, ModelType)
    ]
    known = models[0].node.type if models else None
    if not isinstance(known, ModelType) or known.tensors is None:
        return
    for spec in phrase.operation.fields:
        if not spec.per_tensor or spec.name not in phrase.given.values:
            continue
        value = phrase.given.values[spec.name]
        for form in value if isinstance(value, tuple) else (value,):
            names = (
                [name for name, _ in form.args]
                if isinstance(form, Form) and form.name == "per"
                else []
            )
            for pattern in unmatched(names, known.tensors):
                parts = dict.fromkeys(
                    p for n in known.tensors for p in n.split(".") if not p.isdigit()
                )
                phrase.error("E0514", f"the pattern `{pattern}` matches no tensor",
                             phrase.given.spans[spec.name], help=did_you_mean(pattern, parts))  # fmt: skip


# ---------------------------------------------------------------- best ... by


def _choose(phrase: Phrase, clauses: Clauses) -> Elaborated:
    """``best of LIST by METRIC over D``: one measure a candidate."""
    operand = next(o for o in phrase.operation.operands if o.metric)
    candidates_role = inputs_role(phrase.operation)
    assert candidates_role is not None
    word = next((w for w in operand.prepositions if w), "by")
    written = clauses.values.get(word, ())
    if len(written) != 1:
        code = "E0508" if written else "E0506"
        phrase.error(code, f"`{phrase.verb}` needs one metric behind `{word}`",
                     written[1].span if written else phrase.head,
                     help=did_you_mean("", (), f"write `{word} perplexity`"))  # fmt: skip
    candidates = phrase.inputs.get(candidates_role.name, [])
    over = [
        i for role, items in phrase.inputs.items() if role != candidates_role.name for i in items
    ]
    if not phrase.given.sound:
        return POISON
    measured = metrics.measure_each(
        written[0], [(i.node, i.span) for i in candidates], [(i.node, i.span) for i in over],
        phrase.scope, "",
    )  # fmt: skip
    if measured is None:
        return POISON
    measures, direction = measured
    phrase.inputs = {
        candidates_role.name: candidates,
        operand.name: [Input(node, written[0].span) for node in measures],
    }
    return _build(phrase, {**phrase.given.values, "direction": direction})
