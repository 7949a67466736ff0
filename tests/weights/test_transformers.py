"""What is read from GGUF runs in transformers and gives what its own GGUF reader gives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from recipelang.weights.gguf import GgufModel
from tests.weights.models import write_folder
from tests.weights.test_gguf import write_gguf

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_synthesised_folder_gives_the_logits_of_an_independent_conversion(
    architecture: str, tmp_path: Path
) -> None:
    """A model assembled from GGUF's own definition (rotary embedding on neighbouring rows for
    llama) and the folder written here, run by transformers, agree."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    path = tmp_path / "m.gguf"
    write_gguf(path, architecture, "Q8_0", tied=False)
    read = GgufModel.open(path, "F32")
    folder = write_folder(tmp_path / "hf", read, read.config)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__name__.lower().startswith(architecture)
    assert AutoConfig.from_pretrained(folder).rope_parameters["rope_theta"] == 5e5
    ids = torch.tensor([[1, 5, 2, 7, 3]])
    with torch.no_grad():
        logits = model(ids).logits[0].numpy()
    expected = forward(path, architecture, [1, 5, 2, 7, 3])
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-3)


def forward(path: Path, architecture: str, ids: list[int]) -> np.ndarray:
    """A decoder in float64 over GGUF tensors as stored, by llama.cpp's conventions: NORM rope
    (pairs of neighbours) for llama, NEOX rope (halves) for qwen."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    w = {
        t.name: dequantize(t.data, t.tensor_type).astype(np.float64)
        for t in GGUFReader(str(path)).tensors
    }
    heads, kv, dim, count = 4, 2, 64, len(ids)
    x = w["token_embd.weight"][ids]

    def norm(v: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-6) * weight

    def rope(v: np.ndarray) -> np.ndarray:
        angle = np.arange(count)[:, None] * 5e5 ** (-np.arange(0, dim, 2) / dim)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        out = np.empty_like(v)
        first, second = (
            (slice(0, None, 2), slice(1, None, 2))
            if architecture == "llama"
            else (slice(0, dim // 2), slice(dim // 2, None))
        )
        out[..., first] = v[..., first] * cos - v[..., second] * sin
        out[..., second] = v[..., second] * cos + v[..., first] * sin
        return out

    h = norm(x, w["blk.0.attn_norm.weight"])
    q, k, v = (h @ w[f"blk.0.attn_{p}.weight"].T + w.get(f"blk.0.attn_{p}.bias", 0) for p in "qkv")
    q, k, v = q.reshape(count, heads, dim), k.reshape(count, kv, dim), v.reshape(count, kv, dim)
    if architecture == "qwen3":
        q, k = norm(q, w["blk.0.attn_q_norm.weight"]), norm(k, w["blk.0.attn_k_norm.weight"])
    q, k = rope(q), rope(k)
    k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim)
    scores = np.where(np.tril(np.ones((count, count))) > 0, scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    x = x + np.einsum("hqk,khd->qhd", share, v).reshape(count, -1) @ w["blk.0.attn_output.weight"].T
    h = norm(x, w["blk.0.ffn_norm.weight"])
    gate = h @ w["blk.0.ffn_gate.weight"].T
    x = (
        x
        + (gate / (1 + np.exp(-gate)) * (h @ w["blk.0.ffn_up.weight"].T))
        @ w["blk.0.ffn_down.weight"].T
    )
    return np.asarray(norm(x, w["output_norm.weight"]) @ w["output.weight"].T)
