"""An imported recipe gives every tensor the value that mergekit would give it.

The reference below is mergekit's rule in its own words: scopes by precedence, the first filter that
is part of the name, a gradient at t = layer / (layers - 1), and at t = 0 outside the layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.checking import check_text
from recipelang.ir.graph import Node
from recipelang.weights.layers import layer_of, stack_lengths
from recipelang.weights.varying import resolve
from tests.convert.test_import import imported

LAYERS = 5
PARTS = (
    "self_attn.q_proj.weight", "self_attn.o_proj.bias", "mlp.gate_proj.weight",
    "mlp.down_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight",
)  # fmt: skip
TENSORS = (
    "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
    *(f"model.layers.{i}.{part}" for i in range(LAYERS) for part in PARTS),
)  # fmt: skip

slowly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

shares = st.integers(1, 20).map(lambda n: n / 20)
points = st.one_of(shares, st.lists(shares, min_size=2, max_size=4))
filters = st.sampled_from(
    ["self_attn", "attn", "mlp", "norm", "layernorm", "lm_head", "embed", "model.norm", "q_proj",
     "layers.1.", "weight", "o_proj.bias", "model."]
)  # fmt: skip
conditions = st.lists(
    st.fixed_dictionaries({"filter": filters, "value": points}), min_size=1, max_size=3
)
partial = st.one_of(st.none(), points, conditions)
"""A setting of a narrow scope, which may leave tensors to a wider one."""
total = st.one_of(points, st.tuples(conditions, points).map(lambda p: [*p[0], {"value": p[1]}]))


OTHERS = {
    "GPT-2": (
        "h.{}.", ("attn.c_attn.weight", "attn.c_attn.bias", "ln_1.bias"),
        ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"),
    ),
    "GPT-NeoX": (
        "gpt_neox.layers.{}.", ("attention.dense.bias", "mlp.dense.weight", "layernorm.weight"),
        ("gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm.bias", "embed_out.weight"),
    ),
    "T5": (
        "encoder.block.{}.", ("layer.0.SelfAttention.q.weight", "layer.1.layer_norm.weight"),
        (*(f"decoder.block.{i}.layer.0.SelfAttention.q.weight" for i in range(LAYERS)),
         "encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight", "shared.weight"),
    ),
    "BERT": (
        "bert.encoder.layer.{}.", ("output.dense.weight", "output.LayerNorm.bias"),
        ("bert.embeddings.LayerNorm.bias", "bert.pooler.dense.weight", "cls.predictions.bias"),
    ),
}  # fmt: skip
"""Other architectures: what tensors of a layer are called, and those outside."""
KNOWN = {
    family: (*outside, *(prefix.format(i) + part for i in range(LAYERS) for part in parts))
    for family, (prefix, parts, outside) in OTHERS.items()
}


def depth(name: str) -> float:
    """mergekit's t."""
    layer = layer_of(name)
    return 0.0 if layer is None else layer / (LAYERS - 1)


def at(value: Any, t: float) -> float:
    """A number, or a gradient at t."""
    if not isinstance(value, list):
        return float(value)
    place = t * (len(value) - 1)
    low = int(place)
    high = min(len(value) - 1, low + 1)
    return float((1 - (place - low)) * value[low] + (place - low) * value[high])


def reference(scopes: Sequence[Any], name: str) -> float:
    """The value of a parameter for a tensor."""
    for setting in scopes:
        if setting is None:
            continue
        conditional = isinstance(setting, list) and isinstance(setting[0], dict)
        for row in setting if conditional else [{"value": setting}]:
            if row.get("filter") is None or row["filter"] in name:
                return at(row["value"], depth(name))
    raise AssertionError("a total setting takes every tensor")


def merged(configuration: Mapping[str, Any], names: tuple[str, ...] = ()) -> Node:
    """The step of the imported recipe. JSON is YAML."""
    text, sink = imported(json.dumps(configuration), names=names)
    assert text is not None, [d.message for d in sink]
    program = check_text(text).program
    assert program is not None, text
    node = program.bindings["merged"]
    assert isinstance(node, Node)
    return node


