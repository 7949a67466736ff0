"""stack and layers: where each tensor comes from, what the configuration says then, the laws."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup, verbs
from recipelang.types import LayersType
from recipelang.values import Form
from recipelang.weights.region import Operand, Step, make_step
from tests.weights.models import Memory, bits, compute, near, random_model

DEPTH = 4
SHAPES = {
    "model.embed_tokens.weight": (20, 6),
    **{f"model.layers.{i}.self_attn.o_proj.weight": (6, 6) for i in range(DEPTH)},
    **{f"model.layers.{i}.input_layernorm.weight": (6,) for i in range(DEPTH)},
    "model.norm.weight": (6,),
    "lm_head.weight": (20, 6),
}
CONFIG = {"num_hidden_layers": DEPTH, "hidden_size": 6, "vocab_size": 20, "model_type": "llama"}


def model(seed: int, dtype: str = "BF16", **config: object) -> Memory:
    """A model of four layers, with a buffer of whole numbers in each."""
    made = random_model(seed, SHAPES, dtype)
    buffers = {f"model.layers.{i}.ids": np.array([seed, i], np.int64) for i in range(DEPTH)}
    return Memory({**made.arrays, **buffers}, {**CONFIG, **config})


def family() -> tuple[Memory, Memory, Memory]:
    """A model and two fine-tunes of it."""
    base = model(0)
    floats = Memory({n: base.arrays[n] for n in SHAPES}, base.config)
    tuned = (near(floats, seed) for seed in (1, 2))
    a, b = (Memory({**base.arrays, **one.arrays}, base.config) for one in tuned)
    return base, a, b


def step(verb: str, operands: dict[str, tuple[Operand, ...]], **fields: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, operands, fields)


def layers(of: Operand, start: int, stop: int) -> Step:
    """A range of layers."""
    return step("layers", {"model": (of,)}, start=start, stop=stop)


def stack(*slices: Operand, **fields: Any) -> Step:
    """A stack."""
    return step("stack", {"inputs": slices}, **fields)


def same(got: Any, of: Memory, name: str, there: str) -> bool:
    """Whether a tensor has the bits of that one of a model."""
    return bits(got[name]) == bits(of.arrays[there])


def test_layers_are_renumbered(tmp_path: Path) -> None:
    """Layers 1 and 2 become 0 and 1; what is outside the layers comes along."""
    a = model(1)
    made = layers(a, 1, 3)
    assert isinstance(made.type, LayersType)
    assert made.type.count == 2
    assert made.config["num_hidden_layers"] == 2
    got, stats = compute(made, tmp_path)
    assert same(got, a, "model.layers.0.ids", "model.layers.1.ids")
    name = "model.layers.1.self_attn.o_proj.weight"
    assert same(got, a, name, "model.layers.2.self_attn.o_proj.weight")
    assert same(got, a, "lm_head.weight", "lm_head.weight")
    assert len(got) == 2 * 3 + 3
    assert stats.passes == (1.0,)


def test_a_stack_takes_each_tensor_from_its_slice(tmp_path: Path) -> None:
    """Embeddings from the first slice, norm and head from the last, layers one above the other; the
    rest is not read."""
    a, b = model(1), model(2)
    got, _ = compute(stack(layers(a, 0, 3), layers(b, 2, 4), layers(a, 1, 2)), tmp_path)
    sources = [(a, 0), (a, 1), (a, 2), (b, 2), (b, 3), (a, 1)]
    for i, (of, layer) in enumerate(sources):
        for part in ("self_attn.o_proj.weight", "input_layernorm.weight", "ids"):
            assert same(got, of, f"model.layers.{i}.{part}", f"model.layers.{layer}.{part}")
    assert same(got, a, "model.embed_tokens.weight", "model.embed_tokens.weight")
    assert same(got, a, "lm_head.weight", "lm_head.weight")
    assert len(got) == 6 * 3 + 3
    assert "model.embed_tokens.weight" not in b.counts
    assert "model.layers.3.ids" not in a.counts
    got, _ = compute(stack(a, b), tmp_path / "ends")
    assert same(got, b, "lm_head.weight", "lm_head.weight")
    assert same(got, b, "model.norm.weight", "model.norm.weight")


CUTS = st.lists(st.integers(1, DEPTH - 1), unique=True).map(sorted)
SLOW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SLOW
@given(cuts=CUTS, dtype=st.sampled_from(["BF16", "F16", "F32", "F64"]))
def test_a_stack_of_all_layers_is_the_model(cuts: list[int], dtype: str, tmp_path: Path) -> None:
    """However a model is cut into ranges, their stack has its bits, its table and what its
    configuration says of layers."""
    of = model(
        3, dtype, layer_types=["full", "window", "window", "full"], max_window_layers=2,
        first_k_dense_replace=1,
    )  # fmt: skip
    ends = [0, *cuts, DEPTH]
    slices = [layers(of, i, j) for i, j in pairwise(ends)]
    made = stack(*slices) if len(slices) > 1 else stack(of)
    got, _ = compute(made, tmp_path)
    assert made.tensors == of.tensors
    assert made.config == of.config
    assert all(same(got, of, name, name) for name in of.arrays)


def test_a_region_with_a_stack_is_step_by_step(tmp_path: Path) -> None:
    """Merges of layers, a stack of them and a merge of stacks have the same bits in one pass and
    one by one."""
    base, a, b = family()
    number = iter(range(99))

    def chain(keep: Any) -> Step:
        cut = [keep(layers(m, 1, 4)) for m in (a, b, base)]
        middle = keep(
            step("ties-merge", {"inputs": (cut[0], cut[1]), "base": (cut[2],)}, density=0.4)
        )
        scale = (1.0, Form("per", (("o_proj", 0.5), ("*", 1.0))))
        lower = keep(layers(a, 0, 2))
        one = keep(stack(lower, middle, scale=scale))
        other = keep(stack(lower, cut[2]))
        return step(
            "slerp-merge", {"inputs": (one, other)}, t=Form("gradient", (("0", 0.2), ("1", 0.8)))
        )

    def stored(made: Step) -> Memory:
        arrays, _ = compute(made, tmp_path / str(next(number)))
        return Memory(arrays, made.config)

    def wrapped(made: Step) -> Operand:
        """What was stored, with the type of layers where it is some."""
        kept = stored(made)
        return layers(kept, 0, made.type.count) if isinstance(made.type, LayersType) else kept

    expected, _ = compute(chain(wrapped), tmp_path / "steps")
    got, _ = compute(chain(lambda made: made), tmp_path / "fused")
    assert len(got) == 5 * 3 + 3
    assert all(bits(got[name]) == bits(expected[name]) for name in got)


def merges() -> list[str]:
    """Every merge without random draws, whose masks go by the tensor's name."""
    found = [lookup(verb) for verb in verbs()]
    return [o.verb for o in found if o is not None and o.takes_layers and not o.draws]


