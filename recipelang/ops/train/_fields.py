"""The fields of everything that trains, and the settings they accept: schedules, optimiser,
adapters.

Defaults follow the field's practice: AdamW 0.9, 0.999, 1e-8 without decay, clipping at 1, cosine
decay with a short warm-up, lr 2e-5 for whole models and 2e-4 for adapters (Dettmers et al. 2023,
arXiv 2305.14314).

Example:
    >>> from recipelang.ops.spec import read_signature
    >>> [f.name for f in read_signature(training_fields)[1]][:4]
    ['steps', 'epochs', 'batch', 'length']
"""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import (
    DRAWS,
    HINT,
    Duration,
    Epochs,
    Examples,
    Range,
    Steps,
    Tokens,
    forms,
    units,
)
from recipelang.values import Form, Quantity

__all__ = ["adamw", "constant", "cosine", "linear", "lora", "training_fields", "wsd"]

Warmup = Annotated[
    Quantity, units("fraction", "steps"), "length of the linear warm-up, in steps or as a share"
]
THREE_PERCENT = Quantity(0.03, "fraction")
NO_STEPS = Quantity(0, "steps")
TEN_PERCENT = Quantity(0.1, "fraction")
COSINE = Form("cosine", (("warmup", THREE_PERCENT),))
ADAMW = Form("adamw")


def constant(warmup: Warmup = NO_STEPS) -> None:
    """The peak rate throughout, after the warm-up."""


def linear(
    warmup: Warmup = THREE_PERCENT,
    final: Annotated[float, Range(0, 1), "last factor on the peak rate"] = 0.0,
) -> None:
    """From the peak down to `final` times the peak in a straight line."""


def cosine(
    warmup: Warmup = THREE_PERCENT,
    final: Annotated[float, Range(0, 1), "last factor on the peak rate"] = 0.0,
) -> None:
    """From the peak down to `final` times the peak along half a cosine (arXiv 1608.03983)."""


def wsd(
    warmup: Warmup = THREE_PERCENT,
    decay: Annotated[
        Quantity, units("fraction", "steps"), "length of the decay at the end"
    ] = TEN_PERCENT,
    final: Annotated[float, Range(0, 1), "last factor on the peak rate"] = 0.0,
) -> None:
    """Warm-up, stable, decay: the peak until a linear decay at the end (arXiv 2404.06395)."""


def adamw(
    beta1: Annotated[float, Range(0, 1, open_high=True), "decay of the first moment"] = 0.9,
    beta2: Annotated[float, Range(0, 1, open_high=True), "decay of the second moment"] = 0.999,
    eps: Annotated[float, Range(0, open_low=True), "added to the root of the second moment"] = 1e-8,
) -> None:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""


def lora(
    rank: Annotated[int, Range(1), "rank of the update"] = 16,
    alpha: Annotated[float, Range(0, open_low=True), "the update is scaled by alpha / rank"] = 32.0,
    targets: Annotated[
        list[str | Literal["all-linear"]],  # noqa: PYI051
        "the adapted weights: names or globs; all-linear is all matrices but embeddings and head",
    ] = ("all-linear",),  # type: ignore[assignment]
    dropout: Annotated[float, Range(0, 1, open_high=True), "dropout on the adapter's input"] = 0.0,
    variant: Annotated[
        Literal["lora", "rslora"], "rslora scales by alpha / sqrt(rank) (arXiv 2312.03732)"
    ] = "lora",
) -> None:
    """Train a low-rank update of some weights, keep the rest (Hu et al. 2021, arXiv 2106.09685)."""


def training_fields(
    steps: Annotated[Steps | None, Range(1), "how long: optimiser steps, or `epochs`"] = None,
    epochs: Annotated[
        Epochs | None, Range(0, open_low=True), "how long: passes over the data [1 when neither]"
    ] = None,
    batch: Annotated[Examples, Range(1), "examples, or packed rows, of one optimiser step"] = 8,
    length: Annotated[Tokens | None, Range(2), "tokens of a row [the dataset's, else 1024]"] = None,
    lr: Annotated[float | None, Range(0), "peak learning rate [2e-5; 2e-4 with an adapter]"] = None,
    schedule: Annotated[
        Form, forms(constant, linear, cosine, wsd), "the learning rate over the steps"
    ] = COSINE,
    optimizer: Annotated[Form, forms(adamw), "the update rule"] = ADAMW,
    weight_decay: Annotated[
        float, Range(0), "decoupled decay of tensors with two or more dimensions"
    ] = 0.0,
    clip: Annotated[
        float | None, Range(0, open_low=True), "largest L2 norm of the gradient; none: no clipping"
    ] = 1.0,
    precision: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"] | None,
        "what is computed in [the model's stored dtype]; masters and moments are float32",
    ] = None,
    adapter: Annotated[Form | None, forms(lora), "train an adapter instead of the weights"] = None,
    train: Annotated[
        list[str | Literal["all"]],  # noqa: PYI051
        "the trained tensors, as globs over their names",
    ] = ("all",),  # type: ignore[assignment]
    freeze: Annotated[list[str], "tensors that stay as they are, as globs"] = (),  # type: ignore[assignment]
    packing: Annotated[bool, "several documents in a row, none of which sees another"] = True,
    overflow: Annotated[
        Literal["cut", "split", "drop", "error"],
        "documents longer than a row; cut ones are counted",
    ] = "cut",
    supervise: Annotated[
        Literal["completion", "assistant", "all"] | None,
        "what the loss counts [by format: completion, assistant, or all of a text]",
    ] = None,
    seed: Annotated[int, DRAWS, "keys the order of the data, initial adapters and dropout"] = 0,
    every: Annotated[Steps | None, Range(1), "evaluate on `over` every so many steps"] = None,
    checkpoint: Annotated[Duration, Range(0), HINT, "time between checkpoints"] = 600.0,
    micro_batch: Annotated[
        Examples | None, Range(1), HINT, "rows in memory at a time [as fits]"
    ] = None,
    recompute: Annotated[bool | None, HINT, "recompute activations backwards [as fits]"] = None,
) -> None:
    """The fields that `finetune`, `distill` and other training steps share."""
