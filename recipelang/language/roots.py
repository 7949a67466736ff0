"""What a file asks for besides bindings: gates, publishes and the budget.

Example: ``require accuracy of student on exam >= 62%`` is a gate over one measure and a number.
"""

from __future__ import annotations

import os

from recipelang.diagnostics import Label
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.blocks import read_field
from recipelang.language.fields import Owner
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean
from recipelang.language.tokens import lex
from recipelang.language.values import (
    Attached,
    Elaborated,
    Opaque,
    Poison,
    Words,
    describe,
    is_measured,
    is_poison,
)
from recipelang.ops.spec import FieldSpec, Range
from recipelang.program import Arithmetic, Budget, GateRoot, MeasuredExpr, PublishRoot
from recipelang.types import AdapterType, LayersType, ModelType
from recipelang.values import Quantity, number_text

__all__ = ["budget", "constant_seed", "gate", "is_evaluation", "publish", "published"]

SHARES = ("accuracy",)
"""Metrics that lie in [0, 1]."""
_POSITIVE = Range(0, None, open_low=True)
BUDGET = {
    "wall": FieldSpec("wall", "float", "time of a whole run", None, ("seconds",), _POSITIVE),
    "memory": FieldSpec("memory", "int", "memory of the device", None, ("bytes",), _POSITIVE),
    "disk": FieldSpec("disk", "int", "space that the run may take", None, ("bytes",), _POSITIVE),
    "device": FieldSpec(
        "device", "quantity", "devices to plan for", None, ("gpu", "tpu", "cpu"), _POSITIVE
    ),
    "variants": FieldSpec(
        "variants", "int", "items that a list may have", 1000, (), Range(1, 10**6)
    ),
}
"""The fields of ``budget``."""

PUBLISH = {
    "overwrite": FieldSpec("overwrite", "bool", "replace a folder that is not its own", False),
    "token": FieldSpec("token", "secret", "the token of the place", None, optional=True),
}
"""The fields of ``publish``."""


# ---------------------------------------------------------------- gates


def gate(statement: syntax.Gate, scope: Scope) -> GateRoot | None:
    """The gate, or None when something in it is at fault."""
    left = _measured(statement.left, scope)
    right = _measured(statement.right, scope)
    if left is None or right is None or _never_a_share(statement, left, right, scope):
        return None
    if isinstance(left, int | float) and isinstance(right, int | float):
        scope.sink.error(
            "E0307",
            "this gate measures nothing",
            statement.left.span.to(statement.right.span),
            help="compare a metric: `accuracy of m on d >= 60%`",
        )
        return None
    span = statement.left.span.to(statement.right.span)
    text = _on_one_line(span.source.text[span.start : span.end])
    message = statement.message.value if statement.message else ""
    hard = statement.keyword.text == "require"
    return GateRoot(hard, left, statement.op, right, message, text, statement.span)


def _on_one_line(text: str) -> str:
    kept = ("" if t.kind == "COMMENT" else t.text for t in lex(text))
    return " ".join("".join(kept).split())


def _measured(value: syntax.Value, scope: Scope) -> MeasuredExpr | None:
    """A side of a gate: a measure, a number, or arithmetic over them."""
    found = scope.evaluate(value)
    if is_poison(found) or isinstance(found, Opaque):
        return None
    if isinstance(found, Quantity) and found.unit == "fraction":
        return found.value
    if isinstance(found, Arithmetic) or (isinstance(found, Node) and is_measured(found)):
        return found
    if isinstance(found, int | float) and not isinstance(found, bool):
        return found
    scope.sink.error(
        "E0307",
        f"a gate compares numbers, found {describe(found)}",
        value.span,
        help="write a number or a percentage"
        if isinstance(found, Quantity)
        else "measure it: `accuracy of m on d >= 60%`",
    )
    return None


def _never_a_share(
    statement: syntax.Gate, left: MeasuredExpr, right: MeasuredExpr, scope: Scope
) -> bool:
    """Report a share that is compared with a number above 1: ``accuracy ... >= 62``."""
    for side, other, written in (
        (left, right, statement.right), (right, left, statement.left),
    ):  # fmt: skip
        if not isinstance(side, Node) or side.op not in SHARES:
            continue
        if isinstance(other, int | float) and other > 1:
            percent = f"did you mean `{number_text(other)}%`?" if other <= 100 else ""
            scope.sink.error(
                "E0413",
                f"`{side.op}` is a share in [0, 1], compared with {number_text(other)}",
                written.span,
                help=percent or "write a percentage: `62%`",
            )
            return True
    return False


# ---------------------------------------------------------------- publish


def published(tree: syntax.File, scope: Scope) -> tuple[PublishRoot, ...]:
    """The file's publishes; two into one folder are a fault."""
    found: list[PublishRoot] = []
    for statement in tree.statements:
        root = publish(statement, scope) if isinstance(statement, syntax.Publish) else None
        if root is None:
            continue
        first = next((other for other in found if _target(other) == _target(root)), None)
        if first is not None:
            scope.sink.error(
                "E0518",
                f"`{root.uri}` is published to twice",
                root.span,
                secondary=(Label(first.span, "first here"),),
                help="give each publish a folder of its own",
            )
        found.append(root)
    return tuple(found)


