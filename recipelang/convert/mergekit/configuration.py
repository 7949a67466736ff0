"""A merge as mergekit's YAML describes it, read and checked, every part with its place.

``models:`` is one slice over all layers, and a configuration without ``modules:`` has one module
without a name. A base that mergekit adds to the inputs by itself is among them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from recipelang.convert.mergekit.methods import Method
from recipelang.convert.mergekit.references import Reference
from recipelang.convert.mergekit.settings import Setting
from recipelang.diagnostics import Span

__all__ = ["Configuration", "Input", "Module", "Settings", "Slice", "Tokenizer"]

Settings: TypeAlias = Mapping[str, Setting]
"""By the parameter's name."""


@dataclass(frozen=True, slots=True)
class Input:
    """A model of a slice; ``layers`` is a half-open range, None for all of them."""

    model: Reference
    layers: tuple[int, int] | None
    settings: Settings
    span: Span


@dataclass(frozen=True, slots=True)
class Slice:
    """What is merged into consecutive layers. ``base`` is its own one, else the configuration's."""

    inputs: tuple[Input, ...]
    base: Reference | None
    settings: Settings
    span: Span


@dataclass(frozen=True, slots=True)
class Module:
    """A part of a model, such as ``vision_tower``; the name is empty for the whole."""

    name: str
    slices: tuple[Slice, ...]
    settings: Settings
    span: Span


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Where the vocabulary of the result comes from."""

    source: Literal["union", "base"] | Reference
    span: Span


@dataclass(frozen=True, slots=True)
class Configuration:
    """One document. ``name`` is that of an intermediate of mergekit-multi, else empty; dtypes are
    spelled as in recipes (``bf16``), empty where none is written."""

    name: str
    method: Method
    base: Reference | None
    modules: tuple[Module, ...]
    settings: Settings
    dtype: str
    out_dtype: str
    tokenizer: Tokenizer | None
    span: Span

    def references(self) -> Iterator[Reference]:
        """Every model that is named, bases first, as often as it is named."""
        slices = [s for module in self.modules for s in module.slices]
        yield from (b for b in (self.base, *(s.base for s in slices)) if b is not None)
        yield from (one.model for s in slices for one in s.inputs)
        if self.tokenizer and isinstance(self.tokenizer.source, Reference):
            yield self.tokenizer.source
