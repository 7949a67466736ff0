"""mergekit's configurations as the text of a recipe.

Models come first, then a binding a merge. Slices are merges of layers that `stack` puts on top of
each other; documents of mergekit-multi are bindings that others use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from recipelang.convert.mergekit.configuration import Configuration
from recipelang.convert.mergekit.keys import note
from recipelang.convert.mergekit.names import Names, Paths, quoted
from recipelang.convert.mergekit.phrases import (
    Block,
    copied,
    operand,
    phrase,
    scale_of,
    sentence,
    settings_of,
)
from recipelang.convert.mergekit.references import Place, Reference
from recipelang.convert.mergekit.resolve import Merge, Operand, resolve
from recipelang.convert.mergekit.settings import Setting
from recipelang.convert.mergekit.varying import Reach, splits, written
from recipelang.convert.mergekit.vocabulary import vocabulary_of
from recipelang.diagnostics import Sink, Source, Span
from recipelang.language.format import format_source
from recipelang.types import ModelType

__all__ = ["Known", "write_recipe"]

Known = Callable[[str, str], "ModelType | None"]
"""The type of the model at a URI and revision, None where it is not known."""
FIRST_VALUE: Final = "# Outside the layers mergekit takes the first value of a gradient."
BY_MODULE: Final = "# mergekit's modules, by a component of their tensors' names."


def write_recipe(
    configurations: Sequence[Configuration], paths: Paths, known: Known, sink: Sink, *,
    title: str, publish_to: str = "", exact: bool = False,
) -> str | None:  # fmt: skip
    """The recipe of configurations, each after those that it uses; None where one cannot be
    expressed (E0745, E0746 in the sink). ``publish_to`` is where the last one goes."""
    writer = Writer(paths, known, sink, exact)
    writer.merges = {c.name: writer.names.new(c.name) for c in configurations if c.name}
    for configuration in configurations:
        writer.write(configuration)
    if sink.has_errors:
        return None
    lines = ["language 1", "", f"# {title}", *writer.models, *writer.lines]
    if publish_to:
        lines += ["", f"publish {writer.result} to {quoted(publish_to)}"]
    return format_source(Source(title, "\n".join(lines) + "\n"))


@dataclass
class Writer:
    """What was written so far, and the names of it."""

    paths: Paths
    known: Known
    sink: Sink
    exact: bool
    names: Names = field(default_factory=Names)
    merges: dict[str, str] = field(default_factory=dict[str, str])
    """The bindings of documents, by their names."""
    bound: dict[Reference, str] = field(default_factory=dict[Reference, str])
    adapters: dict[Place, str] = field(default_factory=dict[Place, str])
    models: list[str] = field(default_factory=list[str])
    lines: list[str] = field(default_factory=list[str])
    result: str = ""

    # ------------------------------------------------------------ models

    def name(self, reference: Reference) -> str:
        """The binding of a model."""
        return self.bound[reference]

    def _bind(self, reference: Reference) -> None:
        """Write the source of a model, and its adapter's, unless that was done."""
        if reference in self.bound:
            return
        made = self.merges.get(reference.model.path)
        if reference.lora is None:
            self.bound[reference] = made or self._source("model", reference.model, reference.span)
            return
        whole = Reference(reference.model, None, reference.span)
        self._bind(whole)
        base = self.bound[whole]
        if reference.lora not in self.adapters:
            self.adapters[reference.lora] = self._source("adapter", reference.lora, reference.span)
        adapter = self.adapters[reference.lora]
        tuned = self.bound[reference] = self.names.new(f"{base}_{adapter}")
        (self.lines if made else self.models).append(f"{tuned} = apply {adapter} to {base}")

    def _source(self, verb: str, place: Place, span: Span | None) -> str:
        name = self.names.new(place.path)
        if place.is_windows and os.name != "nt" and span is not None:
            message = f"`{place.path}` is a path of Windows: write the one of this machine"
            note(message, span, self.sink)
        revision = f" at {quoted(place.revision)}" if place.revision else ""
        self.models.append(f"{name} = {verb} {quoted(self.paths.uri(place))}{revision}")
        return name

    # ------------------------------------------------------------ merges

    def write(self, configuration: Configuration) -> None:
        """Write the merges of one document, and the models that are new in it."""
        self.lines.append("")
        for reference in configuration.references():
            self._bind(reference)
        merges = resolve(configuration, self.sink)
        name = self.merges.get(configuration.name) or self.names.new("merged")
        self.result = name
        if len(merges) == 1 and self._is_whole(merges[0]):
            self._whole(name, configuration, _without_layers(merges[0]))
        else:
            self._stacked(name, configuration, merges)

    def _is_whole(self, merge: Merge) -> bool:
        """Whether it merges all layers of its models, as far as is known."""
        return all(
            one.layers is None or one.layers == (0, self._layers(one.model))
            for one in (*merge.inputs, *([merge.base] if merge.base else []))
        )

    def _type(self, reference: Reference) -> ModelType | None:
        if reference.model.path in self.merges:
            return None
        return self.known(self.paths.uri(reference.model), reference.model.revision)

    def _layers(self, reference: Reference) -> int | None:
        found = self._type(reference)
        return found.layers if found else None

    def _tensors(self, merge: Merge) -> tuple[str, ...]:
        """The names of the tensors, by the first model of the merge that is known."""
        for one in (*([merge.base] if merge.base else []), *merge.inputs):
            found = self._type(one.model)
            if found is not None and found.tensors:
                return tuple(found.tensors)
        return ()

    def _reach(self, merge: Merge, place: int = 0, count: int = 1) -> Reach:
        """What the values of a merge are for that is one slice of several."""
        layers = merge.layers
        several = layers is None or layers[1] - layers[0] > 1
        return Reach(several, place == 0, place == count - 1, self._tensors(merge))

    def _whole(self, name: str, configuration: Configuration, merge: Merge) -> None:
        """A merge of whole models."""
        one, reach = copied(merge), self._reach(merge)
        if one is None:
            self._comment(merge, reach)
            self.lines.append(self._merge(name, configuration, merge, reach))
            return
        vocabulary_of(configuration, merge, self.sink)
        scale, dtype = scale_of(merge), _dtype(configuration)
        source = operand(one, self.name)
        if scale is None:
            self.lines.append(f"{name} = " + (f"cast {source}{Block(dtype)}" if dtype else source))
            return
        self._comment(merge, reach)
        fields = {"scale": (written(scale, reach), ""), **dtype}
        self.lines.append(f"{name} = stack {source}{Block(fields)}")

    def _stacked(
        self, name: str, configuration: Configuration, merges: Sequence[Merge]
    ) -> None:  # fmt: skip
        """Slices on top of each other: merges of layers, and layers as they are."""
        count = len(merges)
        if count == 1 and copied(merges[0]) is None:
            reach = self._reach(merges[0])
            self._comment(merges[0], reach)
            text = self._merge(name, configuration, merges[0], reach)
            self.lines.append(f"{text}\n    -> stack")
            return
        scales = [scale_of(merge) for merge in merges]
        common = scales[0] if all(scale == scales[0] for scale in scales) else None
        parts: list[str] = []
        for place, merge in enumerate(merges):
            reach = self._reach(merge, place, count)
            one = copied(merge)
            if one is None:
                self._comment(merge, reach)
                part = self.names.new(f"{name}_part_{place + 1}")
                self.lines.append(self._merge(part, configuration, merge, reach))
                parts.append(part)
                continue
            vocabulary_of(configuration, merge, self.sink)
            own = None if common else scales[place]
            self._check_scale(scales[place], count)
            scale = f"(scale = {written(own, reach)})" if own else ""
            parts.append(operand(one, self.name) + scale)
        fields = {"scale": (written(common, self._reach(merges[0])), "")} if common else {}
        if any(copied(merge) is not None for merge in merges):
            fields |= _dtype(configuration)
        self.lines.append(sentence(name, "stack", parts, "", Block(fields)))

    def _check_scale(self, scale: Setting | None, slices: int) -> None:
        """A gradient over one slice of several is not one over the stack."""
        for entry in scale or ():
            if slices > 1 and len(set(entry.points)) > 1:
                message = "a gradient over the layers of one slice scales it"
                help = "a stack's gradients run over all its layers: write slices with one value"
                self.sink.error("E0746", message, entry.span, help=help)

    def _merge(self, name: str, configuration: Configuration, merge: Merge, reach: Reach) -> str:
        vocabulary = vocabulary_of(configuration, merge, self.sink)
        more = {"vocabulary": (vocabulary.field, "")} if vocabulary.field else {}
        more |= _dtype(configuration)
        if self.exact and merge.method.differs:
            more["compat"] = ("mergekit", "")
        return phrase(name, vocabulary.ordered(merge), self.name, reach, more)

    def _comment(self, merge: Merge, reach: Reach) -> None:
        """Say above a merge which of its rows are there to keep mergekit's meaning."""
        settings = settings_of(merge)
        if any(splits(setting, reach) for setting in settings):
            self.lines.append(FIRST_VALUE)
        if any(entry.module for setting in settings for entry in setting):
            self.lines.append(BY_MODULE)


def _dtype(configuration: Configuration) -> dict[str, tuple[str, str]]:
    """How the result is stored; what mergekit computes in has no place in a recipe."""
    stored = configuration.out_dtype or configuration.dtype
    return {"dtype": (stored, "")} if stored else {}


def _without_layers(merge: Merge) -> Merge:
    def whole(one: Operand) -> Operand:
        return replace(one, layers=None)

    base = whole(merge.base) if merge.base else None
    return replace(merge, inputs=tuple(whole(one) for one in merge.inputs), base=base)
