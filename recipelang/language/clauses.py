"""The clauses of a phrase: what stands behind the verb and behind each preposition.

A preposition stands once, takes as many things as the verb declares, each of the declared type; a
list is spliced where several are taken.

Example: in ``distill teacher into small on notes`` the roles are ``teachers`` (the subject),
``into`` and ``data``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from recipelang.diagnostics import Label, Span
from recipelang.ir.build import inputs_role
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.blocks import Given, read_field
from recipelang.language.fields import Owner, strip_groups
from recipelang.language.scope import Scope
from recipelang.language.suggest import listed
from recipelang.language.values import (
    Attached,
    Elaborated,
    ManyOf,
    Opaque,
    article,
    describe,
    is_poison,
)
from recipelang.ops.spec import FieldSpec, OperandSpec, Operation
from recipelang.types import LayersType, SplitType, type_name

__all__ = ["Clauses", "Input", "Phrase", "fill_constant", "fill_operand", "inside", "read_clauses"]


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

    def error(self, code: str, message: str, span: Span, help: str = "", label: str = "") -> None:
        """Report a fault of this phrase, which then has no value."""
        verb = Label(self.head, f"of this `{self.verb}`")
        secondary = (verb,) if span != self.head else ()
        self.scope.sink.error(code, message, span, secondary=secondary, help=help, label=label)
        self.given.sound = False


@dataclass(frozen=True, slots=True)
class Clauses:
    """What stands behind each preposition: ``""`` is the subject. ``chained`` comes from an
    arrow."""

    values: dict[str, tuple[syntax.Value, ...]]
    spans: dict[str, Span]
    chained: tuple[Elaborated, Span] | None


def _legal(operation: Operation) -> list[str]:
    """The prepositions that the verb takes, ``""`` for a subject."""
    owners: Iterable[OperandSpec | FieldSpec] = (*operation.operands, *operation.fields)
    return list(dict.fromkeys(p for owner in owners for p in owner.prepositions))


def read_clauses(phrase: Phrase) -> Clauses:
    step = phrase.step
    legal = _legal(phrase.operation)
    values: dict[str, tuple[syntax.Value, ...]] = {}
    spans: dict[str, Span] = {}
    subject = step.subject.span if step.subject else None
    if phrase.subject and step.subject:
        phrase.error(
            "E0516",
            f"`{phrase.verb}` has two subjects",
            step.subject.span,
            help="the arrow brings the subject already: write this one in a clause",
        )
    elif "" not in legal and (phrase.subject or step.subject):
        _no_subject(phrase, legal, subject or step.head.span)
    elif step.subject:
        values[""], spans[""] = (step.subject,), step.subject.span
    for clause in step.clauses:
        word = clause.preposition.text
        if word not in legal:
            _unknown_clause(phrase, clause, legal)
        elif word in values:
            phrase.error(
                "E0507",
                f"`{word}` stands twice",
                clause.preposition.span,
                help="join what belongs to it: `x and y`",
            )
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
    help = dict(phrase.operation.refuses).get(word, help)
    phrase.error("E0502", f"`{phrase.verb}` takes no `{word}`", clause.preposition.span, help=help)
    for operand in clause.operands:
        phrase.scope.evaluate(operand)


def inside(phrase: Phrase) -> str:
    """The place of steps that stand unnamed inside this phrase."""
    return phrase.place if phrase.place.endswith("/") or not phrase.place else phrase.place + "/"


def fill_operand(phrase: Phrase, operand: OperandSpec, clauses: Clauses) -> None:
    items: list[Input] = []
    sound = True
    found = False
    for word in sorted(operand.prepositions, key=bool):
        values: list[tuple[Elaborated, Spans]] = []
        if word == "" and clauses.chained:
            values.append((clauses.chained[0], Spans(clauses.chained[1], word)))
        for written in clauses.values.get(word, ()):
            value = phrase.scope.evaluate(written, inside(phrase))
            values.append((value, _spans_of(written, word)))
        for value, spans in values:
            found = True
            spliced = _splice(phrase, operand, value, spans)
            sound = sound and spliced is not None
            items += spliced or []
    if not sound:
        phrase.given.sound = False
    elif not found or not items:
        required = not (operand.optional or operand.by_origin)
        if any(o.metric for o in phrase.operation.operands):
            required = operand is inputs_role(
                phrase.operation
            )  # the metric says what data it needs
        if required:
            _missing(phrase, operand, found)
        return
    alone = len(items) == 1 and _merges_alone(phrase.operation, operand, clauses)
    if sound and alone and not phrase.misplaced:
        word = next(word for word in operand.prepositions if word)
        message = f"`{phrase.verb}` needs `{word}`: a merge takes two models or more"
        phrase.error("E0506", message, phrase.head, help=f"add `{word} x`")
    if len(items) > 1 and not operand.many:
        phrase.error(
            "E0508",
            f"`{_written(operand)}` of `{phrase.verb}` takes one, found {len(items)}",
            items[1].span,
            help="keep one of them",
        )
    phrase.inputs[operand.name] = items


def _merges_alone(operation: Operation, operand: OperandSpec, clauses: Clauses) -> bool:
    """Whether one input makes no merge. With a base that is written, its task vector is merged."""
    if not operation.takes_layers or not {"", "with"} <= set(operand.prepositions):
        return False
    bases = [word for o in operation.operands if o.by_origin for word in o.prepositions]
    return operand.many and not any(word in clauses.values for word in bases)


@dataclass(frozen=True, slots=True)
class Spans:
    """Where an operand stands, behind which word, and where the items of a literal list stand."""

    whole: Span
    word: str
    items: tuple[Span, ...] = ()

    def item(self, index: int) -> Spans:
        """Of an item of the list."""
        return replace(self, whole=self.items[index], items=()) if self.items else self


def _spans_of(written: syntax.Value, word: str) -> Spans:
    bare = strip_groups(written)
    items = tuple(item.span for item in bare.items) if isinstance(bare, syntax.ListOf) else ()
    return Spans(written.span, word, items)


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
        phrase.error(
            "E0506", f"`{phrase.verb}` needs {kind}, found an empty list", phrase.head,
            help="name one at least",
        )  # fmt: skip
        return
    subject = "" in operand.prepositions
    what = "its subject" if subject else f"`{word}`"
    help = f"write `{phrase.verb} x`, or `x -> {phrase.verb}`" if subject else f"add `{word} x`"
    phrase.error("E0506", f"`{phrase.verb}` needs {what}{doc}", phrase.head, help=help, label=kind)


def _splice(
    phrase: Phrase, operand: OperandSpec, value: Elaborated, spans: Spans
) -> list[Input] | None:
    """The steps of an operand; a list is spliced where several are taken. None when at fault."""
    if is_poison(value) or (isinstance(value, Opaque) and operand.many):
        return None
    attached = value if isinstance(value, Attached) else None
    inner = attached.value if attached else value
    if isinstance(inner, ManyOf) and operand.many:
        if attached:
            phrase.error(
                "E0510",
                "parameters stand on one input, not on a list",
                attached.span,
                help="write them on each item: `[a(weight = 0.4), b(weight = 0.6)]`",
            )
            return None
        spliced = [
            _splice(phrase, operand, item, spans.item(i)) for i, item in enumerate(inner.items)
        ]
        if any(items is None for items in spliced):
            return None
        return [item for items in spliced for item in items or []]
    if not isinstance(inner, Node) or not _fits(phrase.operation, operand, inner):
        _wrong_type(phrase, operand, inner, spans)
        return None
    return [Input(inner, spans.whole, attached)]


def _fits(operation: Operation, operand: OperandSpec, node: Node) -> bool:
    """Whether the type is one that the operand takes. An adapter is taken for a Delta, and among
    several models of one result for its base with it in it."""
    wanted, found = operation.accepted(operand), type_name(node.type)
    one_result = operation.kind in ("weights", "evaluate", "search")
    applied = operand.many and one_result and "Model" in wanted
    return found in wanted or (found == "Adapter" and ("Delta" in wanted or applied))


def _wrong_type(phrase: Phrase, operand: OperandSpec, value: Elaborated, spans: Spans) -> None:
    wanted = article(operand.type.replace("|", " or "))
    help = ""
    if isinstance(value, Node) and isinstance(value.type, SplitType):
        help = "write `.train` or `.holdout` behind it"
    elif isinstance(value, ManyOf):
        help = f"`{phrase.verb}` takes one here: write `[{phrase.verb} ... for x in list]` for each"
    elif isinstance(value, Node) and isinstance(value.type, LayersType):
        help = "layers are merged with layers, and `stack` makes a model of them"
    elif operand.metric:
        help = "name a metric"
    where = f"{f'`{spans.word}`' if spans.word else 'the subject'} of `{phrase.verb}`"
    phrase.error(
        "E0301",
        f"{where} is {wanted}, found {describe(value)}",
        spans.whole,
        label=f"expected {wanted}",
        help=help,
    )


def fill_constant(phrase: Phrase, spec: FieldSpec, clauses: Clauses, owner: Owner) -> None:
    """A constant that the phrase writes: the URI of a source, a revision."""
    for word in spec.prepositions:
        if word == "" and clauses.chained:
            phrase.error(
                "E0301",
                f"`{phrase.verb}` takes a text here, found {describe(clauses.chained[0])}",
                clauses.chained[1],
                help=f'write `{phrase.verb} "..."`',
            )
        written = clauses.values.get(word, ())
        if len(written) > 1:
            phrase.error(
                "E0508", f"`{word or spec.name}` takes one value", written[1].span, help="keep one"
            )
        for value in written[:1]:
            phrase.given.put(spec.name, read_field(spec, value, phrase.scope, owner), value.span)
