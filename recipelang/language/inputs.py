"""Per-input parameters: ``chat(weight = 0.4, density = 50%)``.

The order is: the input's call, the block (where the field may stand there), the file's defaults,
the operation's own default. The result is a tuple along the inputs.

Example: with ``{ density = 60% }`` in the block, inputs ``a(density = 50%)`` and ``b`` give
``density = (0.5, 0.6)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from recipelang.diagnostics import Label
from recipelang.language import syntax
from recipelang.language.blocks import Given, read_field
from recipelang.language.fields import Owner
from recipelang.language.scope import Scope
from recipelang.language.suggest import did_you_mean
from recipelang.language.values import Attached, Poison
from recipelang.ops.spec import REQUIRED, Mark, Operation
from recipelang.values import Attr

__all__ = ["per_input_fields"]


def per_input_fields(
    operation: Operation,
    attached: Sequence[Attached | None],
    given: Given,
    owner: Owner,
    scope: Scope,
) -> None:
    """Turn the per-input fields of ``given`` into tuples along the inputs."""
    fields = {f.name: f for f in operation.fields if f.per_input}
    own = [_read(operation, item, given, owner) if item else {} for item in attached]
    for name, spec in fields.items():
        values: list[Attr] = []
        for index, parameters in enumerate(own):
            if name in parameters:
                values.append(parameters[name])
            elif name in given.values:
                values.append(given.values[name])
            elif isinstance(spec.default, Mark) and spec.default is REQUIRED:
                item = attached[index]
                scope.sink.error(
                    "E0503",
                    f"`{operation.verb}` needs `{name}` on each input",
                    item.span if item else owner.span,
                    help=f"write `x({name} = ...)`",
                )
                given.sound = False
                break
            elif not isinstance(spec.default, Mark):
                values.append(spec.default)
        given.values[name] = tuple(values)


def _read(operation: Operation, item: Attached, given: Given, owner: Owner) -> dict[str, Attr]:
    """The parameters of one input."""
    fields = {f.name: f for f in operation.fields if f.per_input}
    found: dict[str, Attr] = {}
    for arg in item.args:
        name = arg.name.text if arg.name else ""
        spec = fields.get(name)
        if spec is None or name in found:
            _refuse(operation, item, arg, list(fields))
            given.sound = False
            continue
        value = read_field(spec, arg.value, item.scope, owner)
        given.spans.setdefault(name, arg.value.span)
        if isinstance(value, Poison):
            given.sound = False
        else:
            found[name] = value
    return found


def _refuse(operation: Operation, item: Attached, arg: syntax.Arg, legal: list[str]) -> None:
    name = arg.name.text if arg.name else ""
    span = arg.name.span if arg.name else arg.span
    sink = item.scope.sink
    if not name:
        sink.error(
            "E0510",
            "parameters of an input have names",
            span,
            help=f"write `x({legal[0]} = ...)`" if legal else "",
        )
        return
    if name in legal:
        sink.error("E0507", f"`{name}` is given twice", span, help="keep one of the two")
        return
    block = operation.field(name)
    if block is not None and block.block:
        help = f"`{name}` belongs to the whole merge: write it in the block, `{{ {name} = ... }}`"
        if operation.kind != "weights":
            help = f"write it in the block: `{{ {name} = ... }}`"
    else:
        help = did_you_mean(name, legal, f"inputs of `{operation.verb}` take no parameters")
    sink.error(
        "E0510",
        f"inputs of `{operation.verb}` take no `{name}`",
        span,
        help=help,
        secondary=(Label(item.span, "of this input"),) if item.span != span else (),
    )
