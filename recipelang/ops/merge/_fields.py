"""Fields that all merges share, and those that several merges of task vectors have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from recipelang.ops.spec import BLOCK, Absent, Fault, Fraction, PerInput, PerTensor, Range, Typed
from recipelang.values import Attr

Density: TypeAlias = Annotated[
    PerInput[PerTensor[Fraction]], BLOCK, Range(0, 1, open_low=True), "share of its entries kept"
]
Spread: TypeAlias = Annotated[
    PerInput[PerTensor[float]], BLOCK, Range(0, 0.5, open_high=True),
    "how far the probabilities spread around the density",
]  # fmt: skip
LargestDropped: TypeAlias = Annotated[
    PerInput[PerTensor[Fraction]], BLOCK, Range(0, 1, open_high=True),
    "share of its largest entries dropped",
]  # fmt: skip
Rescale: TypeAlias = Annotated[
    Literal["none", "inverse", "l1"],
    "what makes up for the entries dropped: their share, or the L1 norm",
]


def base_is_subject(verb: str) -> tuple[tuple[str, str], ...]:
    """What a merge of two says to `from`: its subject is what mergekit calls the base."""
    help = f"what mergekit calls the base is the subject: write `base -> {verb} with x`"
    return (("from", help),)


def merging(
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"] | None,
        "how the result is stored; as the subject when left out",
    ] = None,
    nonfinite: Annotated[
        Literal["error", "allow"], "whether infinities and NaN in weights stop the merge"
    ] = "error",
    compat: Annotated[
        Literal["none", "mergekit"], "whose rule counts where mergekit's definition is another"
    ] = "none",
    vocabulary: Annotated[
        Literal["same", "union", "of-subject", "of-base"],
        Absent("same"),
        "whose tokens the result has; `same`: all models have the same ones",
    ] = "same",
) -> None:
    """Fields of every merge."""


def check_weights(
    typed: Typed,
    *,
    normalized: bool,
    help: str = "change a weight, or write `normalize = false`",
) -> None:
    """Fault E0541 where weights that are divided by their sum add up to zero."""
    weights = typed.fields.get("weight")
    if not normalized or not isinstance(weights, tuple):
        return
    numbers = [w for w in weights if isinstance(w, int | float)]
    if len(numbers) == len(weights) and numbers and sum(numbers) == 0:
        raise Fault(
            "E0541",
            "the weights add up to zero, and the result is divided by their sum",
            at="weight",
            help=help,
        )


def check_pair(typed: Typed, verb: str) -> None:
    """Fault E0542 where a merge of two models gets another number of them."""
    count = len(typed.types.get("inputs", ()))
    if count != 2:
        help = f"merge two, and the result with the next: `-> {verb} with c`"
        at = "inputs[2]" if count > 2 else "inputs"
        raise Fault("E0542", f"`{verb}` takes two models, found {count}", at=at, help=help)


def check_tasks(typed: Typed, verb: str, *, help: str) -> None:
    """Fault E0542 where a merge that compares fine-tuned models gets one alone."""
    if len(typed.types.get("inputs", ())) < 2:
        message = f"`{verb}` compares fine-tuned models, and needs two at least"
        raise Fault("E0542", message, at="inputs", help=help)


def as_mergekit(shared: Mapping[str, object]) -> bool:
    """Whether the field ``compat`` asks for mergekit's rule."""
    return shared["compat"] == "mergekit"


def truthy(value: Attr) -> bool:
    """A boolean field's value."""
    return value is True
