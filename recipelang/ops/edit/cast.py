"""cast: a model stored in another dtype."""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import SUBJECT, Cost, Model, Typed, operation
from recipelang.types import ModelType
from recipelang.weights.compatibility import model_of, streaming_cost, wanted_dtype
from recipelang.weights.kernel import Copy
from recipelang.weights.metadata import with_dtype


def cast_result(typed: Typed) -> ModelType:
    """The model's type in the dtype."""
    return with_dtype(model_of(typed.one("model")), wanted_dtype(typed))


def cast_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, cast_result(typed))


@operation(
    kind="weights", result="Model", origin="model", laws=("idempotent",), result_type=cast_result,
    cost=cast_cost,
)  # fmt: skip
def cast(
    model: Annotated[Model, SUBJECT, "what is cast"],
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"],
        "how it is stored from here on",
    ],
    nonfinite: Annotated[
        Literal["error", "allow"], "whether numbers that do not fit (f16 ends at 65504) stop it"
    ] = "error",
) -> Copy:
    """Every floating-point tensor rounded to nearest, ties to even; other tensors stay.

    half = cast base { dtype = bf16 }
    """
    return Copy("model")
