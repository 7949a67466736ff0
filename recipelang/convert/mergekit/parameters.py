"""``parameters:`` of a configuration, a slice, a module or a model, checked against the method.

mergekit ignores what the method does not take, and what stands at the wrong place; here that is an
error, or a note where ignoring it is all that can be meant.
"""

from __future__ import annotations

from typing import Final, Literal

from recipelang.convert.mergekit.configuration import Settings
from recipelang.convert.mergekit.keys import note
from recipelang.convert.mergekit.methods import METHODS, Method, Parameter
from recipelang.convert.mergekit.settings import Setting, read_setting
from recipelang.convert.yaml_tree import Item, Mapping, Scalar
from recipelang.diagnostics import Sink
from recipelang.language.suggest import did_you_mean, listed

__all__ = ["Scope", "read_settings"]

Scope = Literal["whole", "input", "base"]
NOWHERE: Final = "int8_mask"
"""It chooses how mergekit stores signs on the way, whatever the method."""


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
        if parameter is None and key.text != NOWHERE:
            _unknown(key, method, sink)
        elif parameter is None or not (parameter.field or parameter.only_default):
            note(f"`{key.text}` changes nothing in mergekit; it is left out", key.span, sink)
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


def _unknown(key: Scalar, method: Method, sink: Sink) -> None:
    legal = [p.name for p in method.parameters if p.field]
    takes = f"it takes {listed(legal, 'and')}" if legal else "it takes no parameters"
    elsewhere = any(m.parameter(key.text) for m in METHODS.values())
    sink.error(
        "E0743",
        f"`{method.name}` has no parameter `{key.text}`",
        key.span,
        help=takes if elsewhere else did_you_mean(key.text, legal, takes),
        notes=("mergekit drops it without a word",),
    )


def _expressible(parameter: Parameter, key: Scalar, setting: Setting, sink: Sink) -> bool:
    """Whether there is something to write; E0746 where a recipe cannot say it."""
    if parameter.only_default:
        if any(point != parameter.default for entry in setting for point in entry.points):
            message = f"a recipe has no `{key.text}`: {parameter.only_default}"
            sink.error("E0746", message, key.span, help="remove it")
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
