"""Blocks: the fields of an operation, from its block, the file's ``defaults`` and the operation
itself.

Example: in ``finetune base on notes { epochs = 3 }`` of a file with ``defaults { lr = 1e-4 }`` the
step has ``epochs = 3`` and ``lr = 0.0001``; everything else is the operation's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recipelang.diagnostics import Label, RecipeError, Span
from recipelang.language import forms, syntax
from recipelang.language.fields import Complaint, Owner, bare_word, convert, strip_groups
from recipelang.language.scope import Scope
from recipelang.language.suggest import ALIASES, did_you_mean, listed
from recipelang.language.values import POISON, Poison
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import FieldSpec, Operation
from recipelang.values import Attr, Form

__all__ = ["Given", "metric_verbs", "own_defaults", "read_block", "read_field"]

EXCLUSIVE = {"steps": "epochs", "epochs": "steps"}
"""A block that writes one of these is not given the other from ``defaults``."""


def read_field(spec: FieldSpec, value: syntax.Value, scope: Scope, owner: Owner) -> Attr | Poison:
    """The constant that the value writes for the field; a fault is reported, and gives poison."""
    bare = strip_groups(value)
    word = bare_word(bare)
    if word == "none" and spec.optional and "none" not in spec.choices:
        return None
    if forms.varies(bare):
        if spec.per_tensor:
            return forms.read_varying(spec, bare, scope, owner, read_field)
        scope.sink.error(
            "E0515",
            f"`{spec.name}` is one value for the whole model",
            value.span,
            label="varies by tensor",
            help="`gradient` and `per` stand where an operation works tensor by tensor",
        )
        return POISON
    match spec.kind:
        case "text" if word is not None and word in spec.choices:
            return word
        case "list" if word is not None and spec.item is not None and word in spec.item.choices:
            return (word,)
        case "choice" if word is not None:
            return _member(spec, word, bare, scope, owner)
        case "form":
            return forms.read_form(spec, bare, scope, owner, read_field)
        case "metrics":
            return _metrics(spec, bare, scope, owner)
        case "list" if isinstance(bare, syntax.ListOf) and spec.item is not None:
            item = spec.item
            read = [read_field(item, inner, scope, owner) for inner in bare.items]
            kept = tuple(inner for inner in read if not isinstance(inner, Poison))
            return kept if len(kept) == len(read) else POISON
        case _:
            return convert(spec, scope.evaluate(bare), value.span, scope, owner)


def _member(
    spec: FieldSpec, word: str, value: syntax.Value, scope: Scope, owner: Owner
) -> Attr | Poison:
    """A bare word in a field of an enumeration: a member wins over a binding of that name."""
    if word in spec.choices:
        return word
    if scope.holder(word) is not None:
        return convert(spec, scope.evaluate(value), value.span, scope, owner)
    return Complaint(spec, POISON, value.span, scope, owner).choice(word)


def metric_verbs() -> list[str]:
    """The verbs that give a measured value, for suggestions."""
    found: list[str] = []
    for verb in verbs():
        try:
            operation = lookup(verb)
        except RecipeError:  # a plug-in that fails is told where it is used
            continue
        if operation is not None and operation.result == "Measured":
            found.append(verb)
    return found


def _metrics(spec: FieldSpec, value: syntax.Value, scope: Scope, owner: Owner) -> Attr | Poison:
    items = value.items if isinstance(value, syntax.ListOf) else (value,)
    if not items:
        scope.sink.error(
            "E0506",
            f"`{spec.name}` of `{owner.name}` needs a metric, found an empty list",
            value.span,
            help=f"name one at least, such as `{spec.name} = [perplexity]`",
            secondary=(Label(owner.span, f"`{owner.name}` takes `{spec.name}`"),),
        )
        return POISON
    names: list[str] = []
    for item in items:
        word = bare_word(item)
        operation = lookup(word) if word else None
        if word is None or operation is None or operation.result != "Measured":
            found = f"`{word}`" if word else "this"
            help = did_you_mean(word or "", metric_verbs())
            scope.sink.error(
                "E0512",
                f"{found} is not a metric",
                item.span,
                help=help,
                secondary=(Label(owner.span, f"`{owner.name}` takes `{spec.name}`"),),
            )
        else:
            names.append(word)
    return tuple(names) if len(names) == len(items) else POISON


@dataclass
class Given:
    """The fields that a phrase has, with the places they were written at."""

    values: dict[str, Attr] = field(default_factory=dict[str, Attr])
    spans: dict[str, Span] = field(default_factory=dict[str, Span])
    sound: bool = True

    def put(self, name: str, value: Attr | Poison, span: Span) -> None:
        """Keep a field; poison makes the whole unsound."""
        self.spans[name] = span
        if isinstance(value, Poison):
            self.sound = False
        else:
            self.values[name] = value


def read_block(
    operation: Operation, block: syntax.Block | None, scope: Scope, owner: Owner, given: Given
) -> None:
    """Read the fields of a block, then those that ``defaults`` fills."""
    for row in block.fields if block else ():
        name = row.name.text
        spec = operation.field(name)
        if row.quoted or spec is None or not spec.block:
            _refuse(operation, row, spec, scope, owner)
            given.sound = False
        elif name in given.spans:
            scope.sink.error(
                "E0507",
                f"`{name}` is given twice",
                row.name.span,
                secondary=(Label(given.spans[name], "here first"),),
                help="keep one of the two",
            )
            given.sound = False
        else:
            given.put(name, read_field(spec, row.value, scope, owner), row.value.span)
    _fill_from_defaults(operation, scope, owner, given)


def _fill_from_defaults(operation: Operation, scope: Scope, owner: Owner, given: Given) -> None:
    context = scope.file
    if not context.defaults:
        return
    files = scope
    while files.parent is not None:
        files = files.parent
    written = set(given.spans)
    for spec in operation.fields:
        if not spec.block:
            continue
        context.legal.add(spec.name)
        row = context.defaults.get(spec.name)
        if row is None:
            continue
        context.read.add(spec.name)
        if spec.name in written or spec.draws or EXCLUSIVE.get(spec.name) in written:
            continue
        given.put(spec.name, read_field(spec, row.value, files, owner), row.value.span)


def own_defaults(operation: Operation, given: Given, owner: Owner) -> Mapping[str, Attr]:
    """The fields with the operation's own settings spelled out: ``lora`` is ``lora(rank = 16,
    ...)``."""
    values = dict(given.values)
    for spec in operation.fields:
        if spec.forms is None:
            continue
        value = values.get(spec.name, spec.default if isinstance(spec.default, Form) else None)
        if isinstance(value, Form):
            values[spec.name] = forms.complete(spec, value, owner.fields)
    return values


def _of_a_setting(operation: Operation, name: str) -> str:
    """Where an argument of a setting is written: ``adapter = lora(rank = ...)``; else empty."""
    for spec in operation.fields:
        for form in forms.form_names(spec.forms) if spec.forms else ():
            known = forms.schema(spec.forms, form) if spec.forms else None
            if known and any(argument.name == name for argument in known.fields):
                return f"{spec.name} = {form}({name} = ...)"
    return ""


def _refuse(
    operation: Operation, row: syntax.Field, spec: FieldSpec | None, scope: Scope, owner: Owner
) -> None:
    """A field that the block of this operation does not take."""
    name = row.name.text
    verb = operation.verb
    if spec is not None and spec.per_input:
        scope.sink.error(
            "E0510",
            f"`{name}` stands on the inputs of `{verb}`, not in its block",
            row.name.span,
            help=f"write it on each input: `x({name} = ...)`",
            secondary=(Label(owner.span, f"`{verb}` takes `{name}`: {spec.doc}"),),
        )
        return
    if spec is not None:
        words = listed(spec.prepositions) if any(spec.prepositions) else "the verb"
        scope.sink.error(
            "E0501", f"`{name}` is written in the phrase, behind {words}", row.name.span
        )
        return
    legal = [f.name for f in operation.fields if f.block]
    clause = next((o for o in operation.operands if o.name == name or name in o.prepositions), None)
    help = did_you_mean(name, legal, f"`{verb}` takes {listed(legal)}" if legal else "")
    inner = _of_a_setting(operation, name)
    if inner and name not in ALIASES:
        help = f"it belongs to `{inner}`"
    if clause is not None:
        word = next((p for p in clause.prepositions if p), "")
        help = (
            f"it stands in the phrase: `{verb} ... {word} x`" if word else "it stands in the phrase"
        )
    scope.sink.error(
        "E0501",
        f"`{verb}` has no field `{name}`",
        row.name.span,
        help=help,
        notes=(f"`recipe ops {verb}` lists its fields",),
    )
