"""The training loop: splits, packing, resuming, partial training, and sharding change nothing they
must not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recipelang.backend import AdapterPlan, OptimizerPlan, Progress, Trained, TrainingJob
from recipelang.data.batch import Batch
from recipelang.diagnostics import RecipeError
from recipelang.objectives import Positions, objective
from recipelang.store.training_state import STATE_FILE, write_state
from recipelang.values import Form
from recipelang_jax import backend
from tests.conformance import tiny

SMALL: dict[str, object] = {"num_hidden_layers": 2}


def job(architecture: str = "llama", **changes: Any) -> TrainingJob:
    """A run of three steps at F64."""
    model = tiny.checkpoint(architecture, "F32", **SMALL)
    settings: dict[str, Any] = {
        "model": model, "objective": Form("cross_entropy"), "steps": 3,
        "batch": lambda step: tiny.batch(seed=step), "lr": [1e-2] * 3,
        "optimizer": OptimizerPlan(weight_decay=0.1, clip=1.0),
        "precision": "F64", "trainable": frozenset(model.tensors),
    }  # fmt: skip
    return TrainingJob(**{**settings, **changes})


def adapter(dropout: float = 0.0) -> AdapterPlan:
    """A pair on one projection of one layer, and one on another."""
    generator = np.random.Generator(np.random.Philox(key=8))
    shapes = {
        "model.layers.1.self_attn.q_proj.weight": (32, 32),
        "model.layers.0.mlp.down_proj.weight": (32, 48),
    }
    initial = {
        name: tuple(0.1 * generator.standard_normal(s).astype(np.float32) for s in ((2, i), (o, 2)))
        for name, (o, i) in shapes.items()
    }
    return AdapterPlan(initial, 2.0, dropout)  # type: ignore[arg-type]


def train(of: TrainingJob) -> Trained:
    """The job's result."""
    return backend().train(of, lambda _: None)


def close(found: Trained, expected: Trained, tolerance: float) -> None:
    """Equal losses, norms and tensors."""
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=tolerance)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=tolerance)
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(found.tensors[name], tensor, rtol=0, atol=tolerance)


@objective(
    needs_teacher=True,
    statistics=lambda xp, positions, student, teachers: {
        "sum": xp.sum(positions.mask * student[:, 3])
    },
)
def centred(xp: Any, positions: Positions, student: Any, teachers: Any, statistics: Any) -> Any:
    """A toy that needs a statistic of the whole step: distance of a logit from the step's sum."""
    return xp.sum(positions.mask * (student[:, 3] - 0.01 * statistics["sum"]) ** 2)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy objective under a name that recipes could use."""
    module = ModuleType("recipelang.objectives.centred")
    module.centred = centred  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_split_of_the_batch_changes_nothing(toy: None) -> None:
    """Every objective, with a statistic and several counts: eight rows at once, and in
    micro-batches of four, two, one, and an uneven three."""
    names = ("cross_entropy", "forward_kl", "reverse_kl", "centred")
    parts = [
        Form("term", (("weight", 0.3 + i / 10), ("of", Form(name)))) for i, name in enumerate(names)
    ]
    settings: dict[str, Any] = {
        "objective": Form("sum", tuple((str(i), part) for i, part in enumerate(parts))),
        "teachers": (tiny.checkpoint("llama", "F32", seed=3, **SMALL),),
        "batch": lambda step: tiny.batch(rows=8, seed=step),
    }
    whole = train(job(**settings))
    for rows in (4, 3, 2, 1):
        close(whole, train(job(**settings, micro_batch=rows)), 1e-12)


def test_recomputing_changes_nothing() -> None:
    """All three ways of keeping activations give one result, in float32 to rounding."""
    first, second, third = (train(job(precision="F32", recompute=r)) for r in (None, True, False))
    close(first, second, 1e-4)
    close(first, third, 1e-4)


@pytest.mark.parametrize("precision", ["F32", "BF16"])
def test_an_interrupted_run_resumes_bit_for_bit(precision: str, tmp_path: Path) -> None:
    """Stopped after a step and started again, with dropout: history and tensors have the same
    bits."""
    settings: dict[str, Any] = {
        "precision": precision, "adapter": adapter(0.3), "trainable": frozenset(), "draws": "d",
    }  # fmt: skip
    whole = train(job(**settings))

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    saved = job(**settings, checkpoint=tmp_path / "state", checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        backend().train(saved, stop)
    steps: list[int] = []
    resumed = backend().train(saved, lambda progress: steps.append(progress.step))
    assert steps == [3]
    assert resumed.history == whole.history
    for name, tensor in whole.tensors.items():
        assert resumed.tensors[name].tobytes() == tensor.tobytes()


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    """A folder with another job's state, or with a damaged one, is the fault E0804."""
    write_state(tmp_path, "jax", {"trained/x": np.zeros(3)}, [Progress(1, 2, 0.5, 1.0, 0.1, 9)])
    for _ in range(2):
        with pytest.raises(RecipeError, match="E0804"):
            train(job(checkpoint=tmp_path))
        (tmp_path / STATE_FILE).write_bytes(b"half a file")


