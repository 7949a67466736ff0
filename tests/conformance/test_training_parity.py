"""One training job on both backends: the same losses, norms and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import recipelang_jax
import recipelang_torch
from recipelang.backend import AdapterPlan, OptimizerPlan, Precision, Trained, TrainingJob
from recipelang.values import Form
from tests.conformance import tiny

STEPS = 20


def mixture(*terms: tuple[float, Form]) -> Form:
    """A weighted sum of objectives."""
    parts = [Form("term", (("weight", weight), ("of", of))) for weight, of in terms]
    return Form("sum", tuple((str(i), part) for i, part in enumerate(parts)))


DISTILLATION = mixture(
    (0.5, Form("forward_kl", (("temperature", 2.0),))),
    (0.3, Form("reverse_kl")),
    (0.2, Form("cross_entropy")),
)


def adapter(model: tiny.MemoryCheckpoint, dropout: float = 0.0) -> AdapterPlan:
    """A rank of 3 or 4 on projections, not on every layer, with a B that is not zero."""
    generator = np.random.Generator(np.random.Philox(key=8))
    initial = {}
    for name, info in model.tensors.items():
        if "q_proj.weight" in name or ("down_proj.weight" in name and ".0." not in name):
            out, width = info.shape
            rank = 3 if ".1." in name else 4
            a, b = generator.standard_normal((rank, width)), generator.standard_normal((out, rank))
            initial[name] = ((0.2 * a).astype(np.float32), (0.1 * b).astype(np.float32))
    return AdapterPlan(initial, 2.0, dropout)


def job(precision: Precision, architecture: str, **changes: Any) -> TrainingJob:
    """A packed, clipped, decayed run of 20 steps with a warm-up."""
    model = tiny.checkpoint(architecture, "F32")
    settings: dict[str, Any] = {
        "model": model, "objective": Form("cross_entropy"),
        "batch": lambda step: tiny.batch(seed=step % 4), "steps": STEPS,
        "lr": [2e-3 * min(1, (step + 1) / 4) for step in range(STEPS)],
        "optimizer": OptimizerPlan(beta2=0.95, weight_decay=0.1, clip=1.0), "precision": precision,
        "trainable": frozenset(model.tensors),
    }  # fmt: skip
    return TrainingJob(**{**settings, **changes})


def both(of: TrainingJob) -> tuple[Trained, Trained]:
    """The job on JAX and on torch."""
    results = [
        found.backend().train(of, lambda _: None) for found in (recipelang_jax, recipelang_torch)
    ]
    return results[0], results[1]


def compare(found: Trained, expected: Trained, loss: float, weights: float) -> None:
    """Losses and gradient norms agree to ``loss``, trained tensors to ``weights`` (relative L2)."""
    assert len(found.history) == len(expected.history) == STEPS
    assert found.history[-1].loss < found.history[0].loss
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert (ours.step, ours.steps, ours.lr, ours.tokens) == (
            theirs.step, theirs.steps, theirs.lr, theirs.tokens,
        )  # fmt: skip
        assert ours.loss == pytest.approx(theirs.loss, rel=loss)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=10 * loss)
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        distance = np.linalg.norm(found.tensors[name] - tensor) / np.linalg.norm(tensor)
        assert distance < weights, name


def adapted(
    precision: Precision, architecture: str, dropout: float = 0.0, **changes: Any
) -> TrainingJob:
    """A LoRA job."""
    model = tiny.checkpoint(architecture, "F32")
    return job(
        precision, architecture, adapter=adapter(model, dropout), trainable=frozenset(),
        draws="some draws", **changes,
    )  # fmt: skip


CASES = {
    "full": lambda p: job(p, "llama", micro_batch=3),
    "lora with dropout": lambda p: adapted(p, "qwen3", dropout=0.25, micro_batch=3),
    "distillation": lambda p: job(
        p, "gemma2", objective=DISTILLATION, teachers=(tiny.checkpoint("llama", "F32", seed=1),)
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_float64_runs_are_the_same(case: str) -> None:
    """At F64 twenty steps give the same losses to 1e-8: packed, clipped, decayed, in uneven
    micro-batches."""
    compare(*both(CASES[case]("F64")), loss=1e-8, weights=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_float32_runs_stay_close(case: str) -> None:
    """At F32 they give the same losses to 1e-3."""
    compare(*both(CASES[case]("F32")), loss=1e-3, weights=1e-2)


def test_bfloat16_runs_stay_near() -> None:
    """At BF16 an adapter's losses stay within two percent of each other."""
    compare(*both(adapted("BF16", "qwen3")), loss=2e-2, weights=0.2)
