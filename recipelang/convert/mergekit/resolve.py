"""Which value each parameter has for each model, by mergekit's precedence.

Model entry or slice source, then slice, then module, then the whole configuration, then the
method's default; a scope with filters passes on the tensors that none of them names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from recipelang.convert.mergekit.configuration import Configuration, Input, Module, Settings, Slice
from recipelang.convert.mergekit.methods import Method, Parameter
from recipelang.convert.mergekit.references import Reference
from recipelang.convert.mergekit.settings import Entry, Setting, chained
from recipelang.diagnostics import Sink, Span

__all__ = ["Merge", "Operand", "resolve"]

LAYER: Final = re.compile(r"(?:^|(?:layers?|blocks?|h)\.)\d+(?:\.|$)")
"""Filters that name a layer by its number."""
LAST: Final = ("text_decoder", "shared")
"""Modules whose tensors have no name in common; their values stand for the rest."""


@dataclass(frozen=True, slots=True)
class Operand:
    """An input with its own parameters, each for every tensor."""

    model: Reference
    layers: tuple[int, int] | None
    values: Settings


@dataclass(frozen=True, slots=True)
class Merge:
    """One merge. ``base`` is where the method uses one; of a pair it is the first model."""

    method: Method
    inputs: tuple[Operand, ...]
    base: Operand | None
    shared: Settings
    span: Span

    @property
    def layers(self) -> tuple[int, int] | None:
        """The range of layers of the first operand, None for whole models."""
        return (*self.inputs, *([self.base] if self.base else []))[0].layers


def resolve(configuration: Configuration, sink: Sink) -> tuple[Merge, ...]:
    """The merges, one a slice; errors (E0745 for a value that is missing, E0746 for what a recipe
    cannot express) are in the sink."""
    modules = configuration.modules
    merges = [[_merge(configuration, m, one, sink) for one in m.slices] for m in modules]
    if len(modules) == 1:
        return tuple(merges[0])
    names = [module.name for module in modules]
    return (_joined(names, [slices[0] for slices in merges], sink),)


def _merge(configuration: Configuration, module: Module, one: Slice, sink: Sink) -> Merge:
    method = configuration.method
    base = (one.base or configuration.base) if method.base != "ignored" else None
    wide = (one.settings, module.settings, configuration.settings)
    shared: dict[str, Setting] = {}
    for parameter in method.parameters:
        if parameter.field and not parameter.per_input:
            shared[parameter.name] = _complete(parameter, wide, one.span, "", sink)
    operands = [_operand(method, each, base, wide, sink) for each in one.inputs]
    for values in (shared, *(operand.values for operand in operands)):
        _check_filters(one, values, sink)
    return Merge(
        method,
        tuple(operand for operand in operands if operand.model != base),
        next((operand for operand in operands if operand.model == base), None),
        shared,
        one.span,
    )


def _operand(
    method: Method, one: Input, base: Reference | None, wide: Sequence[Settings], sink: Sink
) -> Operand:
    values: dict[str, Setting] = {}
    for parameter in method.parameters:
        if parameter.field and parameter.per_input and one.model != base:
            scopes = (one.settings, *wide)
            values[parameter.name] = _complete(parameter, scopes, one.span, str(one.model), sink)
    return Operand(one.model, one.layers, values)


def _complete(
    parameter: Parameter, scopes: Sequence[Settings], span: Span, model: str, sink: Sink
) -> Setting:
    """The parameter's value for every tensor; E0745 where it is required and some have none."""
    found = chained(scope.get(parameter.name) for scope in scopes)
    if found and found[-1].filter is None:
        return found
    if parameter.default is not None:
        return (*found, Entry(None, (parameter.default,)))
    of = f" of `{model}`" if model else ""
    if found:
        message = f"`{parameter.name}`{of} has no value for tensors that no filter names"
        help = "add an entry without `filter`"
        sink.error("E0745", message, found[-1].span, help=help)
    else:
        message = f"`{parameter.name}`{of} has no value"
        sink.error("E0745", message, span, help=f"write `{parameter.name}:` under `parameters:`")
    return (Entry(None, (1.0,)),)


def _check_filters(one: Slice, settings: Settings, sink: Sink) -> None:
    """Layers of slices are numbered anew, so a filter that names a layer means different ones."""
    if all(each.layers is None for each in one.inputs):
        return
    for entry in (entry for setting in settings.values() for entry in setting):
        if entry.filter and LAYER.search(entry.filter):
            message = f"the filter `{entry.filter}` names a layer, and slices number theirs anew"
            help = "make the layer a slice of its own"
            sink.error("E0746", message, entry.span, help=help)


# ---------------------------------------------------------------- modules


def _joined(names: Sequence[str], merges: Sequence[Merge], sink: Sink) -> Merge:
    """One merge of whole models from those of their modules."""
    order = sorted(range(len(names)), key=lambda i: (names[i] in LAST, i))
    names, merges = [names[i] for i in order], [merges[i] for i in order]
    first = merges[-1]
    models = dict.fromkeys(one.model for merge in merges for one in merge.inputs)
    weighted = first.method.parameter("weight") is not None
    for merge in merges:
        if len(merge.inputs) < len(models) and not weighted:
            message = f"modules of different models, and `{merge.method.name}` has no weights"
            sink.error("E0746", message, merge.span)
            return first
    if first.method.most is not None and len(models) > first.method.most:
        message = f"modules of different models, more than `{first.method.name}` merges at once"
        sink.error("E0746", message, first.span)
        return first
    inputs = tuple(
        Operand(model, None, _values_of(model, first.method, names, merges, sink))
        for model in models
    )
    shared = {
        name: _by_module(names, [merge.shared[name] for merge in merges], sink)
        for name in first.shared
    }
    for name, setting in shared.items():
        parameter = first.method.parameter(name)
        if parameter is not None and not parameter.varies and len(setting) > 1:
            message = f"`{name}` is one value for the whole merge in a recipe"
            place = next((e.span for e in setting if e.span is not None), first.span)
            sink.error("E0746", message, place, help="write the same value for all modules")
    return replace(first, inputs=inputs, shared=shared)


def _values_of(
    model: Reference, method: Method, names: Sequence[str], merges: Sequence[Merge], sink: Sink
) -> Mapping[str, Setting]:
    """The values of one model; its weight is zero in modules that it is not part of."""
    own = [next((o.values for o in merge.inputs if o.model == model), None) for merge in merges]
    known = next(values for values in own if values is not None)
    found: dict[str, Setting] = {}
    for name in known:
        absent = (Entry(None, (0.0,)),) if name == "weight" else known[name]
        settings = [absent if values is None else values[name] for values in own]
        found[name] = _by_module(names, settings, sink)
    return found


def _by_module(names: Sequence[str], settings: Sequence[Setting], sink: Sink) -> Setting:
    """The values of all modules in one setting; the last module's hold for the rest."""
    for entry in (entry for setting in settings for entry in setting):
        if len(set(entry.points)) > 1:
            message = "a gradient over the layers of a module"
            help = "a recipe's gradients run over the layers of the whole model: write one value"
            sink.error("E0746", message, entry.span, help=help)
    if all(setting == settings[-1] for setting in settings):
        return settings[-1]
    return tuple(
        replace(entry, module=name if name != names[-1] else "")
        for name, setting in zip(names, settings, strict=True)
        for entry in setting
    )
