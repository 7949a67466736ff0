"""The training loop on torch: splits, references, resume, precision."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recipelang.backend import AdapterPlan, OptimizerPlan
from recipelang.diagnostics import RecipeError
from recipelang.objectives import objective, resolve
from recipelang.store.training_state import STATE_FILE
from recipelang.values import Form
from recipelang.weights.kernels.uniform_bits import dropout_keys, threshold, uniform_bits
from recipelang_torch import backend, shard
from tests.backends.torch.jobs import GRADIENT, MIX, OBJECTIVES, PLAN, distance, job, lora, train
from tests.backends.torch.test_models import reference
from tests.conformance import tiny


@pytest.mark.parametrize(
    "objective", [Form(name) for name in OBJECTIVES] + [MIX], ids=lambda f: f.name
)
@pytest.mark.parametrize(("precision", "bound"), [("F64", 1e-12), ("F32", 1e-6)])
def test_a_split_never_changes_a_gradient(
    objective: Form, precision: str, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of 8, 4, 2, 1 and 3 rows and any chunks give one loss, norm and update."""
    teachers = (tiny.checkpoint("llama", precision, seed=5),)
    results = []
    for rows, positions in ((8, 10**6), (4, 7), (2, 3), (1, 10**6), (3, 11)):
        monkeypatch.setattr(shard, "positions_at_once", lambda model, n=positions: n)
        given = job(precision=precision, objective=objective, teachers=teachers, micro_batch=rows,
                    optimizer=GRADIENT, steps=1, lr=[1e3])  # fmt: skip
        results.append(train(given))
    tensors, history = results[0]
    assert history[0].grad_norm > 0.01
    for others, progress in results[1:]:
        assert distance(others, tensors) <= bound
        assert progress[0].loss == pytest.approx(history[0].loss, rel=bound)
        assert progress[0].grad_norm == pytest.approx(history[0].grad_norm, rel=bound)


@pytest.mark.parametrize(
    "objective", [Form(name) for name in OBJECTIVES] + [MIX], ids=lambda f: f.name
)
def test_the_loss_and_gradient_are_those_of_the_plain_formula(objective: Form) -> None:
    """Loss and gradient norm equal one undivided pass: the library's logits, the objective over all
    supervised positions at once, autograd."""
    teacher = tiny.checkpoint("llama", "F64", seed=5)
    given = job(objective=objective, teachers=(teacher,), steps=1)
    _, history = train(given)
    from recipelang.objectives import Positions
    from recipelang_torch import models
    from recipelang_torch.arrays import XP

    batch, cpu = given.batch(0), torch.device("cpu")
    decoders = [models.load(m, "F64", cpu) for m in (given.model, teacher)]
    rows, columns = np.nonzero(batch.supervised)
    student, taught = (
        d.module(
            input_ids=models.inputs(batch, cpu).tokens, use_cache=False,
            position_ids=models.inputs(batch, cpu).positions,
        ).logits[rows, columns - 1]
        for d in decoders
    )  # fmt: skip
    positions = Positions(
        torch.from_numpy(batch.tokens[rows, columns].astype(np.int64)),
        torch.ones(len(rows), dtype=torch.float64), torch.from_numpy(rows),
    )  # fmt: skip
    loss = sum(
        term.weight / term.objective.count(batch)
        * term.objective.terms(
            XP, positions, student, (taught.detach(),) if term.objective.needs_teacher else (),
            None, **term.parameters,
        )
        for term in resolve(objective)
    )  # fmt: skip
    loss.backward()
    weights = {id(w): w for w in decoders[0].named_weights().values()}.values()
    norm = float(torch.stack([w.grad.norm() for w in weights]).norm())
    assert history[0].loss == pytest.approx(loss.item(), rel=1e-12)
    assert history[0].grad_norm == pytest.approx(norm, rel=1e-10)


