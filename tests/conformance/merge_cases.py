"""Every merge of the registry in several settings, on a device's arrays beside the host's numpy.

The settings come from the declarations, so a new verb is tested without an edit here. Run as a
program it prints, for the best device of a backend, each verb's largest difference from the host:

    python -m tests.conformance.merge_cases --backend torch
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import FieldSpec, Operation
from recipelang.weights.arrays import HOST
from recipelang.weights.region import Operand, Step, make_step
from tests.weights.models import Memory, compute, near, random_model

DTYPES = ("F32", "BF16", "F16", "F64")
SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.a": (4, 1),
    "model.layers.2.a": (3, 4),
    "model.norm.weight": (6,),
}
LARGE, FACTOR = "model.layers.2.a", 2.0**8
"""A tensor whose numbers are a few units, and change by half of one, so that a number of a field
which is compared with changes falls among them."""
EPSILON = {"F64": 2.0**-52, "F32": 2.0**-23, "BF16": 2.0**-7, "F16": 2.0**-10}
UNITS = 4
"""Units of float32 (float64 for F64) of a tensor's largest number that device and host may differ
by before the result is rounded; afterwards 16-bit results may differ by one unit more."""

ELSEWHERE = ("nonfinite", "dtype", "vocabulary")
"""Fields of every merge that no kernel sees."""
MORE = "…"
"""What a setting starts with that has the numbers of the one which sets them all."""
ROUNDED_CHOICES = frozenset({("fusion-merge", f"{MORE} compat = mergekit")})
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
    models = [base, *(near(base, seed) for seed in (4, 5, 6))]
    arrays = [
        {n: a * a.dtype.type(FACTOR) if n == LARGE else a for n, a in model.arrays.items()}
        for model in models
    ]
    arrays[2]["model.norm.weight"] = base.arrays["model.norm.weight"]
    return tuple(Memory(a, base.config) for a in arrays)


def cases(verb: str, dtype: str) -> Iterator[Case]:
    """The verb with its defaults, with every number set, and from there with each other choice and
    without each operand that may be left out."""
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
    yield Case(verb, _text(needed) or "defaults", make_step(operation, roles, needed), models)
    numbers = dict(needed)
    for spec in fields:
        for value in _numbers(spec, count):
            tried = {**numbers, spec.name: value}
            if _makes(operation, roles, tried):
                numbers = tried
                break
        else:
            assert spec.kind not in ("int", "float"), f"no value found for {verb}'s {spec.name}"
    if numbers != needed:
        yield Case(verb, _text(numbers), make_step(operation, roles, numbers), models)
    for spec in fields:
        for value in _choices(spec):
            chosen = _chosen(operation, roles, numbers, spec, value)
            if value != spec.default and chosen is not None:
                made = make_step(operation, roles, {**numbers, **chosen})
                yield Case(verb, f"{MORE} {_text(chosen)}", made, models)
    for operand in operation.operands:
        if operand.optional:
            fewer = {role: given for role, given in roles.items() if role != operand.name}
            made = make_step(operation, fewer, numbers)
            yield Case(verb, f"{MORE} no {operand.name}", made, models)


def _chosen(
    operation: Operation, roles: dict[str, tuple[Operand, ...]], numbers: dict[str, Any],
    spec: FieldSpec, value: Any,
) -> dict[str, Any] | None:  # fmt: skip
    """The choice, beside another one where the verb takes it only so; None where it does not."""
    beside: list[dict[str, Any]] = [{}]
    beside += [
        {f.name: v} for f in operation.fields if f.name not in ELSEWHERE for v in _choices(f)
    ]
    tried = ({**other, spec.name: value} for other in beside)
    return next((t for t in tried if _makes(operation, roles, {**numbers, **t})), None)


def difference(
    case: Case, expected: Mapping[str, Any], got: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Tensor -> the largest difference of what a device got from what the host did, and the largest
    share of the bound that a number uses up (up to 1 is as it should be)."""
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
    input, the third below zero where any number is taken."""
    values = {"int": (3, 1), "float": (0.4, 0.15, 0.05, 2.0)}.get(spec.kind, ())
    for value in values:
        if not spec.per_input:
            yield value
            continue
        each = [round(value * (1 + i / 4), 4) for i in range(count)]
        if spec.range is None and count > 2:
            each[2] = -value / 2
        yield tuple(each)


def _choices(spec: FieldSpec) -> tuple[Any, ...]:
    return (True, False) if spec.kind == "bool" else spec.choices


def _text(fields: dict[str, Any]) -> str:
    """As a recipe writes it; what each input has as a list.

    >>> _text({"weight": (0.4, 0.5), "normalize": False})
    'weight = 0.4 0.5, normalize = false'
    """

    def one(value: Any) -> str:
        parts = value if isinstance(value, tuple) else (value,)
        return " ".join(str(part).lower() for part in parts)

    return ", ".join(f"{name} = {one(value)}" for name, value in fields.items())


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
                    host, _ = compute(case.step, Path(folder) / "host", arrays=HOST)
                    got, _ = compute(case.step, Path(folder) / "device", arrays=arrays)
                    rows += difference(case, host, got).values()
            most, share = max(d for d, _ in rows), max(s for _, s in rows)
            worst = max(worst, share)
            print(f"{verb:<24}{dtype:<6}{len(made):>9}{most:>13.2e}{share:>10.3f}")
    print("all within the bound" if worst <= 1 else "OUTSIDE THE BOUND")
    raise SystemExit(worst > 1)


if __name__ == "__main__":
    main()