def test_only_the_named_tensors_are_trained() -> None:
    """One layer's projection, a norm and the embedding move; the result holds them alone."""
    names = frozenset(
        ("model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight")
    )
    part = job(trainable=names)
    found = train(part)
    assert set(found.tensors) == names
    for name, tensor in found.tensors.items():
        assert tensor.shape == part.model.tensors[name].shape
        assert tensor.dtype == np.float64
        assert np.abs(tensor - part.model.read(name).reshape(tensor.shape)).max() > 1e-3


def test_decay_spares_norms() -> None:
    """With no gradient, decay shrinks matrices by lr * decay a step and leaves norms, stacked or
    not."""

    def silent(step: int) -> Batch:
        batch = tiny.batch(seed=step)
        return Batch(batch.tokens, batch.segments, batch.positions, np.zeros_like(batch.supervised))

    part = job(batch=silent)
    found = train(part)
    assert [progress.loss for progress in found.history] == [0.0] * 3
    assert [progress.grad_norm for progress in found.history] == [0.0] * 3
    for name, tensor in found.tensors.items():
        start = part.model.read(name).reshape(tensor.shape).astype(np.float64)
        factor = 1.0 if tensor.ndim == 1 else (1 - 1e-3) ** 3
        np.testing.assert_allclose(tensor, start * factor, rtol=1e-12)


def test_scores_during_training_are_those_of_the_weights() -> None:
    """The scoring function of `evaluate` sees the adapters as they are at that step."""
    batch = tiny.batch(seed=9)
    seen: dict[int, float] = {}
    settings: dict[str, Any] = {
        "adapter": adapter(), "trainable": frozenset(), "lr": [0.0] * 3, "batch": lambda _: batch,
        "evaluate": lambda step, score: seen.update({step: float(score(batch).sum())}),
        "evaluate_at": frozenset((1, 3)),
    }  # fmt: skip
    found = train(job(**settings))
    assert set(seen) == {1, 3}
    for step, score in seen.items():
        expected = -found.history[step - 1].loss * batch.supervised.sum()
        assert score == pytest.approx(float(expected), rel=1e-12)


def test_an_adapter_needs_a_linear_layer() -> None:
    """An adapter on the embedding or on nothing is the fault E0803, by name."""
    pair = (np.zeros((2, 32), np.float32), np.zeros((97, 2), np.float32))
    for name in ("model.embed_tokens.weight", "model.layers.7.mlp.up_proj.weight"):
        with pytest.raises(RecipeError, match=name):
            train(job(adapter=AdapterPlan({name: pair}, 1.0)))


SHARDED = """
import jax, sys
sys.path[:0] = {path!r}
from tests.backends.jax.test_training import job, train
assert len(jax.devices()) == 2
print([progress.loss for progress in train(job(micro_batch=3)).history])
"""


def test_two_devices_give_the_losses_of_one() -> None:
    """Weights and rows spread over two (pretended) devices: the same losses to float64's
    accuracy."""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED.format(path=sys.path)], capture_output=True, text=True,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = [float(x) for x in done.stdout.strip("[]\n").split(",")]
    assert losses == pytest.approx([p.loss for p in train(job()).history], rel=1e-12)