def test_full_training_equals_a_float64_numpy_adamw() -> None:
    """Three clipped steps with decay equal AdamW written in numpy on gradients of plain
    transformers."""
    given = job("llama3", steps=3, lr=[0.02, 0.01, 0.005])
    tensors, history = train(given)
    model = reference(tiny.checkpoint("llama3", "F64"))
    from recipelang_torch import exact

    exact.sharpen(model, torch.float64)
    weights = dict(model.named_parameters())
    first = {n: np.zeros(tuple(w.shape)) for n, w in weights.items()}
    second = {n: np.zeros(tuple(w.shape)) for n, w in weights.items()}
    for step in range(3):
        batch = given.batch(step)
        output = model(
            input_ids=torch.from_numpy(batch.tokens).long(), use_cache=False,
            position_ids=torch.from_numpy(batch.positions).long(),
        ).logits  # fmt: skip
        rows, columns = np.nonzero(batch.supervised)
        loss = torch.nn.functional.cross_entropy(
            output[rows, columns - 1], torch.from_numpy(batch.tokens[rows, columns]).long()
        )
        grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = np.sqrt(sum(float((g**2).sum()) for g in grads.values()))
        assert history[step].loss == pytest.approx(loss.item(), rel=1e-9)
        assert history[step].grad_norm == pytest.approx(norm, rel=1e-8)
        for name, weight in weights.items():
            g = grads[name].numpy() * min(1.0, PLAN.clip / (norm + 1e-6))
            first[name] = PLAN.beta1 * first[name] + (1 - PLAN.beta1) * g
            second[name] = PLAN.beta2 * second[name] + (1 - PLAN.beta2) * g * g
            m = first[name] / (1 - PLAN.beta1 ** (step + 1))
            v = second[name] / (1 - PLAN.beta2 ** (step + 1))
            decay = PLAN.weight_decay if g.ndim >= 2 else 0.0
            old = weight.detach().numpy()
            new = old - given.lr[step] * (m / (np.sqrt(v) + PLAN.eps) + decay * old)
            weight.data.copy_(torch.from_numpy(new))
    assert distance(tensors, {n: w.detach().numpy() for n, w in weights.items()}) < 1e-9


