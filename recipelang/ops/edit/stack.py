"""stack: layers of one or more models on top of each other (depth up-scaling, Kim et al. 2023,
arXiv 2312.15166; the passthrough of mergekit)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import (
    BLOCK,
    LAYERS,
    SUBJECT,
    TENSOR,
    WITH,
    Cost,
    Layers,
    Model,
    PerInput,
    PerTensor,
    Typed,
    operation,
)  # fmt: skip
from recipelang.types import ModelType
from recipelang.weights.compatibility import model_of, streaming_cost, wanted_dtype
from recipelang.weights.kernel import Copy
from recipelang.weights.metadata import with_dtype
from recipelang.weights.stacking import Slice, slice_of, stacked_type


def stack_result(typed: Typed) -> ModelType:
    """Tensors renumbered, configuration rewritten. Raises Fault E0601, E0602, E0633."""
    names = typed.places.get("inputs", ())
    slices = [
        Slice(f"inputs[{i}]", names[i] if i < len(names) else f"slice {i + 1}", model_of(type_))
        for i, type_ in enumerate(typed.types["inputs"])
    ]
    return with_dtype(stacked_type(slices), wanted_dtype(typed))


def stack_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, stack_result(typed))


@operation(
    kind="weights",
    result="Model",
    laws=("moves_tensors",),
    result_type=stack_result,
    cost=stack_cost,
)
def stack(
    inputs: Annotated[list[Model | Layers], SUBJECT, WITH, "the slices, from the bottom up"],
    tensor: Annotated[str, TENSOR],
    depths: Annotated[tuple[int, ...], LAYERS],
    scale: Annotated[PerInput[PerTensor[float]], BLOCK, "factor on the slice's tensors"] = 1.0,
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"] | None,
        "how the result is stored; as the first slice when left out",
    ] = None,
    nonfinite: Annotated[
        Literal["error", "allow"], "whether infinities and NaN in what is scaled stop it"
    ] = "error",
) -> Copy:
    """A model of the slices' layers, one slice on top of the other, numbered anew.

    A whole model is a slice of all its layers, and a merge of layers is a slice too.

    What stands before the layers (the embeddings) comes from the first slice's model, what stands
    behind them (the last norm and the head) from the last one's, the configuration and the
    tokenizer from the first; all have one width, the same heads and one vocabulary. It is the start
    of a new origin.

    `scale` goes by the tensor's name and depth in the stack, in the block for all slices and on a
    slice for its own. Tensors are copied bit for bit where it is 1 and the dtype stays; otherwise
    they are scaled in float32 and rounded once, and what is no floating-point tensor stays as it
    is. A duplicated layer whose `o_proj` and `down_proj` are scaled by 0 changes nothing at first.

        deep = stack a.layers(0, 16) with b.layers(8, 24)
        deep = stack a with a.layers(8, 24)(scale = per { "o_proj" = 0, "down_proj" = 0, "*" = 1 })
    """
    index, name = slice_of(tensor, depths)
    return Copy("inputs", index, name, scale[index])