@pytest.mark.parametrize("verb", merges())
def test_a_merge_of_layers_is_the_same_layers_of_the_merge(verb: str, tmp_path: Path) -> None:
    """Merging ranges and taking a range of the merge are one, whatever the method."""
    base, a, b = family()
    found = lookup(verb)
    assert found is not None
    roles: dict[str, tuple[Operand, ...]] = {"inputs": (a, b)}
    if any(o.name == "base" and not o.optional for o in found.operands):
        roles["base"] = (base,)
    fields = {f.name: 0.3 for f in found.fields if f.required}
    whole = layers(step(verb, roles, **fields), 1, 3)
    cut = {role: tuple(layers(m, 1, 3) for m in given) for role, given in roles.items()}
    part = step(verb, cut, **fields)
    assert isinstance(part.type, LayersType)
    assert part.type.count == 2
    one, _ = compute(whole, tmp_path / "whole")
    two, _ = compute(part, tmp_path / "part")
    assert one.keys() == two.keys()
    assert all(bits(one[name]) == bits(two[name]) for name in one)


def test_scale_goes_by_name_and_depth_in_the_stack(tmp_path: Path) -> None:
    """`per` and `gradient` see the stack's names; a slice may have its own; 0 reads nothing; whole
    numbers stay."""
    a = model(1, "F32")
    scale = (Form("gradient", (("0", 0.0), ("1", 1.0))), Form("per", (("o_proj", 0.0), ("*", 2.0))))
    a.counts.clear()
    got, _ = compute(stack(a, layers(a, 0, 1), scale=scale), tmp_path)
    for i in range(DEPTH):
        name = f"model.layers.{i}.self_attn.o_proj.weight"
        np.testing.assert_allclose(got[name], a.arrays[name] * (i / DEPTH), rtol=1e-6)
    assert not got["model.embed_tokens.weight"].any()
    assert "model.embed_tokens.weight" not in a.counts
    assert not got["model.layers.4.self_attn.o_proj.weight"].any()
    norm = "model.layers.4.input_layernorm.weight"
    assert bits(got[norm]) == bits(a.arrays["model.layers.0.input_layernorm.weight"] * 2)
    assert bits(got["lm_head.weight"]) == bits(a.arrays["lm_head.weight"] * 2)
    assert got["model.layers.4.ids"].tolist() == [1, 0]
    one = Form("per", (("model.layers.5.*", 0.0), ("*", 1.0)))
    got, _ = compute(stack(a, a, scale=one), tmp_path / "one")
    zeros = [name for name, x in got.items() if not x.any()]
    assert zeros == [
        "model.layers.5.input_layernorm.weight", "model.layers.5.self_attn.o_proj.weight",
    ]  # fmt: skip
    with pytest.raises(RecipeError, match=r"E0543.*layers\.9"):
        stack(a, a, scale=Form("per", (("model.layers.9.*", 0.0),)))


