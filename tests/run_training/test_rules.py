"""What is wrong with a training step is known before anything runs."""

from __future__ import annotations

import pytest

from recipelang.ops import registry
from recipelang.ops.spec import Fault, Operation, Typed
from recipelang.ops.train._select import adapted, linear_weights, matches, trained
from recipelang.types import (
    DatasetType,
    MeasuredType,
    ModelType,
    SplitType,
    TensorInfo,
    TokenizerType,
)
from recipelang.values import Attr, Form, Quantity

SHAPES = {
    "model.embed_tokens.weight": (50, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (50, 8),
    **{
        f"model.layers.{i}.self_attn.{p}.weight": (8, 8)
        for i in range(2)
        for p in ("q_proj", "v_proj")
    },
    **{f"model.layers.{i}.self_attn.q_proj.bias": (8,) for i in range(2)},
    **{f"model.layers.{i}.mlp.up_proj.weight": (16, 8) for i in range(2)},
}
TENSORS = {name: TensorInfo("BF16", shape) for name, shape in SHAPES.items()}
MODEL = ModelType(
    {"model_type": "llama", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2},
    TENSORS,
    TokenizerType("t", ""),
    None,
)
TEXT = DatasetType(("text",), "text", 10, 64, 4000)
CHAT = DatasetType(("messages",), "chat", 10)
PAIRS = DatasetType(("prompt", "completion"), "prompt-completion", 10)


def operation(verb: str) -> Operation:
    """A declared operation."""
    found = registry.lookup(verb)
    assert found is not None
    return found


def typed(verb: str, types: dict[str, tuple[object, ...]], **fields: Attr) -> object:
    """The result type of a step with these operand types; other fields have their defaults."""
    declared = operation(verb)
    given = {f.name: f.default for f in declared.fields} | fields
    assert declared.result_type is not None
    return declared.result_type(Typed(types, given))  # type: ignore[arg-type]


def finetune(data: object = TEXT, **fields: Attr) -> object:
    """A fine-tune of the model above."""
    return typed("finetune", {"model": (MODEL,), "data": (data,)}, **fields)


def warmup(n: int) -> Form:
    """A cosine with so many warm-up steps."""
    return Form("cosine", (("warmup", Quantity(n, "steps")),))


FAULTS: list[tuple[str, str, dict[str, Attr], DatasetType]] = [
    ("E0561", "epochs", {"steps": 3, "epochs": 1.0}, TEXT),
    ("E0565", "every", {"every": 2}, TEXT),
    ("E0564", "schedule", {"steps": 3, "schedule": warmup(4)}, TEXT),
    ("E0562", "adapter", {"adapter": Form("lora", (("targets", ("query",)),))}, TEXT),
    ("E0562", "adapter", {"adapter": Form("lora", (("targets", ("lm_head",)),))}, TEXT),
    ("E0563", "train", {"train": ("layers.7",)}, TEXT),
    ("E0563", "freeze", {"freeze": ("*.k_proj.*",)}, TEXT),
    ("E0563", "freeze", {"freeze": ("*",)}, TEXT),
    ("E0566", "freeze", {"adapter": Form("lora"), "freeze": ("q_proj",)}, TEXT),
    ("E0566", "train", {"adapter": Form("lora"), "train": ("q_proj",)}, TEXT),
    ("E0778", "supervise", {"supervise": "completion"}, TEXT),
    ("E0778", "supervise", {"supervise": "assistant"}, PAIRS),
    ("E0779", "data", {}, CHAT),
    ("E0774", "data", {}, DatasetType(("text",), "text", 0)),
    ("E0776", "data", {}, DatasetType(("chosen",), "preference", 3)),
]


@pytest.mark.parametrize(("code", "at", "fields", "data"), FAULTS)
def test_faults(code: str, at: str, fields: dict[str, Attr], data: DatasetType) -> None:
    """Each mistake has its code and points at the field or operand that is to blame."""
    with pytest.raises(Fault) as found:
        finetune(data, **fields)
    assert (found.value.code, found.value.at) == (code, at)


GOOD: list[tuple[dict[str, Attr], DatasetType]] = [
    ({}, TEXT),
    ({"steps": 3, "schedule": warmup(3)}, TEXT),
    ({"adapter": Form("lora", (("targets", ("q_proj", "*.up_proj.weight")),))}, PAIRS),
    ({"train": ("layers.1",), "freeze": ("*.bias",)}, TEXT),
    ({"supervise": "all"}, PAIRS),
    ({}, DatasetType(("messages",), "chat", 10, template=True)),
    ({}, DatasetType()),
]


@pytest.mark.parametrize(("fields", "data"), GOOD)
def test_result_is_the_model(fields: dict[str, Attr], data: DatasetType) -> None:
    """A step without a fault has the type of the model that it starts from."""
    assert finetune(data, **fields) is MODEL


def test_unknown_models_are_not_complained_about() -> None:
    """What was not fetched yet is typed as unknown."""
    found = typed(
        "finetune",
        {"model": (ModelType(),), "data": (CHAT,)},
        adapter=Form("lora", (("targets", ("x",)),)),
    )
    assert isinstance(found, ModelType)


def test_distill_needs_one_vocabulary() -> None:
    """Logits line up only between equal vocabularies; the student's type is the result's."""
    other = ModelType({**(MODEL.config or {}), "vocab_size": 51}, TENSORS, MODEL.tokenizer)
    roles: dict[str, tuple[object, ...]] = {
        "teachers": (MODEL, other),
        "into": (MODEL,),
        "data": (TEXT,),
    }
    with pytest.raises(Fault) as found:
        typed("distill", roles)
    assert (found.value.code, found.value.at) == ("E0661", "teachers[1]")
    assert typed("distill", {**roles, "teachers": (MODEL,)}) is MODEL


def test_cost_grows_with_what_is_done() -> None:
    """Adapters need a fraction of the memory; teachers cost their forward pass; steps multiply."""

    def cost(verb: str, roles: dict[str, tuple[object, ...]], **fields: Attr) -> object:
        declared = operation(verb)
        assert declared.cost is not None
        given = {f.name: f.default for f in declared.fields} | fields
        return declared.cost(Typed(roles, given))  # type: ignore[arg-type]

    one: dict[str, tuple[object, ...]] = {"model": (MODEL,), "data": (TEXT,)}
    full, lora = (
        cost("finetune", one, steps=4),
        cost("finetune", one, steps=4, adapter=Form("lora", (("rank", 1),))),
    )
    taught = cost("distill", {"teachers": (MODEL,), "into": (MODEL,), "data": (TEXT,)}, steps=4)
    n = MODEL.parameters or 0
    assert full.tokens == 4 * 8 * 64  # type: ignore[attr-defined]
    assert full.flops == 6.0 * n * full.tokens  # type: ignore[attr-defined]
    assert lora.flops == 4.0 * n * full.tokens  # type: ignore[attr-defined]
    assert taught.flops == 8.0 * n * full.tokens  # type: ignore[attr-defined]
    assert lora.memory_bytes < full.memory_bytes < taught.memory_bytes  # type: ignore[attr-defined]
    assert cost("finetune", one, epochs=2.0).tokens == 2048  # type: ignore[attr-defined]


def test_patterns() -> None:
    """A plain word matches whole components of a name, a pattern with a star the whole name."""
    assert matches("model.layers.10.mlp.up_proj.weight", "layers.10")
    assert not matches("model.layers.10.mlp.up_proj.weight", "layers.1")
    assert not matches("model.layers.1.mlp.up_proj.weight", "up")
    assert not matches("model.layers.1.mlp.up_proj.weight", "up_proj*")


def test_linear_weights() -> None:
    """All-linear is every matrix but embeddings and the head."""
    expected = tuple(sorted(n for n in SHAPES if "proj.weight" in n))
    assert linear_weights(TENSORS) == adapted(TENSORS, ("all-linear",)) == expected
    assert trained(TENSORS, ("all",), ("layers",)) == (
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
    )


def test_data_rules() -> None:
    """Splits and mixtures of what has no rows yet, of one row, of several formats are refused."""
    cut = DatasetType(("text",), "text", None, None, 9, 30)
    for verb, types, fields, code in (
        ("split", {"data": (cut,)}, {}, "E0568"),
        ("split", {"data": (DatasetType(("text",), "text", 1),)}, {}, "E0782"),
        ("split", {"data": (TEXT,)}, {"holdout": Quantity(1.0, "fraction")}, "E0567"),
        ("mix", {"data": (TEXT, cut)}, {"weight": (None, None)}, "E0568"),
        ("mix", {"data": (TEXT, PAIRS)}, {"weight": (None, None)}, "E0569"),
        ("mix", {"data": (TEXT, TEXT)}, {"weight": (0.0, 0.0)}, "E0570"),
    ):
        with pytest.raises(Fault) as found:
            typed(verb, types, **fields)  # type: ignore[arg-type]
        assert found.value.code == code
    mixed = typed("mix", {"data": (TEXT, TEXT)}, weight=(None, None))
    assert isinstance(mixed, DatasetType)
    assert (mixed.rows, mixed.format, mixed.length) == (20, "text", 64)
    parts = typed("split", {"data": (TEXT,)})
    assert isinstance(parts, SplitType)
    assert typed("part", {"of": (parts,)}) is parts.of


def test_measures() -> None:
    """Metrics know their direction; accuracy needs prompts; chats need a template; best needs one
    shape.
    """
    for verb, direction in (
        ("loss", "min"),
        ("perplexity", "min"),
        ("bits-per-byte", "min"),
        ("accuracy", "max"),
    ):
        found = typed(verb, {"model": (MODEL,), "data": (PAIRS,)})
        assert found == MeasuredType(direction)
        assert operation(verb).direction == direction
    with pytest.raises(Fault, match="E0775"):
        typed("accuracy", {"model": (MODEL,), "data": (TEXT,)})
    with pytest.raises(Fault, match="E0775"):
        typed("evaluate", {"models": (MODEL,), "data": (PAIRS, TEXT)}, metrics=("accuracy",))
    with pytest.raises(Fault, match="E0779"):
        typed("loss", {"model": (MODEL,), "data": (CHAT,)})
    small = ModelType(
        MODEL.config, {n: t for n, t in TENSORS.items() if "layers.1" not in n}, MODEL.tokenizer
    )
    with pytest.raises(Fault, match="E0663"):
        typed("best", {"of": (MODEL, small)})
    assert typed("best", {"of": (MODEL, MODEL)}) is MODEL
