"""``models:``, ``slices:`` and ``modules:``: what is merged with what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from recipelang.convert.mergekit.configuration import Input, Module, Slice
from recipelang.convert.mergekit.keys import check_keys, entries, note, present, reference
from recipelang.convert.mergekit.methods import Method
from recipelang.convert.mergekit.parameters import Scope, read_settings
from recipelang.convert.mergekit.references import Reference
from recipelang.convert.mergekit.settings import number
from recipelang.convert.yaml_tree import Item, Mapping, Scalar, Sequence
from recipelang.diagnostics import Sink
from recipelang.language.suggest import did_you_mean, listed

__all__ = ["Reader"]

OUTPUTS: Final = ("models", "slices", "modules")
MODEL: Final = ("model", "parameters")
SOURCE: Final = ("model", "layer_range", "parameters")
SLICE: Final = ("sources", "base_model", "parameters")
MODULE: Final = ("models", "slices", "parameters")
MODULES: Final = (
    "vision_tower", "vision_model", "multi_modal_projector", "encoder", "decoder", "text_decoder",
    "shared",
)  # fmt: skip
"""The modules of mergekit's architectures that have several."""
WHOLE: Final = "default"
"""The one module of every other architecture; mergekit and its web page write it into files."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads what is merged in a document of this method and base; faults are in the sink."""

    method: Method
    base: Reference | None
    sink: Sink

    def modules(self, document: Mapping) -> tuple[Module, ...]:
        """What is merged, as modules of slices."""
        given = [key for key in OUTPUTS if present(document, key) is not None]
        if len(given) != 1:
            key = document.key(given[1]) if given else document.entries[0][0]
            message = "a configuration has one of `models`, `slices` and `modules`"
            span = key.span if key else document.span
            self.sink.error("E0745", f"{message}, found {len(given) or 'none'}", span)
            return ()
        if given[0] == "models":
            return (Module("", self._models(document), {}, document.span),)
        if given[0] == "slices":
            return (Module("", self._slices(document), {}, document.span),)
        modules = document.get("modules")
        if not isinstance(modules, Mapping) or not modules.entries:
            self.sink.error("E0744", "`modules` is a mapping of modules", document.span)
            return ()
        alone = len(modules.entries) == 1
        read = [self._module(key, item, alone) for key, item in modules.entries]
        return tuple(module for module in read if module is not None)

    def _module(self, key: Scalar, item: Item, alone: bool) -> Module | None:
        whole = key.text == WHOLE
        if whole and not alone:
            message = f"`{WHOLE}` is the module of models that have one only"
            self.sink.error("E0745", message, key.span, help=f"one of {listed(MODULES)}")
            return None
        if key.text not in MODULES and not whole:
            help = did_you_mean(key.text, (*MODULES, WHOLE))
            self.sink.error("E0741", f"mergekit knows no module `{key.text}`", key.span, help=help)
            return None
        if not isinstance(item, Mapping):
            self.sink.error("E0744", f"the module `{key.text}` is a mapping", item.span)
            return None
        check_keys(item, MODULE, "a module", self.sink)
        models, slices = present(item, "models"), present(item, "slices")
        if slices is not None and not whole:
            message = "a recipe stacks layers of whole models, not of a module"
            self.sink.error("E0746", message, (item.key("slices") or key).span)
            return None
        if (models is None) == (slices is None):
            either = "no `models`" if models is None else "both `models` and `slices`"
            self.sink.error("E0745", f"the module `{key.text}` has {either}", key.span)
            return None
        settings = read_settings(item.get("parameters"), self.method, "whole", self.sink)
        made = self._models(item) if slices is None else self._slices(item)
        return Module("" if whole else key.text, made, settings, key.span)

    def _models(self, item: Mapping) -> tuple[Slice, ...]:
        """``models:`` as one slice over all layers, with a base that mergekit adds."""
        read = [self._input(entry, MODEL) for entry in entries(item, "models", self.sink)]
        found = [one for one in read if one is not None]
        key = item.key("models")
        place = key.span if key else item.span
        base = self.base
        if base is not None and found and all(one.model != base for one in found):
            found.append(Input(base, None, {}, base.span or place))
            if self.method.base == "ignored":
                message = f"`{self.method.name}` uses no base: it is one more input, as in mergekit"
                note(message, base.span or place, self.sink)
        return (Slice(tuple(found), None, {}, place),) if found else ()

    def _slices(self, item: Mapping) -> tuple[Slice, ...]:
        return tuple(self._slice(entry) for entry in entries(item, "slices", self.sink))

    def _slice(self, item: Mapping) -> Slice:
        again = item.get("merge_method")
        same = isinstance(again, Scalar) and again.text == self.method.name
        known = (*SLICE, "merge_method") if same else SLICE
        sound = check_keys(item, known, "a slice", self.sink)
        own = reference(item, "base_model", self.sink)
        if sound and present(item, "sources") is None:
            self.sink.error("E0745", "this slice has no `sources`", item.span)
        within = Reader(self.method, own or self.base, self.sink)
        read = [within._input(entry, SOURCE) for entry in entries(item, "sources", self.sink)]
        settings = read_settings(item.get("parameters"), self.method, "whole", self.sink)
        key = item.key("sources")
        inputs = tuple(one for one in read if one is not None)
        return Slice(inputs, own, settings, key.span if key else item.span)

    def _input(self, item: Mapping, keys: Collection[str]) -> Input | None:
        """An entry of ``models`` or ``sources``."""
        what = "a source" if "layer_range" in keys else "an entry of `models`"
        sound = check_keys(item, keys, what, self.sink)
        key = item.key("model")
        if key is None or present(item, "model") is None:
            if sound:
                self.sink.error("E0745", f"{what} needs a `model`", item.span)
            return None
        model = reference(item, "model", self.sink)
        is_base = model is not None and model == self.base and self.method.base != "ignored"
        scope: Scope = "base" if is_base else "input"
        settings = read_settings(item.get("parameters"), self.method, scope, self.sink)
        layers = self._range(item) if "layer_range" in keys else None
        return Input(model, layers, settings, key.span) if model else None

    def _range(self, item: Mapping) -> tuple[int, int] | None:
        """``layer_range: [first, last + 1]``."""
        value = item.get("layer_range")
        if value is None:
            help = "write `layer_range: [0, 16]` for the layers 0 to 15"
            message = "a source needs a `layer_range`"
            self.sink.error("E0745", message, item.span, help=help)
            return None
        ends = value.items if isinstance(value, Sequence) else ()
        numbers = [number(end.text) for end in ends if isinstance(end, Scalar)]
        start, stop = numbers if len(numbers) == len(ends) == 2 else (None, None)
        if not isinstance(start, int) or not isinstance(stop, int) or start < 0:
            message = "`layer_range` is the first layer, and the first that stays out"
            self.sink.error("E0744", message, value.span, help="write `[0, 16]`")
            return None
        if start >= stop:
            self.sink.error("E0745", f"no layer is in `[{start}, {stop}]`", value.span)
            return None
        return start, stop