def test_the_stack_is_stored_as_the_first_slice(tmp_path: Path) -> None:
    """A slice in another dtype is rounded to the first one's; `dtype` wins; mixed dtypes of one
    model stay."""
    half, wide = model(1, "BF16"), model(2, "F32")
    norm = "model.layers.0.input_layernorm.weight"
    half.arrays = {**half.arrays, norm: half.arrays[norm].astype(np.float32)}
    made = stack(half, wide)
    assert made.tensors[norm].dtype == "F32"
    upper = "model.layers.5.self_attn.o_proj.weight"
    assert made.tensors[upper].dtype == "BF16"
    got, _ = compute(made, tmp_path)
    expected = wide.arrays["model.layers.1.self_attn.o_proj.weight"].astype(got[upper].dtype)
    assert bits(got[upper]) == bits(expected)
    cast = stack(half, wide, dtype="f16")
    assert {i.dtype for n, i in cast.tensors.items() if not n.endswith("ids")} == {"F16"}
    assert cast.config["dtype"] == "float16"


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ((["full"] * 4, ["full", "window"] * 2), ["full"] * 4 + ["full", "window"] * 2),
        ((["full"] * 4, None), ["full"] * 8),
        ((None, ["full"] * 4), None),
        ((None, None), None),
        (("not a list", ["full"] * 4), "not a list"),
    ],
)
def test_lists_with_an_element_a_layer_are_joined(lists: Any, expected: object) -> None:
    """Where one is missing, a list that is the same throughout stands for it."""
    a, b = (model(i, layer_types=kinds) for i, kinds in enumerate(lists))
    assert stack(a, b).config.get("layer_types") == expected


