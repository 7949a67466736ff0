"""Structures beside merges: layers, stacks, adapters, casts, vocabularies and numbers that vary by
tensor, each with what it is in float64.

A verb that is neither a merge nor here has no row in the table, which a test notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipelang.values import Form
from recipelang.weights.region import Operand, Step
from tests.ops_merge import decompositions, reference
from tests.ops_merge.references import Tensors, expected, wide
from tests.weights.adapters import KINDS, low_rank, model_shapes, wanted
from tests.weights.models import Memory, near, random_model
from tests.weights.words import aligned, step, tokens_of
from tests.weights.words import family as family_of_words

DEPTH = 4
UP, NORM = "mlp.up_proj.weight", "input_layernorm.weight"
ENDS = {"model.embed_tokens.weight": (7, 6), "model.norm.weight": (6,), "lm_head.weight": (7, 6)}
SHAPES = {
    **ENDS,
    **{f"model.layers.{i}.{UP}": (8, 6) for i in range(DEPTH)},
    **{f"model.layers.{i}.{NORM}": (6,) for i in range(DEPTH)},
}
CONFIG = {"num_hidden_layers": DEPTH, "hidden_size": 6, "vocab_size": 7, "model_type": "llama"}


def same(tensors: Tensors) -> Tensors:
    """Tensors as they are."""
    return tensors


@dataclass(frozen=True, eq=False)
class Structure:
    """A step, its float64 reference, and what of the result is compared with that."""

    verb: str
    setting: str
    step: Step
    expected: Callable[[], Tensors]
    read: Callable[[Tensors], Tensors] = same


def structures(dtype: str, folder: Path) -> Iterator[Structure]:
    """All of them for models that are stored so; tokenizers are written into the folder."""
    base = random_model(7, SHAPES, dtype)
    base = Memory(base.arrays, CONFIG)
    a, b = near(base, 8), near(base, 9)
    yield from _layers(a, b)
    yield from _varying(a, b)
    yield from _dtypes(a, b)
    yield from _applied(dtype)
    yield from _extracted(a, base)
    yield from _vocabularies(dtype, folder)


def _range(of: Operand, start: int, stop: int) -> Step:
    return step("layers", {"model": [of]}, start=start, stop=stop)


def _stacked(*places: tuple[Memory, int], ends: tuple[Memory, Memory]) -> Tensors:
    """These layers one above the other, the embedding of the first end, norm and head of the
    last."""
    first, last = (wide(model) for model in ends)
    found = {n: (first if "embed" in n else last)[n] for n in ENDS}
    for i, (model, layer) in enumerate(places):
        for part in (UP, NORM):
            found[f"model.layers.{i}.{part}"] = wide(model)[f"model.layers.{layer}.{part}"]
    return found


def _layers(a: Memory, b: Memory) -> Iterator[Structure]:
    """What is moved is copied, what is scaled is rounded once."""
    part = _range(a, 1, 3)
    mine = _stacked((a, 1), (a, 2), ends=(a, a))
    theirs = _stacked((b, 1), (b, 2), ends=(b, b))
    yield Structure("layers", "`a.layers(1, 3)`", part, lambda: mine)
    slices = [_range(a, 0, 2), _range(b, 1, 4)]
    tall = _stacked((a, 0), (a, 1), (b, 1), (b, 2), (b, 3), ends=(a, b))
    made = step("stack", {"inputs": slices})
    yield Structure("stack", "`a.layers(0, 2)` with `b.layers(1, 4)`", made, lambda: tall)
    made = step("stack", {"inputs": slices}, scale=0.4)
    yield Structure(
        "stack", "the same, scale = 0.4", made, lambda: {n: 0.4 * x for n, x in tall.items()}
    )
    made = step("linear-merge", {"inputs": [part, _range(b, 1, 3)]}, weight=(1.0, 0.4))
    yield Structure(
        "linear-merge", "`a.layers(1, 3)` with `b.layers(1, 3)`, weight = 0.4", made,
        lambda: {n: reference.linear([mine[n], theirs[n]], (1.0, 0.4)) for n in mine},
    )  # fmt: skip
    few = _stacked((a, 0), (a, 3), ends=(a, a))
    yield Structure("shrink", "layers = 2", step("shrink", {"model": [a]}, layers=2), lambda: few)


def _varying(a: Memory, b: Memory) -> Iterator[Structure]:
    """Numbers that a tensor's depth or name gives."""

    def ramp(name: str) -> float:
        layer = name.split(".")[2] if ".layers." in name else None
        depth = int(layer) / (DEPTH - 1) if layer else float("embed" not in name)
        return 0.2 + 0.6 * depth

    made = step("slerp-merge", {"inputs": [a, b]}, t=Form("gradient", (("0", 0.2), ("1", 0.8))))
    yield Structure(
        "slerp-merge", "t = gradient(0.2, 0.8)", made,
        lambda made=made: expected(made, lambda name: {"t": ramp(name)}),
    )  # fmt: skip
    per = Form("per", (("up_proj", 0.4), ("*", 0.7)))
    made = step("linear-merge", {"inputs": [a, b]}, weight=(1.0, per))
    yield Structure(
        "linear-merge", 'weight = per { "up_proj" = 0.4, "*" = 0.7 }', made,
        lambda: expected(made, lambda name: {"weight": (1.0, 0.4 if "up_proj" in name else 0.7)}),
    )  # fmt: skip


