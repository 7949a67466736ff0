"""How mergekit names models: ``path_or_repository[@revision][+lora[@revision]]``.

Example:
    >>> sink = Sink()
    >>> text = 'org/base@v1+./lora'
    >>> found = parse(Scalar(text, "text", Span(Source("a.yml", text), 0, len(text))), sink)
    >>> found.model, found.lora
    (Place(path='org/base', revision='v1'), Place(path='./lora', revision=''))
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from recipelang.convert.yaml_tree import Item, Mapping, Scalar
from recipelang.diagnostics import Sink, Source, Span
from recipelang.language.suggest import did_you_mean
from recipelang.sources import HUB_NAME, REVISION

__all__ = ["Place", "Reference", "Source", "parse"]

KEYS: Final = ("model", "lora", "override_architecture")
PLACE_KEYS: Final = ("path", "revision")
LOCAL: Final = re.compile(r"(?:[./~\\]|[A-Za-z]:[\\/])")
WINDOWS: Final = re.compile(r"[A-Za-z]:[\\/]|\\\\")
ADDRESS: Final = re.compile(r"hf:(?://)?|[a-z]+://(?:huggingface\.co/|hf\.co/)?")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or a repository of the hub; an empty ``revision`` is none."""

    path: str
    revision: str = ""

    @property
    def may_be_hub(self) -> bool:
        """Whether the hub can have a repository of this name."""
        return not LOCAL.match(self.path) and HUB_NAME.fullmatch(self.path) is not None

    @property
    def is_windows(self) -> bool:
        """Whether the path starts at a drive or a share of Windows."""
        return WINDOWS.match(self.path) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """A model, perhaps with an adapter in it. Equal for one model wherever it is written."""

    model: Place
    lora: Place | None = None
    span: Span | None = field(default=None, compare=False)

    def __str__(self) -> str:
        parts = [self.model, *([self.lora] if self.lora else [])]
        return "+".join(f"{p.path}@{p.revision}" if p.revision else p.path for p in parts)


def parse(item: Item, sink: Sink) -> Reference | None:
    """The model that is named, as text or as a mapping; None and an error (E0741, E0744, E0746)
    where none is."""
    if isinstance(item, Mapping):
        return _from_mapping(item, sink)
    if not isinstance(item, Scalar) or item.kind == "null" or not item.text:
        sink.error("E0744", "a model is a path or a repository's name", item.span)
        return None
    chunks = item.text.split("+")
    if len(chunks) > 2 or not all(chunks):
        message = "a `+` stands between a model and its adapter, and there is one at most"
        sink.error("E0744", message, item.span, help="write `base+adapter`")
        return None
    places = [_place(chunk, item.span, sink) for chunk in chunks]
    if places[0] is None or places[-1] is None:
        return None
    return Reference(places[0], places[1] if len(chunks) == 2 else None, item.span)


def _from_mapping(item: Mapping, sink: Sink) -> Reference | None:
    for key, value in item.entries:
        if key.text not in KEYS:
            message = f"a model has no `{key.text}`"
            help = did_you_mean(key.text, KEYS)
            if key.text in PLACE_KEYS:
                help = "write `model: org/name@revision`"
            sink.error("E0741", message, key.span, help=help)
            return None
        null = isinstance(value, Scalar) and value.kind == "null"
        if key.text == "override_architecture" and not null:
            message = "a recipe has no `override_architecture`"
            help = "remove it: tensors are matched by name, whatever the architecture is called"
            sink.error("E0746", message, key.span, help=help)
            return None
    model = item.get("model")
    if model is None:
        sink.error("E0745", "this model has no `model`", item.span)
        return None
    lora = item.get("lora")
    place = _nested(model, sink)
    if lora is None or (isinstance(lora, Scalar) and lora.kind == "null"):
        return Reference(place, None, item.span) if place else None
    adapter = _nested(lora, sink)
    return Reference(place, adapter, item.span) if place and adapter else None


def _nested(item: Item, sink: Sink) -> Place | None:
    """A place as text, or as ``{path, revision}``."""
    if isinstance(item, Scalar) and item.text and item.kind != "null":
        return _place(item.text, item.span, sink)
    if not isinstance(item, Mapping):
        sink.error("E0744", "a model is a path or a repository's name", item.span)
        return None
    for key, _ in item.entries:
        if key.text not in PLACE_KEYS:
            help = did_you_mean(key.text, PLACE_KEYS)
            sink.error("E0741", f"a path has no `{key.text}`", key.span, help=help)
            return None
    path, revision = item.get("path"), item.get("revision")
    if not isinstance(path, Scalar) or not path.text:
        sink.error("E0745", "this model has no `path`", item.span)
        return None
    given = isinstance(revision, Scalar) and revision.kind != "null"
    text = f"{path.text}@{revision.text}" if given and isinstance(revision, Scalar) else path.text
    return _place(text, item.span, sink)


def _place(text: str, span: Span, sink: Sink) -> Place | None:
    path, at, revision = text.partition("@")
    if address := ADDRESS.match(path):
        message = f"`{text}` is an address, and a model is a path or a repository's name"
        name = path[address.end() :].strip("/")
        help = f"write `{name}`" if HUB_NAME.fullmatch(name) else ""
        sink.error("E0744", message, span, help=help)
        return None
    if not path or (at and not REVISION.fullmatch(revision)):
        message = f"`{text}` is no model: a revision is one word behind one `@`"
        sink.error("E0744", message, span, help="write `org/name@revision`")
        return None
    place = Place(path, revision)
    if revision and not place.may_be_hub:
        message = f"`{path}` is a folder, and a revision goes with a repository of the hub"
        sink.error("E0744", message, span, help="remove the revision")
        return None
    return place