@pytest.mark.parametrize("architecture", ["llama3", "gemma3"])
def test_lora_equals_training_the_merged_weights(architecture: str) -> None:
    """The trajectory equals one that differentiates W + scale * B A written out, base weights
    frozen."""
    checkpoint = tiny.checkpoint(architecture, "F64")
    plan = lora(checkpoint)
    given = job(
        architecture,
        adapter=plan,
        steps=3,
        lr=[0.02, 0.01, 0.01],
        optimizer=replace(PLAN, clip=None),
    )
    tensors, history = train(given)
    from recipelang_torch import models

    module = models.load(checkpoint, "F64", torch.device("cpu")).module
    frozen = {n: w.detach() for n, w in module.named_parameters()}
    pairs = {
        f"{n}.lora_{k}": torch.from_numpy(x).double().requires_grad_(True)
        for n, ab in plan.initial.items() for k, x in zip("AB", ab, strict=True)
    }  # fmt: skip
    optimizer = torch.optim.AdamW(
        pairs.values(), lr=1.0, betas=(PLAN.beta1, PLAN.beta2), eps=PLAN.eps,
        weight_decay=PLAN.weight_decay, foreach=False,
    )  # fmt: skip
    for step in range(3):
        batch = given.batch(step)
        merged = {
            n: w + plan.scale * pairs[f"{n}.lora_B"] @ pairs[f"{n}.lora_A"]
            if n in plan.initial
            else w
            for n, w in frozen.items()
        }
        inputs = {"input_ids": torch.from_numpy(batch.tokens).long(), "use_cache": False,
                  "position_ids": torch.from_numpy(batch.positions).long()}  # fmt: skip
        logits = torch.func.functional_call(module, merged, (), inputs).logits
        rows, columns = np.nonzero(batch.supervised)
        loss = torch.nn.functional.cross_entropy(
            logits[rows, columns - 1], torch.from_numpy(batch.tokens[rows, columns]).long()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = given.lr[step]
        optimizer.step()
        assert history[step].loss == pytest.approx(loss.item(), rel=1e-10)
    assert distance(tensors, {n: p.detach().numpy() for n, p in pairs.items()}) < 1e-9


def test_dropout_is_keyed_by_step_row_and_token() -> None:
    """The dropped elements are those of the shared bits, wherever a row stands among
    micro-batches."""
    from recipelang_torch.adapters import Dropout

    x = torch.rand(3, 5, 4) + 1
    dropped = Dropout(0.25, "key", 6, torch.tensor([2, 0, 9])).apply(x, "w").numpy()
    for place, row in enumerate((2, 0, 9)):
        bits = uniform_bits(dropout_keys("key", "w", 6), row << 32, (row << 32) + 20).reshape(5, 4)
        expected = np.where(bits >= threshold(0.25), x[place].numpy() / 0.75, 0.0)
        np.testing.assert_array_equal(dropped[place], expected.astype(np.float32))


def test_dropout_does_not_depend_on_the_split_and_does_something() -> None:
    """Dropout gives one gradient for every micro-batch size, and another than no dropout."""
    checkpoint = tiny.checkpoint("llama", "F64")
    common = {"optimizer": GRADIENT, "steps": 1, "lr": [1e3], "draws": "d"}
    results = [
        train(job(adapter=lora(checkpoint, p), micro_batch=rows, recompute=again, **common))[0]
        for p, rows, again in ((0.2, 8, False), (0.2, 3, False), (0.2, 8, True), (0.0, 8, False))
    ]
    assert distance(results[0], results[1]) < 1e-12
    assert distance(results[0], results[2]) < 1e-12
    assert distance(results[0], results[3]) > 1e-4


@pytest.mark.parametrize(
    "objective", [Form("cross_entropy"), Form("forward_kl")], ids=lambda f: f.name
)
@pytest.mark.parametrize("adapted", [True, False])
def test_a_killed_run_goes_on_with_the_bits_of_an_undisturbed_one(
    tmp_path, adapted, objective
) -> None:
    """Killed after a checkpoint, in the middle of a later step, the run ends with the same bits."""
    checkpoint = tiny.checkpoint("qwen3", "BF16")
    changes: dict[str, Any] = {
        "precision": "BF16", "steps": 5, "lr": [0.01] * 5, "objective": objective, "draws": "d",
        "adapter": lora(checkpoint, 0.1) if adapted else None,
        "teachers": (tiny.checkpoint("qwen3", "BF16", seed=3),),
    }  # fmt: skip
    undisturbed, history = train(job("qwen3", **changes))

    def dies(step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return tiny.batch(rows=8, length=14, seed=step)

    folder = tmp_path / "state"
    common = {**changes, "checkpoint": folder, "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        train(job("qwen3", **{**common, "batch": dies}))
    seen: list[int] = []

    def batch(step: int) -> Any:
        seen.append(step)
        return tiny.batch(rows=8, length=14, seed=step)

    resumed, later = train(job("qwen3", **{**common, "batch": batch}))
    assert seen == [3, 4]
    assert later == history
    assert all(np.array_equal(resumed[n], undisturbed[n]) for n in undisturbed)
    assert sorted(p.name for p in folder.iterdir()) == [STATE_FILE]


def test_a_state_that_does_not_fit_is_refused(tmp_path) -> None:
    """A damaged state, or one of another job, is a diagnostic and not a restart."""
    train(job("llama", steps=1, checkpoint=tmp_path, checkpoint_seconds=0.0))
    with pytest.raises(RecipeError, match="does not fit") as caught:
        train(job("llama", checkpoint=tmp_path, trainable=frozenset({"model.norm.weight"})))
    assert caught.value.diagnostics[0].code == "E0804"
    (tmp_path / STATE_FILE).write_bytes(b"garbage")
    with pytest.raises(RecipeError, match="does not fit"):
        train(job("llama", checkpoint=tmp_path))


def test_bfloat16_training_keeps_float32_masters() -> None:
    """Steps far below bfloat16's resolution add up in the masters, which are what comes out."""
    given = job("llama", "BF16", steps=3, lr=[1e-5] * 3, optimizer=OptimizerPlan())
    tensors, _ = train(given)
    name = "model.layers.0.mlp.up_proj.weight"
    moved = tensors[name] - given.model.read(name).reshape(tensors[name].shape).astype(np.float32)
    assert tensors[name].dtype == np.float32
    assert 2e-5 < np.abs(moved).max() < 4e-5


def test_stored_float32_trained_in_bfloat16_starts_from_the_stored_values() -> None:
    """Masters are the checkpoint's own numbers, not their bfloat16 roundings."""
    checkpoint = tiny.checkpoint("llama", "F32")
    given = job("llama", "BF16", model=checkpoint, steps=1, lr=[0.0])
    tensors, _ = train(given)
    assert all(np.array_equal(tensors[n], checkpoint.arrays[n]) for n in tensors)


def test_only_the_trainable_tensors_change() -> None:
    """The result holds the asked tensors, moved, and training them leaves the others where they
    were."""
    names = frozenset({"model.norm.weight", "model.layers.1.mlp.up_proj.weight"})
    given = job("llama", trainable=names, steps=1)
    tensors, _ = train(given)
    assert tensors.keys() == names
    for name in names:
        assert not np.array_equal(tensors[name], tiny.checkpoint("llama", "F64").arrays[name])


def test_evaluation_scores_the_current_weights() -> None:
    """The callback runs after the steps it is asked for, with scores that improve as training goes
    on."""
    means: dict[int, float] = {}
    held = tiny.batch(rows=8, length=14, seed=0)

    def evaluate(step: int, score: Any) -> None:
        means[step] = float(score(held)[held.supervised].mean())

    train(
        job(
            "llama",
            "F32",
            steps=6,
            lr=[0.01] * 6,
            batch=lambda _: held,
            evaluate=evaluate,
            evaluate_at=frozenset({1, 6}),
        )
    )
    assert means.keys() == {1, 6}
    assert means[6] > means[1] + 0.1


def test_a_step_without_supervision_changes_nothing() -> None:
    """No supervised position is a loss of zero and a gradient of zero, never a division by zero."""
    blank = replace(tiny.batch(), supervised=np.zeros((4, 12), np.bool_))
    given = job("llama", batch=lambda _: blank, steps=1, optimizer=OptimizerPlan())
    tensors, history = train(given)
    assert (history[0].loss, history[0].grad_norm) == (0.0, 0.0)
    assert distance(tensors, tiny.checkpoint("llama", "F64").arrays) == 0.0


def test_an_adapter_on_an_embedding_is_refused_by_name() -> None:
    """Adapters go on linear layers; anything else is named."""
    pair = (np.zeros((2, 97), np.float32), np.zeros((32, 2), np.float32))
    plan = AdapterPlan({"model.embed_tokens.weight": pair}, 1.0)
    with pytest.raises(RecipeError, match=r"`model\.embed_tokens\.weight`"):
        train(job(adapter=plan))


@objective(statistics=lambda xp, positions, student, teachers: _totals(xp, positions, student))
def spread(xp: Any, positions: Any, student: Any, teachers: Any, statistics: Any) -> Any:
    """The sum of squared distances of the log-probabilities from their mean over the whole step."""
    mean = statistics["sum"] / statistics["number"]
    return xp.sum(positions.mask * (_of_target(xp, positions, student) - mean) ** 2)


def _of_target(xp: Any, positions: Any, student: Any) -> Any:
    logs = xp.log_softmax(student, axis=-1)
    return xp.take_along_axis(logs, positions.targets[:, None], axis=-1)[:, 0]


def _totals(xp: Any, positions: Any, student: Any) -> dict[str, Any]:
    logs = positions.mask * _of_target(xp, positions, student)
    return {"sum": xp.sum(logs), "number": xp.sum(positions.mask)}


def test_statistics_are_of_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective that needs sums over the step gets them complete, whatever the split."""
    module = types.ModuleType("recipelang.objectives.spread")
    vars(module)["spread"] = spread
    monkeypatch.setitem(sys.modules, module.__name__, module)
    results = []
    for rows, positions in ((8, 10**6), (3, 7)):
        monkeypatch.setattr(shard, "positions_at_once", lambda model, n=positions: n)
        given = job(
            objective=Form("spread"), micro_batch=rows, steps=1, optimizer=GRADIENT, lr=[1e3]
        )
        results.append(train(given))
    assert distance(results[0][0], results[1][0]) < 1e-12
    batch = given.batch(0)
    scores = backend().load(given.model, "F64").score(batch)[batch.supervised]
    expected = float(np.mean((scores - scores.mean()) ** 2))
    assert results[0][1][0].loss == pytest.approx(expected, rel=1e-10)


def test_a_full_device_is_a_diagnostic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of memory says what to change instead of ending in a traceback."""

    def full(self: Any, given: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    from recipelang_torch import models

    monkeypatch.setattr(models.Decoder, "hidden", full)
    with pytest.raises(RecipeError, match="ran out of memory") as caught:
        train(job())
    assert "micro_batch" in caught.value.diagnostics[0].help


def test_rows_at_once_fit_the_memory_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less room, longer rows and kept activations mean fewer rows at once; never none."""
    from recipelang_torch import models

    model = models.load(tiny.checkpoint("llama"), "F32", torch.device("cpu"))
    monkeypatch.setattr(shard, "_CPU_ROOM", 10_000_000)
    rows = shard.rows_at_once(model, 100)
    assert rows == 10_000_000 // (3 * (14 * 32 + 5 * 48) * 100 * 4)
    assert shard.rows_at_once(model, 200) <= rows // 2
    assert shard.rows_at_once(model, 100, recompute=True) > rows
    assert shard.rows_at_once(model, 10**9) == 1
