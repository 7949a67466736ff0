"""Models that do not fit together are refused by the type rules, with the first difference
named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault, Typed
from recipelang.types import DeltaType, ModelType, TensorInfo, TokenizerType

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 4, "num_attention_heads": 2}
TABLE = {"a": TensorInfo("BF16", (4, 4)), "b": TensorInfo("BF16", (4,))}


def model(
    tokenizer: TokenizerType | None = None,
    table: dict[str, TensorInfo] | None = None,
    **config: object,
) -> ModelType:
    """A type with these changes."""
    return ModelType(CONFIG | config, TABLE if table is None else table, tokenizer)


def merged(*models: ModelType, **fields: object) -> ModelType:
    """The type of their linear merge."""
    found = lookup("linear-merge")
    assert found is not None
    assert found.result_type is not None
    places = {"inputs": tuple(f"m{i}" for i in range(len(models)))}
    result = found.result_type(
        Typed({"inputs": models}, {"weight": (1.0,) * len(models), **fields}, places)
    )  # type: ignore[dict-item]
    assert isinstance(result, ModelType)
    return result


def test_equal_shapes_merge_into_the_subject_s_type() -> None:
    """The result has the subject's configuration and table, in the dtype asked for."""
    plain = merged(model(), model())
    assert plain.tensors == TABLE
    wide = merged(model(), model(), dtype="float32")
    assert wide.dtype == "F32"
    assert (wide.config or {})["dtype"] == "float32"
    assert merged(model(), ModelType()).tensors == TABLE


@pytest.mark.parametrize(
    ("other", "code", "words"),
    [
        (model(num_hidden_layers=3), "E0601", "`num_hidden_layers` is 2 and 3"),
        (model(model_type="qwen2"), "E0601", "`model_type` is llama and qwen2"),
        (model(num_key_value_heads=1), "E0601", "`num_key_value_heads` is 2 and 1"),
        (
            model(table={**TABLE, "a": TensorInfo("BF16", (4, 5))}),
            "E0601",
            "`a` is [4, 4] and [4, 5]",
        ),
        (model(table={"a": TABLE["a"]}), "E0603", "`m1` has no tensor `b`"),
        (model(table={**TABLE, "c": TABLE["b"]}), "E0603", "`m0` has no tensor `c`"),
    ],
)
def test_the_first_difference_is_named(other: ModelType, code: str, words: str) -> None:
    """A configuration key before tensors, tensors in name order."""
    with pytest.raises(Fault) as caught:
        merged(model(), other)
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.at == "inputs[1]"


def write_tokenizer(path: Path, words: list[str], extra: str = "") -> TokenizerType:
    """A tokenizer.json with these tokens; ``extra`` changes the file and not the tokens."""
    document = {
        "model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(words)}, "merges": []},
        "x": extra,
    }
    path.write_text(json.dumps(document))
    return TokenizerType(f"digest of {words} {extra}", str(path))


def test_vocabularies_are_compared_by_their_tokens(tmp_path: Path) -> None:
    """Other digests with equal tokens merge; the first tokens that differ are shown otherwise."""
    one = write_tokenizer(tmp_path / "1.json", ["a", "b", "c"])
    same = write_tokenizer(tmp_path / "2.json", ["a", "b", "c"], extra="y")
    other = write_tokenizer(tmp_path / "3.json", ["a", "x", "c"])
    longer = write_tokenizer(tmp_path / "4.json", ["a", "b", "c", "d"])
    assert merged(model(one), model(same)).tensors == TABLE
    with pytest.raises(Fault, match=r"E0602.*only `m1` has `x` \(1\); only `m0` has `b` \(1\)"):
        merged(model(one), model(other))
    with pytest.raises(Fault, match=r"E0602.*only `m1` has `d` \(3\)"):
        merged(model(one), model(longer))


def test_a_union_with_an_unknown_model_is_unknown(tmp_path: Path) -> None:
    """A model that was not fetched yet may bring tokens; one whose tokens are kept out brings
    none."""
    one = write_tokenizer(tmp_path / "1.json", ["a", "b", "c"])
    assert merged(model(one), ModelType(), vocabulary="union").tensors is None
    assert merged(model(one), ModelType(), vocabulary="of-subject").tensors == TABLE


def test_deltas_keep_the_shape_of_their_models() -> None:
    """`a - b` complains like a merge, and a delta that does not fit is refused."""
    delta, add = lookup("delta"), lookup("add-delta")
    assert delta is not None
    assert add is not None
    assert delta.result_type is not None
    assert add.result_type is not None
    made = delta.result_type(Typed({"of": (model(),), "minus": (model(),)}, {}))
    assert isinstance(made, DeltaType)
    with pytest.raises(Fault, match="E0601"):
        delta.result_type(Typed({"of": (model(),), "minus": (model(hidden_size=8),)}, {}))
    with pytest.raises(Fault, match="E0601"):
        add.result_type(Typed({"model": (model(hidden_size=8),), "delta": (made,)}, {"scale": 1.0}))


def test_slerp_takes_two() -> None:
    """Three models have no arc."""
    found = lookup("slerp-merge")
    assert found is not None
    assert found.result_type is not None
    with pytest.raises(Fault, match="E0542"):
        found.result_type(Typed({"inputs": (model(),) * 3}, {"t": 0.5}))
