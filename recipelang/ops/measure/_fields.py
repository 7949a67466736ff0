"""The fields of every metric that scores a model on data, and what is checked of both.

Example:
    >>> from recipelang.ops.spec import read_signature
    >>> [f.name for f in read_signature(scoring_fields)[1]]
    ['length', 'precision', 'supervise', 'seed', 'micro_batch']
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from recipelang.ops.spec import DRAWS, HINT, Cost, Examples, Fault, Range, Tokens, Typed
from recipelang.ops.train._rules import FORMATS, check_tokenizer
from recipelang.types import DatasetType, MeasuredType, ModelType, Type

__all__ = ["Precision", "check_pairs", "lower_is_better", "scoring_cost", "scoring_fields"]

Precision = Annotated[
    Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"] | None,
    "what is computed in [the model's stored dtype]",
]


def scoring_fields(
    length: Annotated[
        Tokens | None, Range(2), "tokens of a window [the dataset's, else 1024]"
    ] = None,
    precision: Precision = None,
    supervise: Annotated[
        Literal["completion", "assistant", "all"] | None,
        "what is scored [by format: completion, assistant, or all of a text]",
    ] = None,
    seed: Annotated[int, DRAWS, "keys the resamples of the interval"] = 0,
    micro_batch: Annotated[
        Examples | None, Range(1), HINT, "windows in memory at a time [as fits]"
    ] = None,
) -> None:
    """The fields that `loss`, `perplexity` and `bits-per-byte` share."""


def check_pairs(
    step: Typed, models: Iterable[Type | None], roles: tuple[str, ...] = ("data",)
) -> None:
    """Raise the first :class:`Fault` of scoring these models on the datasets of these roles."""
    known = [m for m in models if isinstance(m, ModelType) and m.config is not None]
    for model in known:
        check_tokenizer(model, "model")
    for role in roles:
        found = step.types.get(role, ())
        for i, data in enumerate(found):
            if not isinstance(data, DatasetType) or data.format is None:
                continue
            at = f"{role}[{i}]" if len(found) > 1 else role
            if data.format not in FORMATS:
                raise Fault(
                    "E0776",
                    f"this scores text, prompt-completion or chat, found {data.format}",
                    at=at,
                    help="measure it on data of one of these formats",
                )
            supervise = step.fields.get("supervise")
            if isinstance(supervise, str) and supervise not in FORMATS[data.format]:
                raise Fault(
                    "E0778",
                    f"`supervise = {supervise}` selects nothing in a dataset of format "
                    f"{data.format}",
                    at="supervise",
                    label="selects nothing",
                    help="choose one of " + ", ".join(f"`{s}`" for s in FORMATS[data.format]),
                )
            if data.format == "chat" and not data.template:
                for model in known:
                    if not model.chat_template:
                        raise Fault(
                            "E0779",
                            "the data are chats, but the model has no chat template",
                            at=at,
                            help='give one: `dataset "…" { template = "chatml.jinja" }`',
                        )


def lower_is_better(step: Typed) -> MeasuredType:
    """The type of a metric on one model and dataset whose smaller values are better."""
    check_pairs(step, step.types.get("model", ()))
    return MeasuredType("min")


def scoring_cost(step: Typed) -> Cost:
    """Two floating-point operations a parameter and token, for every model and dataset."""
    models = [
        m
        for role in ("model", "models")
        for m in step.types.get(role, ())
        if isinstance(m, ModelType)
    ]
    data = [d for d in step.types.get("data", ()) if isinstance(d, DatasetType)]
    tokens = sum(d.take_tokens or (d.bytes or 0) // 4 for d in data)
    sizes = [m.bytes or 0 for m in models]
    parameters = sum(m.parameters or 0 for m in models)
    return Cost(
        2.0 * parameters * tokens, sum(sizes), 0, 2 * max(sizes, default=0), tokens * len(models)
    )
