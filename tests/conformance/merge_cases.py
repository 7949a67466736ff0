"""Every merge of the registry in several settings, on a device's arrays beside the host's numpy.

The settings come from the declarations, so a new verb is tested without an edit here. Run as a
program it prints, for the best device of a backend, each verb's largest difference from the host:

    python -m tests.conformance.merge_cases --backend torch
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import FieldSpec, Operation
from recipelang.weights.arrays import HOST, Arrays
from recipelang.weights.region import Operand, Step, make_step
from tests.weights.models import Memory, compute, near, random_model

DTYPES = ("F32", "BF16", "F16", "F64")
SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.a": (4, 1),
    "model.layers.2.a": (5,),
    "model.norm.weight": (6,),
}
EPSILON = {"F64": 2.0**-52, "F32": 2.0**-23, "BF16": 2.0**-7, "F16": 2.0**-10}
UNITS = 4
"""Units of float32 (float64 for F64) of a tensor's largest number that device and host may differ
by before the result is rounded; afterwards 16-bit results may differ by one unit more."""

ELSEWHERE = ("nonfinite", "dtype", "vocabulary")
"""Fields of every merge that no kernel sees."""
ROUNDED_CHOICES = frozenset({("fusion-merge", "compat = mergekit")})
"""Where a whole number is taken from one model or another by a comparison of float32 exponentials
and logarithms, which libraries round differently. There a tenth of a tensor's numbers may be the
other model's."""


@dataclass(frozen=True, eq=False)
class Case:
    """A step and what it was made of."""

    verb: str
    setting: str
    step: Step
    models: tuple[Memory, ...]


def merge_verbs() -> list[str]:
    """The weight operations whose files are in a folder ``merge``; a soup there is a search."""
    merges = [verb for verb, (file, _) in verbs().items() if file.parent.name == "merge"]
    return sorted(v for v in merges if (found := lookup(v)) and found.kind == "weights")


def family(dtype: str) -> tuple[Memory, ...]:
    """A base and three fine-tunes; one leaves a tensor as it was, so that magnitudes are equal."""
    base = random_model(3, SHAPES, dtype)
    tuned = [near(base, seed) for seed in (4, 5, 6)]
    same = dict(tuned[1].arrays) | {"model.norm.weight": base.arrays["model.norm.weight"]}
    return base, tuned[0], Memory(same), tuned[2]


def cases(verb: str, dtype: str) -> Iterator[Case]:
    """The verb with its defaults, with every number set, and from there with each other choice."""
    operation = lookup(verb)
    assert operation is not None
    models = family(dtype)
    roles = _roles(operation, models)
    count = len(roles.get("inputs", ()))
    fields = [f for f in operation.fields if f.name not in ELSEWHERE]
    needed: dict[str, Any] = {}
    for spec in fields:
        if spec.required:
            needed[spec.name] = next(iter(_numbers(spec, count)))
    yield Case(verb, "defaults", make_step(operation, roles, needed), models)
    numbers = dict(needed)
    for spec in fields:
        for value in _numbers(spec, count):
            tried = {**numbers, spec.name: value}
            if _makes(operation, roles, tried):
                numbers = tried
                break
        else:
            assert spec.kind not in ("int", "float"), f"no value found for {verb}'s {spec.name}"
    yield Case(verb, _text(numbers), make_step(operation, roles, numbers), models)
    for spec in fields:
        for value in _choices(spec):
            tried = {**numbers, spec.name: value}
            if value != spec.default and _makes(operation, roles, tried):
                yield Case(verb, _text(tried), make_step(operation, roles, tried), models)


