"""Small training jobs for tests of the loop on torch."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np

import recipelang.objectives
from recipelang.backend import AdapterPlan, OptimizerPlan, Progress, TrainingJob
from recipelang.values import Form
from recipelang_torch import backend
from tests.conformance import tiny

OBJECTIVES = sorted(
    m.name
    for m in pkgutil.iter_modules(recipelang.objectives.__path__)
    if not m.name.startswith("_")
)
MIX = Form(
    "sum",
    tuple(
        (str(i), Form("term", (("weight", 0.25 + i), ("of", Form(name)))))
        for i, name in enumerate(OBJECTIVES)
    ),
)
PLAN = OptimizerPlan(beta2=0.95, weight_decay=0.1, clip=0.5)


def lora(
    checkpoint: tiny.MemoryCheckpoint, dropout: float = 0.0, parts: str = "proj"
) -> AdapterPlan:
    """Adapters of rank 3 on every projection, B not zero."""
    generator = np.random.Generator(np.random.Philox(key=7))
    initial = {}
    for name, info in checkpoint.tensors.items():
        if parts in name and name.endswith(".weight"):
            out, into = info.shape
            a = generator.standard_normal((3, into)) / np.sqrt(into)
            initial[name] = (
                a.astype(np.float32),
                generator.standard_normal((out, 3)).astype(np.float32) * 0.1,
            )
    return AdapterPlan(initial, scale=2.0, dropout=dropout)


def job(architecture: str = "llama", precision: Any = "F64", **changes: Any) -> TrainingJob:
    """Two steps on packed rows of uneven supervision."""
    checkpoint = tiny.checkpoint(architecture, precision)
    basic: dict[str, Any] = {
        "model": checkpoint, "objective": Form("cross_entropy"), "precision": precision,
        "batch": lambda step: tiny.batch(rows=8, length=14, seed=step),
        "steps": 2, "lr": [0.01, 0.005],
        "optimizer": PLAN, "trainable": frozenset(checkpoint.tensors),
    }  # fmt: skip
    return TrainingJob(**{**basic, **changes})


def train(given: TrainingJob) -> tuple[Mapping[str, Any], list[Progress]]:
    """The trained tensors and what was reported."""
    reports: list[Progress] = []
    result = backend().train(given, reports.append)
    assert tuple(reports) == result.history[-len(reports) :]
    return result.tensors, list(result.history)


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """The largest difference of two results."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


GRADIENT = OptimizerPlan(beta1=0.0, beta2=0.0, eps=1e3, clip=None)
"""With these the first update is the gradient, times lr / eps, to a relative 1e-3 of its size."""