def entry(model: str, **parameters: Any) -> dict[str, Any]:
    """An entry of ``models``, without the parameters that are None."""
    given_ = {key: value for key, value in parameters.items() if value is not None}
    return {"model": model, "parameters": given_}


@slowly
@given(st.lists(partial, min_size=2, max_size=3), total)
def test_weights(own: list[Any], whole: Any) -> None:
    """Each input has its own weight, then the configuration's."""
    models = [entry(f"org/m{i}", weight=setting) for i, setting in enumerate(own)]
    node = merged({"merge_method": "linear", "models": models, "parameters": {"weight": whole}})
    for name in TENSORS:
        found = resolve(node.attr("weight"), name, stacks=stack_lengths(TENSORS), default=1.0)
        assert found == pytest.approx([reference([setting, whole], name) for setting in own]), name


@slowly
@given(st.lists(partial, min_size=2, max_size=2), partial, total)
def test_densities_and_scale(own: list[Any], whole: Any, scale: Any) -> None:
    """Two scopes and mergekit's default behind them; a value of the whole merge beside."""
    models = [entry(f"org/m{i}", weight=1, density=each) for i, each in enumerate(own)]
    parameters = entry("", **{"density": whole, "lambda": scale})["parameters"]
    node = merged(
        {"merge_method": "ties", "base_model": "org/base", "models": models,
         "parameters": parameters}
    )  # fmt: skip
    for name in TENSORS:
        found = resolve(node.attr("density"), name, stacks=stack_lengths(TENSORS), default=0.5)
        assert found == pytest.approx([reference([each, whole, 1.0], name) for each in own]), name
        factor = resolve(node.attr("scale"), name, stacks=stack_lengths(TENSORS), default=1.0)
        assert factor == pytest.approx(reference([scale], name)), name


@slowly
@given(st.floats(1e-6, 1))
def test_shares_keep_every_digit(density: float) -> None:
    """A search gives densities of sixteen digits, and percents have two more before the point."""
    node = merged(
        {"merge_method": "ties", "base_model": "org/base",
         "models": [entry("org/a", weight=1, density=density)]}
    )  # fmt: skip
    assert node.attr("density") == (density,)


@slowly
@given(total)
def test_interpolation(t: Any) -> None:
    """`t` of slerp, whose first model is the base."""
    node = merged(
        {"merge_method": "slerp", "base_model": "org/a", "parameters": {"t": t},
         "models": [{"model": "org/b"}, {"model": "org/a"}]}
    )  # fmt: skip
    assert [one.attr("uri") for one in node.role("inputs")] == ["hf:org/a", "hf:org/b"]
    for name in TENSORS:
        found = resolve(node.attr("t"), name, stacks=stack_lengths(TENSORS), default=None)
        assert found == pytest.approx(reference([t], name)), name


@pytest.mark.parametrize("family", OTHERS)
@slowly
@given(st.data())
def test_weights_of_other_architectures(family: str, data: st.DataObject) -> None:
    """Whose tensors are known: what stands outside the layers is told by their names."""
    names = KNOWN[family]
    parts = sorted({part for name in names for part in name.split(".") if not part.isdecimal()})
    row = st.fixed_dictionaries({"filter": st.sampled_from(parts), "value": points})
    rows = data.draw(st.lists(row, max_size=3))
    setting = [*rows, {"value": data.draw(points)}]
    models = [entry("org/a", weight=setting), entry("org/b", weight=1)]
    node = merged({"merge_method": "linear", "models": models}, names)
    for name in names:
        found = resolve(node.attr("weight"), name, stacks=stack_lengths(names), default=1.0)
        assert isinstance(found, tuple)
        assert found[0] == pytest.approx(reference([setting], name)), (name, setting)
