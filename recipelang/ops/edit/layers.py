"""layers: a range of layers of a model, `m.layers(8, 24)` in a recipe."""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import OF, TENSOR, Cost, Fault, Model, Range, Typed, operation
from recipelang.types import LayersType
from recipelang.weights.compatibility import model_of, streaming_cost
from recipelang.weights.kernel import Copy
from recipelang.weights.layers import count_layers, layer_of, renumbered, select_layers


def layers_result(typed: Typed) -> LayersType:
    """The layers, numbered from 0. Raises Fault E0630 for a range that the model does not have."""
    model = model_of(typed.one("model"))
    start, stop = typed.fields["start"], typed.fields["stop"]
    assert isinstance(start, int)
    assert isinstance(stop, int)
    name = typed.places.get("model", ("m",))[0]
    if start >= stop:
        swapped = f"`{name}.layers({stop}, {start})`" if stop < start else ""
        raise Fault(
            "E0630",
            f"no layer is in `layers({start}, {stop})`",
            at="stop",
            label="the range ends before this layer",
            help=f"did you mean {swapped}?"
            if swapped
            else f"one layer is `layers({start}, "
            f"{start + 1})`: the second number is the first layer that stays out",
        )
    count = count_layers(model, name, "model")
    if count is None:
        return LayersType(model, stop - start)
    if stop > count:
        raise Fault(
            "E0630",
            f"`{name}` has {count} layers, and the range ends at {stop}",
            at="stop" if start < count else "start",
            label=f"expected at most {count}" if start < count else f"expected less than {count}",
            help=f"layers are counted from 0; all of them are `{name}.layers(0, {count})`",
        )
    return LayersType(select_layers(model, range(start, stop)), stop - start)


def layers_cost(typed: Typed) -> Cost:
    """One pass over what is taken."""
    return streaming_cost(typed, layers_result(typed))


@operation(
    kind="weights",
    result="Layers",
    result_type=layers_result,
    cost=layers_cost,
    internal=True,
    laws=("moves_tensors",),
)
def layers(
    model: Annotated[Model, OF, "what they are layers of"],
    tensor: Annotated[str, TENSOR],
    start: Annotated[int, Range(0), "the first layer, from 0"],
    stop: Annotated[int, Range(0), "the first layer that stays out"],
) -> Copy:
    """The layers from `start` up to `stop`, numbered from 0, with the tensors outside the layers
    beside them."""
    layer = layer_of(tensor)
    return Copy("model", name=tensor if layer is None else renumbered(tensor, layer + start))