def _dtypes(a: Memory, b: Memory) -> Iterator[Structure]:
    """Results in another dtype than the models'."""
    for dtype in ("f32", "bf16", "f16"):
        made = step("cast", {"model": [a]}, dtype=dtype)
        yield Structure("cast", f"dtype = {dtype}", made, lambda: wide(a))
        made = step("linear-merge", {"inputs": [a, b]}, dtype=dtype)
        yield Structure("linear-merge", f"dtype = {dtype}", made, lambda m=made: expected(m))


def _applied(dtype: str) -> Iterator[Structure]:
    """Every kind of adapter, applied and as the inputs of a merge."""
    base = random_model(1, model_shapes(), dtype, 0.1)
    steps: list[Step] = []
    results: list[Tensors] = []
    for kind in KINDS:
        change = low_rank(kind)
        made = step("apply", {"adapter": [change], "model": [base]})
        result = wanted(base, change)
        yield Structure("apply", WORDS_OF_KINDS[kind], made, lambda result=result: result)
        steps.append(made)
        results.append({n: x.astype(base.arrays[n].dtype) for n, x in result.items()})
    made = step("task-arithmetic-merge", {"inputs": steps[:2], "base": [base]}, weight=(0.4, 0.5))

    def merged() -> Tensors:
        return {
            n: reference.task_arithmetic(x, [r[n] for r in results[:2]], (0.4, 0.5))
            for n, x in base.arrays.items()
        }

    yield Structure("task-arithmetic-merge", "inputs that are adapters", made, merged)
    change = low_rank("lora")
    made = step("add-delta", {"model": [base], "delta": [change]}, scale=0.4)

    def part() -> Tensors:
        whole = wanted(base, change)
        return {n: x + 0.4 * (whole[n] - x) for n, x in wide(base).items()}

    yield Structure("add-delta", "an adapter, scale = 0.4", made, part)


WORDS_OF_KINDS = {
    "lora": "LoRA of linear layers, a Conv1D, an embedding",
    "rslora": "rsLoRA of the same",
    "dora": "DoRA of the same",
    "whole": "LoRA of the same, other tensors replaced",
}


def _extracted(model: Memory, base: Memory) -> Iterator[Structure]:
    """s B A, with s = alpha / rank, beside the truncated decomposition of the change."""
    names = [name for name in SHAPES if UP in name]

    def truncated() -> Tensors:
        new, old = wide(model), wide(base)
        return {n: decompositions.truncated(new[n] - old[n], 3) for n in names}

    def products(scale: float) -> Callable[[Tensors], Tensors]:
        def read(factors: Tensors) -> Tensors:
            stems = {n: f"base_model.model.{n.removesuffix('.weight')}.lora_" for n in names}
            pairs = {n: [factors[f"{s}{x}.weight"].astype(np.float64) for x in "BA"]
                     for n, s in stems.items()}  # fmt: skip
            return {n: scale * b @ a for n, (b, a) in pairs.items()}

        return read

    settings: tuple[tuple[str, Mapping[str, Any], float], ...] = (
        ("rank = 3: s B A", {}, 1.0),
        ("rank = 3, alpha = 6: s B A", {"alpha": 6.0}, 2.0),
    )
    for setting, fields, scale in settings:
        made = step("extract-adapter", {"model": [model], "base": [base]}, rank=3, **fields)
        yield Structure("extract-adapter", setting, made, truncated, products(scale))


def _vocabularies(dtype: str, folder: Path) -> Iterator[Structure]:
    """Models with other tokens, whose rows are taken one by one."""
    *models, base = family_of_words(folder, dtype)
    weights = (0.5, 0.75, 1.0)
    for policy in ("union", "of-subject", "of-base"):
        made = step(
            "task-arithmetic-merge", {"inputs": models, "base": [base]},
            weight=weights, vocabulary=policy,
        )  # fmt: skip

        def rows(made: Step = made) -> Tensors:
            found: Tensors = {}
            for name, info in made.tensors.items():
                arrays = [m.arrays[name] for m in (*models, base)]
                if name.startswith(("model.embed", "lm_head")):
                    count = info.shape[0]
                    arrays = aligned(name, tokens_of(made), count, [*models, base], base)
                *tuned, root = arrays
                found[name] = reference.task_arithmetic(root, tuned, weights)
            return found

        yield Structure("task-arithmetic-merge", f"vocabulary = {policy}", made, rows)
