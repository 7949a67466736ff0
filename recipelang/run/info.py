"""What a model is, and what it was made of.

Example: ``describe("medic.recipe:student", Path.cwd()).parameters`` is the number of its weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from recipelang.diagnostics import RecipeError
from recipelang.lineage.lockfile import LockedStep, read_lock
from recipelang.lineage.text import to_text
from recipelang.ops.marks import Mark
from recipelang.ops.registry import lookup
from recipelang.run.publish import MARKER, is_published
from recipelang.run.sampling import find_model
from recipelang.run.soup_reports import SoupReport, read_soup
from recipelang.store import Store
from recipelang.types import ModelType, layers_key
from recipelang.values import canonical
from recipelang.weights.figures import MergeReport, read_report
from recipelang.weights.metadata import checkpoint_type
from recipelang.weights.strict_json import as_list

__all__ = ["Info", "Made", "MadeStep", "describe"]

Report = TypeVar("Report")
SCHEMA = "recipelang/info/1"
SIZES = (
    ("layers", "num_hidden_layers"), ("hidden", "hidden_size"), ("heads", "num_attention_heads"),
    ("vocabulary", "vocab_size"), ("context", "max_position_embeddings"),
)  # fmt: skip
"""What is shown of a configuration, and the key that holds it."""


@dataclass(frozen=True, slots=True)
class MadeStep:
    """A step of a lock. Inputs are by role, under their names in the recipe where it has them, else
    the start of their content ids; ``params`` are those that differ from the operation's defaults,
    as the lock writes them; ``uri`` is a source's."""

    place: str
    op: str
    inputs: Mapping[str, tuple[str, ...]]
    params: Mapping[str, str]
    uri: str


@dataclass(frozen=True, slots=True)
class Made:
    """How a recipe's lock says that the model was made: the step that gave it, and those of the
    same binding that it is made of, nearest first."""

    recipe: str
    steps: tuple[MadeStep, ...]

    @property
    def place(self) -> str:
        """Of the step that gave the model."""
        return self.steps[0].place


@dataclass(frozen=True, eq=False)
class Info:
    """``name`` is as asked for; ``artifact`` is empty for a folder that was not published from
    here. ``dtypes`` counts the parameters of each dtype (safetensors names). ``made``,
    ``report`` (of a merge) and ``soup`` (of a search) are None where nothing is known of how the
    model came to be."""

    name: str
    artifact: str
    type: ModelType
    dtypes: Mapping[str, int]
    made: Made | None
    report: MergeReport | None
    soup: SoupReport | None

    @property
    def sizes(self) -> dict[str, object]:
        """The sizes that the configuration tells, such as ``hidden``."""
        config = self.type.config or {}
        config = {**config, "num_hidden_layers": config.get(layers_key(config))}
        return {name: config[key] for name, key in SIZES if config.get(key) is not None}

    def to_json(self) -> dict[str, object]:
        """As ``recipe info --format json`` prints it."""
        tokenizer, made = self.type.tokenizer, self.made
        return {
            "schema": SCHEMA,
            "name": self.name,
            "artifact": self.artifact or None,
            "architecture": self.type.architecture,
            "sizes": self.sizes,
            "parameters": self.type.parameters,
            "tensors": len(self.type.tensors or {}),
            "bytes": self.type.bytes,
            "dtypes": dict(self.dtypes),
            "tokenizer": tokenizer.digest if tokenizer else None,
            "chat_template": self.type.chat_template is not None,
            "made": None if made is None else asdict(made),
            "merge": None if self.report is None else self.report.to_json(),
            "soup": None if self.soup is None else self.soup.to_json(),
        }  # fmt: skip


