"""What recipelang makes of the cases, beside what mergekit made of them.

Example:
    >>> bench = Bench.open(folder)                                     # doctest: +SKIP
    >>> bench.difference(case, bench.result(case.recipe))              # doctest: +SKIP
    2.9e-08
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.mergekit.cases import Case, load_cases
from benchmarks.mergekit.models import write_model
from recipelang.checking import check_text
from recipelang.diagnostics import RecipeError
from recipelang.ir.graph import Node
from recipelang.ops.registry import lookup
from recipelang.weights.adapter import AdapterFolder
from recipelang.weights.engine import run_region
from recipelang.weights.folder import Folder
from recipelang.weights.region import Operand, Step, make_step
from recipelang.weights.writer import ModelWriter

__all__ = ["FIXTURES", "ROUNDING", "Bench", "Fixtures", "Result", "available_cases"]

FIXTURES = Path(__file__).parents[2] / "tests" / "merging" / "fixtures"
ROUNDING = 2.0**-21
"""Eight roundings of float32, relative to the largest value of a tensor and its inputs: what two
orders of the same arithmetic may differ by."""

SOURCES = """
base = model "base"
a = model "a" from base
b = model "b" from base
c = model "c" from base
far = model "far"
odd = model "odd"
spoken = model "spoken"
wide = model "wide"
tuning = adapter "tuning" from base
"""
COMPAT = "defaults { compat = mergekit }\n"


def available_cases() -> list[Case]:
    """The cases whose verbs exist."""
    return [case for case in load_cases() if all(lookup(verb) for verb in case.verbs)]


@dataclass(frozen=True)
class Fixtures:
    """What make_fixtures.py recorded. ``models``: model -> tensor -> array. ``outputs``: case ->
    one vector. ``masks``: see make_fixtures.py. ``record``: record.json."""

    models: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Any]
    masks: Mapping[str, Any]
    record: Mapping[str, Any]

    @classmethod
    @cache
    def load(cls) -> Fixtures:
        """Read the files."""
        models: dict[str, dict[str, Any]] = {}
        for name, array in load_file(FIXTURES / "models.safetensors").items():
            model, tensor = name.split("/")
            models.setdefault(model, {})[tensor] = array
        record = json.loads((FIXTURES / "record.json").read_text("utf-8"))
        outputs = load_file(FIXTURES / "outputs.safetensors")
        return cls(models, outputs, load_file(FIXTURES / "masks.safetensors"), record)

    def layers(self, case: Case) -> int:
        """The number of layers in mergekit's configuration."""
        count: int = self.record["cases"][case.name]["layers"]
        return count

    def names(self, case: Case) -> list[str]:
        """The tensors of mergekit's result, in order."""
        names: list[str] = self.record["tensors"][str(self.layers(case))]
        return names


@dataclass(frozen=True)
class Result:
    """The tensors of a merge, and the last step that made it."""

    tensors: Mapping[str, Any]
    step: Step


@dataclass(frozen=True)
class Bench:
    """The models of the fixtures as folders, and merges of them."""

    folder: Path
    fixtures: Fixtures = field(default_factory=Fixtures.load)

    @classmethod
    def open(cls, folder: Path) -> Bench:
        """Write the models of the fixtures into a folder."""
        bench = cls(folder)
        for model, tensors in bench.fixtures.models.items():
            write_model(folder / model, model, tensors)
        return bench

    def step(self, recipe: str, *, compat: bool = False) -> Step:
        """The step that a recipe's value stands for, with `compat = mergekit` where it says so.

        Raises RecipeError where the recipe is faulty.
        """
        value = recipe.strip().replace("\n", "\n    ")
        text = f"{COMPAT if compat else ''}{SOURCES}result =\n    {value}\n"
        checked = check_text(text, folder=str(self.folder))
        if checked.program is None:
            raise RecipeError(*checked.sink)
        node = checked.program.bindings["result"]
        assert isinstance(node, Node)
        made = self._operand(node)
        assert isinstance(made, Step)
        return made

    def _operand(self, node: Node) -> Operand:
        uri = node.attr("uri")
        if node.op == "model":
            return Folder.open(self.folder / str(uri))
        if node.op == "adapter":
            return AdapterFolder.open(self.folder / str(uri))
        operation = lookup(node.op)
        assert operation is not None
        operands = {role: [self._operand(n) for n in nodes] for role, nodes in node.operands}
        return make_step(operation, operands, dict(node.attrs))

    def run(self, step: Step) -> Result:
        """The tensors of a step."""
        with TemporaryDirectory(dir=self.folder) as place:
            writer = ModelWriter(Path(place), step.tensors)
            run_region([(step, writer)], threads=1)
            tensors: dict[str, Any] = {}
            for shard in writer.finish().shards:
                tensors |= load_file(shard.path)
        return Result(tensors, step)

    def result(self, recipe: str, *, compat: bool = False) -> Result:
        """The tensors that a recipe's value gives."""
        return self.run(self.step(recipe, compat=compat))

    def outputs(self, case: Case, like: Mapping[str, Any]) -> dict[str, Any] | None:
        """Mergekit's result, cut into tensors like these; None where its shapes are others.

        Raises ValueError where it has tensors of other names.
        """
        names, vector = self.fixtures.names(case), self.fixtures.outputs[case.name]
        if names != sorted(like):
            raise ValueError(f"{case.name}: mergekit gave other tensors")
        ends = np.cumsum([like[name].size for name in names])
        if ends[-1] != vector.size:
            return None
        parts = np.split(vector, ends[:-1])
        return {n: part.reshape(like[n].shape) for n, part in zip(names, parts, strict=True)}

    def difference(self, case: Case, result: Mapping[str, Any]) -> float:
        """The largest difference from mergekit's result, relative to the largest value of the
        tensor or of the inputs' tensors of that name; infinite where mergekit's is not finite or
        of other shapes."""
        theirs = self.outputs(case, result)
        return float("inf") if theirs is None else self.distance(result, theirs)

    def distance(self, left: Mapping[str, Any], right: Mapping[str, Any]) -> float:
        """The largest difference of two results, in the same measure."""
        worst = 0.0
        for name, one in left.items():
            other = np.asarray(right[name], np.float64)
            if not np.isfinite(other).all():
                return float("inf")
            scale = max(self._largest.get(name, 0.0), float(np.abs(other).max()))
            worst = max(worst, float(np.abs(one - other).max()) / scale)
        return worst

    @cached_property
    def _largest(self) -> dict[str, float]:
        """The largest magnitude of every tensor over the models."""
        found: dict[str, float] = {}
        for tensors in self.fixtures.models.values():
            for name, array in tensors.items():
                found[name] = max(found.get(name, 0.0), float(np.abs(array).max()))
        return found