def _target(root: PublishRoot) -> str:
    return os.path.normpath(os.path.join(root.folder, root.uri))


def publish(statement: syntax.Publish, scope: Scope) -> PublishRoot | None:
    """The publish, or None when something in it is at fault."""
    what = scope.evaluate(statement.what)
    owner = Owner("publish", statement.what.span)
    fields = _read_fields(statement.block, PUBLISH, "publish", scope, owner)
    where = _place(statement, scope)
    if isinstance(what, Attached):
        scope.sink.error("E0510", "what is published takes no parameters", what.span)
        return None
    if is_poison(what) or where is None or fields is None:
        return None
    if not isinstance(what, Node) or not isinstance(what.type, ModelType | AdapterType):
        scope.sink.error(
            "E0309",
            f"`publish` takes a Model or an Adapter, found {describe(what)}",
            statement.what.span,
            help="`stack` makes a model of layers"
            if isinstance(what, Node) and isinstance(what.type, LayersType)
            else 'name what is to be published: `publish student to "out"`',
        )
        return None
    token = fields.get("token")
    return PublishRoot(
        what,
        where.text,
        where.folder,
        fields.get("overwrite") is True,
        token if isinstance(token, str) else None,
        statement.span,
    )


def _place(statement: syntax.Publish, scope: Scope) -> Words | None:
    """The text behind `to`."""
    clause = statement.clause
    if clause.preposition.text != "to":
        scope.sink.error(
            "E0502",
            f"`publish` takes no `{clause.preposition.text}`",
            clause.preposition.span,
            help='write `publish x to "folder"`',
        )
        return None
    if len(clause.operands) != 1:
        scope.sink.error(
            "E0508",
            "`to` takes one place",
            clause.span,
            help="write one `publish` for each place",
        )
        return None
    (written,) = clause.operands
    where = scope.evaluate(written)
    if isinstance(where, Words) and where.text.strip():
        return where
    if not is_poison(where) and not isinstance(where, Opaque):
        scope.sink.error(
            "E0513",
            f"a place is a text, found {describe(where)}"
            if not isinstance(where, Words)
            else "the place is empty",
            written.span,
            help='write `publish x to "folder"`',
        )
    return None


# ---------------------------------------------------------------- budget


def budget(statement: syntax.Setting | None, scope: Scope) -> Budget:
    """The limits of the run; faults are reported, and leave a limit out."""
    if statement is None:
        return Budget()
    owner = Owner("budget", statement.keyword.span)
    fields = _read_fields(statement.block, BUDGET, "budget", scope, owner) or {}
    spans = {row.name.text: row.value.span for row in statement.block.fields}
    wall, memory, disk = fields.get("wall"), fields.get("memory"), fields.get("disk")
    device, variants = fields.get("device"), fields.get("variants", 1000)
    return Budget(
        wall=float(wall) if isinstance(wall, int | float) else None,
        memory=memory if isinstance(memory, int) else None,
        disk=disk if isinstance(disk, int) else None,
        device=(int(device.value), device.unit) if isinstance(device, Quantity) else None,
        variants=variants if isinstance(variants, int) else 1000,
        spans=spans,
    )


def _read_fields(
    block: syntax.Block | None, specs: dict[str, FieldSpec], name: str, scope: Scope, owner: Owner
) -> dict[str, object] | None:
    """The fields of a block that no operation owns; None when one is at fault."""
    found: dict[str, object] = {}
    seen: dict[str, syntax.Field] = {}
    sound = True
    for row in block.fields if block else ():
        spec = specs.get(row.name.text)
        if spec is None or row.quoted:
            scope.sink.error(
                "E0501",
                f"`{name}` has no field `{row.name.text}`",
                row.name.span,
                help=did_you_mean(row.name.text, specs),
            )
            sound = False
            continue
        if spec.name in seen:
            first = Label(seen[spec.name].name.span, "here first")
            scope.sink.error(
                "E0507",
                f"`{spec.name}` is given twice",
                row.name.span,
                secondary=(first,),
                help="keep one of the two",
            )
            sound = False
            continue
        seen[spec.name] = row
        value = read_field(spec, row.value, scope, owner)
        sound = sound and not isinstance(value, Poison)
        found[spec.name] = None if isinstance(value, Poison) else value
    return found if sound else None


def constant_seed(row: syntax.Field | None, scope: Scope) -> int:
    """The file's seed, 0 where ``defaults`` has none."""
    if row is None:
        return 0
    spec = FieldSpec(
        "seed", "int", "what all random draws are keyed by", 0, (), Range(0, 2**32 - 1)
    )
    value = read_field(spec, row.value, scope, Owner("defaults", row.name.span))
    return value if isinstance(value, int) else 0


def is_evaluation(value: Elaborated) -> bool:
    """Whether a binding is a table of measures, which a run without targets builds."""
    return isinstance(value, Node) and type(value.type).__name__ == "TableType"