def describe(name: str, here: Path) -> Info:
    """The model that a text names, as :func:`recipelang.run.sampling.find_model` finds it.

    Raises RecipeError E0859 where there is none, and of band E07 where it cannot be read.
    """
    model = find_model(name, here)
    folder, place = here / name, name.rpartition(":")[2]
    artifact = model.artifact
    if not artifact and folder.is_dir():
        artifact, place = _published(folder)
    kind = checkpoint_type(model.checkpoint)
    dtypes: dict[str, int] = {}
    for info in (kind.tensors or {}).values():
        dtypes[info.dtype] = dtypes.get(info.dtype, 0) + info.elements
    found = _locked(artifact, place, _locks(name, here))
    if found is None:
        report = _report(artifact, here, ("",), read_report)
        soup = _report(artifact, here, ("",), read_soup)
        return Info(name, artifact, kind, dtypes, None, report, soup)
    path, place, steps = found
    names: dict[str, str] = {}
    for step in sorted(steps, key=lambda s: (_searches(steps[s]), len(s), s)):
        names.setdefault(steps[step].out, step)
    keys = [s.key for s in (steps[place], *steps.values()) if s.out == artifact]
    report = _report(artifact, path, keys, read_report)
    soup = _report(artifact, path, keys[:1], read_soup)
    return Info(
        name, artifact, kind, dtypes, _made(path, place, steps, names),
        None if report is None else report.renamed(names),
        None if soup is None else soup.renamed(names),
    )  # fmt: skip


def _published(folder: Path) -> tuple[str, str]:
    """Artifact and step of a folder that was published and not changed since; else empty."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        artifact, place = str(marker["artifact"]), str(marker["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
    return (artifact, place) if is_published(folder, artifact) else ("", "")


def _locks(name: str, here: Path) -> Iterable[Path]:
    """Lock files that may tell of the model: of the recipe that is named, else those in this folder
    and, for a folder, above it."""
    file, colon, _ = name.rpartition(":")
    if colon and file.endswith(".recipe"):
        return [here / f"{file}.lock"]
    above = (here / name).resolve().parents if (here / name).exists() else ()
    folders = dict.fromkeys((here.resolve(), *above))
    return [path for folder in folders for path in sorted(folder.glob("*.recipe.lock"))]


def _locked(
    artifact: str, place: str, locks: Iterable[Path]
) -> tuple[Path, str, Mapping[str, LockedStep]] | None:
    """The first lock with a step that gave the artifact: that of this place if it did, else the
    first by name."""
    for path in locks if artifact else ():
        try:
            steps = read_lock(path).steps
        except RecipeError:
            continue
        gave = sorted(name for name, step in steps.items() if step.out == artifact)
        if gave:
            return path, place if place in gave else gave[0], steps
    return None


def _made(
    path: Path, place: str, steps: Mapping[str, LockedStep], names: Mapping[str, str]
) -> Made:
    """From the step down through those without a binding of their own (``student.1``)."""
    chain: dict[str, MadeStep] = {}
    stack = [place]
    while stack:
        name = stack.pop()
        if name in chain:
            continue
        step = steps[name]
        inputs = {
            role: tuple(names.get(i, i[:12]) for i in ids) for role, ids in step.inputs.items()
        }
        verb = step.op.partition("@")[0]
        chain[name] = MadeStep(name, verb, inputs, _settings(verb, step), step.uri)
        own = (f"{place}.", f"{place}/")
        inner = [n for found in inputs.values() for n in found if n.startswith(own)]
        stack.extend(reversed(inner))
    return Made(path.name.removesuffix(".lock"), tuple(chain.values()))


def _settings(verb: str, step: LockedStep) -> dict[str, str]:
    """What the step sets other than its operation's defaults; one value where all inputs share
    it."""
    operation = lookup(verb)
    found: dict[str, str] = {}
    for name, value in step.params.items():
        values = as_list(value)
        if values and all(one == values[0] for one in values):
            value = values[0]
        field = operation.field(name) if operation else None
        if field is None or isinstance(field.default, Mark) or value != canonical(field.default):
            found[name] = to_text(value)
    return found


def _searches(step: LockedStep) -> bool:
    """Whether the step chose its result, which may be one of its inputs: that has the name of the
    step that made it."""
    operation = lookup(step.op.partition("@")[0])
    return operation is not None and operation.kind == "search"


def _report(
    artifact: str, near: Path, keys: Iterable[str], read: Callable[[object], Report | None]
) -> Report | None:
    """The report by the first of these actions that has one (an empty key: by any action)."""
    store = Store.open_for(near)
    found = (read(store.report(artifact, key)) for key in keys) if artifact else ()
    return next((report for report in found if report is not None), None)