def test_a_missing_list_of_different_kinds_is_an_error() -> None:
    """What kind the layers without a list are cannot be told."""
    a, b = model(1, layer_types=["full", "window"] * 2), model(2)
    for slices in ((a, b), (b, a)):
        with pytest.raises(RecipeError, match=r"E0633.*`layer_types`"):
            stack(*slices)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (([0, 3], [1]), [0, 3, 5, 6]),
        (([], [1]), [5, 6]),
        ((None, [1]), [5, 6]),
        (([0, 3], None), [0, 3]),
        (([], None), []),
        ((None, None), None),
    ],
)
def test_numbers_of_layers_of_another_kind_follow(numbers: Any, expected: object) -> None:
    """Those of the slices' layers, where they stand now; no list is an empty one."""
    a, b = (model(i, mlp_only_layers=found) for i, found in enumerate(numbers))
    assert stack(a, layers(b, 0, 2), layers(b, 1, 4)).config.get("mlp_only_layers") == expected


def test_leading_layers_are_counted_anew() -> None:
    """Leading layers add up where they stay in front; behind others they are an error, unless
    nothing depends on them."""

    def windows(use: bool, **config: object) -> Memory:
        return model(1, max_window_layers=2, use_sliding_window=use, **config)

    for used in (True, False):
        a = windows(used)
        made = stack(layers(a, 0, 2), layers(a, 1, 2), layers(a, 2, 4))
        assert made.config["max_window_layers"] == 3
    again = stack(windows(False), windows(False))
    assert again.config["max_window_layers"] == 4
    listed = windows(True, layer_types=["full", "full", "window", "window"])
    assert len(stack(listed, listed).config["layer_types"]) == 8
    with pytest.raises(RecipeError, match=r"E0633.*`max_window_layers`"):
        stack(windows(True), windows(True))
    dense = model(1, first_k_dense_replace=1)
    assert stack(dense, layers(dense, 1, 4)).config["first_k_dense_replace"] == 1
    with pytest.raises(RecipeError, match=r"E0633.*`first_k_dense_replace`"):
        stack(dense, dense)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 12), ("num_attention_heads", 3), ("vocab_size", 21),
     ("model_type", "mistral"), ("tie_word_embeddings", True), ("attention_bias", True),
     ("intermediate_size", 7)],
)  # fmt: skip
def test_models_that_do_not_fit_are_named_by_their_key(key: str, value: object) -> None:
    """The first key of the configuration that differs is told."""
    with pytest.raises(RecipeError, match=rf"E0601.*`{key}` is"):
        stack(model(1), model(2, **{key: value}))


def test_a_width_that_no_key_tells_is_found(tmp_path: Path) -> None:
    """Embeddings of another shape are enough."""
    narrow = {n: x[..., :5].copy() for n, x in model(2).arrays.items()}
    with pytest.raises(RecipeError, match=r"E0601.*`lm_head.weight` is \[20, 6\] and \[20, 5\]"):
        stack(model(1), Memory(narrow, CONFIG))


@pytest.mark.parametrize("key", ["n_layer", "n_layers"])
def test_other_words_for_the_number_of_layers(key: str) -> None:
    """GPT-2's and DistilBERT's; the result's configuration says it in the same words."""
    config = {**CONFIG, key: DEPTH}
    del config["num_hidden_layers"]
    other = Memory(model(1).arrays, config)
    part = layers(other, 1, 3)
    assert stack(part, other).config == {**config, key: DEPTH + 2}


def test_a_model_that_does_not_say_how_deep_it_is() -> None:
    """Without the number of layers nothing is taken or stacked."""
    bare = Memory(model(1).arrays, {"hidden_size": 6})
    for make in (lambda: layers(bare, 0, 2), lambda: stack(bare)):
        with pytest.raises(RecipeError, match=r"E0630.*how many layers"):
            make()


@pytest.mark.parametrize(
    ("start", "stop", "words"),
    [(0, 5, "has 4 layers"), (4, 5, "has 4 layers"), (2, 2, "no layer"), (3, 1, "no layer")],
)
def test_ranges_outside_the_model(start: int, stop: int, words: str) -> None:
    """A range that is empty, reversed or too long is told."""
    with pytest.raises(RecipeError, match=f"E0630.*{words}"):
        layers(model(1), start, stop)