def difference(case: Case, arrays: Arrays, folder: Path) -> dict[str, tuple[float, float]]:
    """Tensor -> the largest difference from the host, and the largest share of the bound that a
    number uses up (up to 1 is as it should be)."""
    expected, _ = compute(case.step, folder / "host", arrays=HOST)
    got, _ = compute(case.step, folder / "device", arrays=arrays)
    found: dict[str, tuple[float, float]] = {}
    for name, host in expected.items():
        dtype = case.step.tensors[name].dtype
        wide, device = host.astype(np.float64), got[name].astype(np.float64)
        size = max(
            float(np.max(np.abs(values.astype(np.float64))))
            for values in (host, *(model.arrays[name] for model in case.models))
        )
        bound = UNITS * EPSILON["F64" if dtype == "F64" else "F32"] * size
        if dtype in ("BF16", "F16"):
            bound = bound + EPSILON[dtype] * np.abs(wide) + (2.0**-24 if dtype == "F16" else 0.0)
        apart = np.abs(device - wide)
        if (case.verb, case.setting) in ROUNDED_CHOICES:
            theirs = [model.arrays[name].astype(np.float64) for model in case.models]
            other = (apart > bound) & np.any([device == values for values in theirs], axis=0)
            apart = np.where(other & (other.mean() <= 0.1), 0.0, apart)
        found[name] = float(np.max(apart)), float(np.max(apart / bound))
    return found


def _roles(operation: Operation, models: tuple[Memory, ...]) -> dict[str, tuple[Operand, ...]]:
    """The base, and three inputs where the verb takes so many."""
    base, *tuned = models
    change = lookup("delta")
    assert change is not None
    roles: dict[str, tuple[Operand, ...]] = {}
    given: Iterator[Operand] = iter(models)
    for operand in operation.operands:
        if operand.many:
            roles[operand.name] = tuple(tuned)
        elif operand.type.split("|")[0] == "Delta":
            pair: dict[str, tuple[Operand, ...]] = {"of": (next(given),), "minus": (tuned[2],)}
            roles[operand.name] = (make_step(change, pair, {}),)
        else:
            roles[operand.name] = (base if operand.name == "base" else next(given),)
    needed = {
        f.name: next(iter(_numbers(f, len(tuned)))) for f in operation.fields if f.required
    }  # fmt: skip
    if not _makes(operation, roles, needed):
        roles["inputs"] = roles["inputs"][:2]
    return roles


def _makes(operation: Operation, roles: dict[str, tuple[Operand, ...]], fields: Any) -> bool:
    """Whether the verb allows these settings."""
    try:
        make_step(operation, roles, fields)
    except RecipeError:
        return False
    return True


def _numbers(spec: FieldSpec, count: int) -> Iterator[Any]:
    """Values for a field of numbers, the first that a verb takes is used; another for each
    input."""
    values = {"int": (3, 1), "float": (0.4, 0.15, 0.05, 2.0)}.get(spec.kind, ())
    for value in values:
        each = tuple(round(value * (1 + i / 4), 4) for i in range(count))
        yield each if spec.per_input else value


def _choices(spec: FieldSpec) -> tuple[Any, ...]:
    return (True, False) if spec.kind == "bool" else spec.choices


def _text(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in fields.items())


def main() -> None:
    """Print a line a verb and dtype."""
    from recipelang.backend import find

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default=None, help="torch or jax")
    backend = find(parser.parse_args().backend)
    arrays = backend.arrays()
    print(f"{backend.version} on {backend.devices()[0].name}")
    print(f"{'verb':<24}{'dtype':<6}{'settings':>9}{'difference':>13}{'of bound':>10}")
    worst = 0.0
    for verb in merge_verbs():
        for dtype in DTYPES:
            rows: list[tuple[float, float]] = []
            made = list(cases(verb, dtype))
            for case in made:
                with tempfile.TemporaryDirectory() as folder:
                    rows += difference(case, arrays, Path(folder)).values()
            most, share = max(d for d, _ in rows), max(s for _, s in rows)
            worst = max(worst, share)
            print(f"{verb:<24}{dtype:<6}{len(made):>9}{most:>13.2e}{share:>10.3f}")
    print("all within the bound" if worst <= 1 else "OUTSIDE THE BOUND")
    raise SystemExit(worst > 1)


if __name__ == "__main__":
    main()
