"""``parameters:`` of a configuration, a slice, a module or a model, checked against the method.

mergekit ignores what the method does not take, and what stands at the wrong place. Here a name that
no method has, and a place that no method reads, are errors; a parameter of other methods is left
out with a warning, for the merge is the one that mergekit makes.
"""

from __future__ import annotations

from typing import Literal

from recipelang.convert.mergekit.configuration import Settings
from recipelang.convert.mergekit.keys import NOWHERE, TOP, idle, note
from recipelang.convert.mergekit.methods import METHODS, Method, Parameter
from recipelang.convert.mergekit.settings import Setting, read_setting
from recipelang.convert.yaml_tree import Item, Mapping, Scalar
from recipelang.diagnostics import Diagnostic, Label, Sink
from recipelang.language.suggest import did_you_mean, listed

__all__ = ["Scope", "read_settings"]

Scope = Literal["whole", "input", "base"]


def read_settings(item: Item | None, method: Method, scope: Scope, sink: Sink) -> Settings:
    """The settings by name, without those that change nothing. ``scope`` says whose they are: all
    models' (``whole``), one model's, or the base's, of which mergekit reads none."""
    if item is None or (isinstance(item, Scalar) and item.kind == "null"):
        return {}
    if not isinstance(item, Mapping):
        sink.error("E0744", "`parameters` is a mapping", item.span)
        return {}
    found: dict[str, Setting] = {}
    for key, value in item.entries:
        parameter = method.parameter(key.text)
        if parameter is None and key.text not in NOWHERE:
            _foreign(key, method, sink)
        elif parameter is None or not (parameter.field or parameter.only_default):
            idle(key, sink)
        elif scope == "base":
            note(f"mergekit reads no `{key.text}` of the base; it is left out", key.span, sink)
        elif scope == "input" and not parameter.per_input:
            message = f"`{key.text}` belongs to the whole merge, and mergekit ignores it here"
            help = "move it to the `parameters` of the configuration"
            sink.error("E0743", message, key.span, help=help)
        else:
            setting = read_setting(parameter, value, sink)
            if setting is not None and _expressible(parameter, key, setting, sink):
                found[key.text] = setting
    return found


def _foreign(key: Scalar, method: Method, sink: Sink) -> None:
    """Report a name that the method has not: W0740 where another one has it, else E0743."""
    legal = [p.name for p in method.parameters if p.field]
    takes = f"it takes {listed(legal, 'and')}" if legal else "it takes no parameters"
    message = f"`{method.name}` has no parameter `{key.text}`"
    if any(m.parameter(key.text) for m in METHODS.values()):
        message += ", and mergekit ignores it; it is left out"
        sink.add(Diagnostic("W0740", "warning", message, Label(key.span), help=takes))
        return
    help = did_you_mean(key.text, legal, takes)
    if key.text in TOP:
        help = "write it at the top of the configuration, not below `parameters:`"
    notes = ("mergekit drops it without a word",)
    sink.error("E0743", message, key.span, help=help, notes=notes)


def _expressible(parameter: Parameter, key: Scalar, setting: Setting, sink: Sink) -> bool:
    """Whether there is something to write; E0746 where a recipe cannot say it."""
    if parameter.only_default:
        _check_bound(parameter, key, setting, sink)
        return False
    single = len(setting) == 1 and len(set(setting[0].points)) == 1 and setting[0].filter is None
    if not parameter.varies and not single:
        message = f"`{key.text}` is one value for the whole merge in a recipe"
        sink.error("E0746", message, key.span, help="write one value, without filters")
        return False
    if parameter.kind == "bool" and any(len(set(entry.points)) > 1 for entry in setting):
        message = f"`{key.text}` cannot change with depth in a recipe: a gradient is of numbers"
        sink.error("E0746", message, key.span, help="write one value, or one a filter")
        return False
    return True


def _check_bound(parameter: Parameter, key: Scalar, setting: Setting, sink: Sink) -> None:
    """A bound on what counts as nothing: ours is below mergekit's default, so one that is lower
    still asks for no more than that; E0746 for a higher one."""
    points = {float(point) for entry in setting for point in entry.points}
    highest = float(parameter.default or 0)
    if not all(0 <= point <= highest for point in points):
        message = f"a recipe has no `{key.text}`: {parameter.only_default}"
        sink.error("E0746", message, key.span, help="remove it")
    elif points != {highest}:
        note(f"a recipe has no `{key.text}`: {parameter.only_default}", key.span, sink)
