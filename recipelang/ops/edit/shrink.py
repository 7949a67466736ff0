"""shrink: a model with some of its layers, the start of a student (DistilBERT, Sanh et al. 2019,
arXiv 1910.01108)."""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import LAYERS, SUBJECT, TENSOR, Cost, Fault, Model, Range, Typed, operation
from recipelang.types import ModelType
from recipelang.values import Attr
from recipelang.weights.compatibility import model_of, streaming_cost
from recipelang.weights.kernel import Copy
from recipelang.weights.layers import evenly_spaced, layer_of, renumbered, select_layers

CHOICES = ("layers", "keep", "drop")


def kept_layers(fields: dict[str, Attr], count: int) -> tuple[int, ...]:
    """The layers that stay, in order. Raises Fault E0540, E0611."""
    written = [name for name in CHOICES if fields.get(name) is not None]
    if len(written) != 1:
        raise Fault(
            "E0540",
            "`shrink` needs one of `layers`, `keep` and `drop`",
            at=written[1] if written else "",
            help="`layers = 18` spaces them evenly; `keep` and `drop` list layers from 0",
        )
    name = written[0]
    value = fields[name]
    if isinstance(value, int):
        if not 1 <= value <= count:
            text = f"`layers` is {value}, and the model has {count} layers"
            raise Fault("E0611", text, at=name, help=f"keep fewer than {count}")
        return evenly_spaced(count, value)
    listed = [i for i in value if isinstance(i, int)] if isinstance(value, tuple) else []
    for i in listed:
        if not 0 <= i < count:
            raise Fault(
                "E0611",
                f"there is no layer {i}: the model has {count}, from 0 to {count - 1}",
                at=name,
                help=f"layers are counted from 0: the last one is {count - 1}",
            )
    if len(set(listed)) != len(listed):
        raise Fault("E0540", f"`{name}` names a layer twice", at=name, help="name it once")
    keep = (
        tuple(sorted(listed))
        if name == "keep"
        else tuple(i for i in range(count) if i not in listed)
    )
    if not keep:
        raise Fault("E0540", "no layer would be left", at=name, help="keep one at least")
    return keep


def shrink_result(typed: Typed) -> ModelType:
    """Tensors renumbered, configuration rewritten. Raises Fault E0540, E0611."""
    model = model_of(typed.one("model"))
    if model.config is None or model.tensors is None or model.layers is None:
        kept_layers(dict(typed.fields), 1 << 30)
        return ModelType(tokenizer=model.tokenizer, chat_template=model.chat_template)
    return select_layers(model, kept_layers(dict(typed.fields), model.layers))


def shrink_cost(typed: Typed) -> Cost:
    """One pass over what stays."""
    return streaming_cost(typed, shrink_result(typed))


@operation(
    kind="weights", result="Model", laws=("moves_tensors",), result_type=shrink_result,
    cost=shrink_cost,
)  # fmt: skip
def shrink(
    model: Annotated[Model, SUBJECT, "what is made smaller"],
    tensor: Annotated[str, TENSOR],
    depth: Annotated[int, LAYERS],
    layers: Annotated[
        int | None, Range(1, 10_000), "how many layers stay, evenly spaced, first and last included"
    ] = None,
    keep: Annotated[list[int] | None, "the layers that stay"] = None,
    drop: Annotated[list[int] | None, "the layers that go"] = None,
) -> Copy:
    """The model without some of its layers, which are renumbered. It is the start of a new origin: its
    tensors do not correspond to the larger model's.

        small = shrink base { layers = 18 }
        small = shrink base { drop = [12, 13, 14, 16, 17, 18] }
    """  # noqa: E501
    kept = kept_layers({"layers": layers, "keep": _tuple(keep), "drop": _tuple(drop)}, depth)
    layer = layer_of(tensor)
    return Copy("model", name=tensor if layer is None else renumbered(tensor, kept[layer]))


def _tuple(value: list[int] | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)
