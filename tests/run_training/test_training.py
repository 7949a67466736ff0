"""From a node to a job and from its result to an artifact, with a bigram backend."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from recipelang.backend import Progress
from recipelang.diagnostics import RecipeError
from recipelang.run.artifacts import Tensor, store_tensors
from recipelang.run.outcome import peft_config
from recipelang.run.reports import Evaluated, Facts, Summary, read_evaluations
from recipelang.run.training import make_job, train
from recipelang.store.store import Store
from recipelang.values import Form, Quantity
from recipelang.weights.peft import contents
from recipelang.weights.stored import StoredModel
from tests.data.helpers import CHATML
from tests.run_training.fake import TABLE, WORDS, FakeBackend, model, step, texts

DATA = texts(
    "the cat sat on the mat", "a dog ran", "the cat ran", "on the mat a dog sat", length=16
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    found = Store(tmp_path / "store")
    found.prepare()
    return found


def test_full_training_makes_a_model(store: Store) -> None:
    """The artifact has every tensor in its stored dtype, the configuration and the files of the
    base.
    """
    base, backend, seen = model(), FakeBackend(), []
    node = step("finetune", steps=30, batch=2, lr=1e-2, schedule=Form("constant"), freeze=("norm",))
    manifest = train(
        node,
        {"model": (base,), "data": (DATA,)},
        draws="ab",
        backend=backend,
        checkpoint_folder=None,
        report=seen.append,
        store=store,
    )
    stored = StoredModel.open(manifest, store.object_path)
    assert manifest.kind == "model"
    assert {n: (t.dtype, t.shape) for n, t in stored.tensors.items()} == {
        TABLE: ("F32", (WORDS, WORDS)),
        "norm.weight": ("F32", (WORDS,)),
    }
    assert np.array_equal(stored.read("norm.weight"), base.checkpoint.read("norm.weight"))
    assert not np.array_equal(stored.read(TABLE), base.checkpoint.read(TABLE))
    assert stored.config == base.checkpoint.config
    assert set(stored.files) == set(base.checkpoint.files)
    assert store.put_manifest(manifest) == manifest.identity
    assert backend.jobs[0].trainable == {TABLE}
    losses = [p.loss for p in seen if isinstance(p, Progress)]
    assert len(losses) == 30
    assert losses[-1] < losses[0] - 0.1


def test_reports_come_in_order(store: Store, tmp_path: Path) -> None:
    """Facts first, then steps and evaluations, the summary last; its lines are JSON."""
    seen: list[object] = []
    node = step("finetune", steps=5, batch=2, lr=1e-2, every=2)
    folder = tmp_path / "work"
    train(
        node,
        {"model": (model(),), "data": (DATA,), "over": (texts("the dog sat"),)},
        draws="ab",
        backend=FakeBackend(),
        checkpoint_folder=folder,
        report=seen.append,
        store=store,
    )
    facts, summary = seen[0], seen[-1]
    assert isinstance(facts, Facts)
    assert isinstance(summary, Summary)
    assert (facts.rows, facts.counts.documents, facts.steps) == (4, 4, 5)
    assert 0.8 < facts.supervised_share < 1
    assert facts.counts.long == 2
    assert facts.counts.lost_ends == 2
    assert any("lost their end" in line for line in facts.lines())
    assert (
        "".join(text for text, _ in facts.sample)[1:]
        in "".join(str(r["text"]) for r in DATA.rows()) + "<|endoftext|>"
    )
    assert [e.step for e in seen if isinstance(e, Evaluated)] == [2, 4, 5]
    rows = [json.loads(line) for line in summary.to_jsonl().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 2, 4, 5]
    assert {"loss", "grad_norm", "lr", "tokens"} <= set(rows[0])
    assert rows[-1]["over"]["loss"] > 0


def test_evaluations_survive_an_interruption(store: Store, tmp_path: Path) -> None:
    """What was evaluated before a run was killed is in the summary of the run that ends it."""
    folder = tmp_path / "work"
    folder.mkdir()
    line = json.dumps({"step": 2, "loss": 1.5, "bits_per_byte": 2.5}) + "\n"
    (folder / "evaluations.jsonl").write_text(line)
    seen: list[object] = []
    node = step("finetune", steps=4, batch=2)
    train(
        node,
        {"model": (model(),), "data": (DATA,), "over": (texts("the dog sat"),)},
        draws="ab",
        backend=FakeBackend(),
        checkpoint_folder=folder,
        report=seen.append,
        store=store,
    )
    assert isinstance(seen[-1], Summary)
    assert [e.step for e in seen[-1].evaluations] == [2, 4]
    assert seen[-1].evaluations[0] == Evaluated(2, 1.5, 2.5)
    (folder / "evaluations.jsonl").write_text(line + '{"step": 3, "lo')
    assert read_evaluations(folder / "evaluations.jsonl") == {}


def test_adapter_training_makes_an_adapter(store: Store) -> None:
    """The artifact stands on the base and has PEFT's names, shapes and configuration."""
    base = model(artifact="base-id")
    form = Form("lora", (("rank", 4), ("alpha", 8.0), ("variant", "rslora"), ("dropout", 0.25)))
    backend = FakeBackend()
    manifest = train(
        step("finetune", steps=2, adapter=form),
        {"model": (base,), "data": (DATA,)},
        draws="ab",
        backend=backend,
        checkpoint_folder=None,
        report=lambda _: None,
        store=store,
    )
    stored = StoredModel.open(manifest, store.object_path)
    assert (manifest.kind, manifest.base, set(manifest.files)) == (
        "adapted",
        "base-id",
        {"adapter_config.json"},
    )
    assert {n: t.shape for n, t in stored.tensors.items()} == {
        "base_model.model.bigram.lora_A.weight": (4, WORDS),
        "base_model.model.bigram.lora_B.weight": (WORDS, 4),
    }
    config = json.loads(store.object_path(manifest.files["adapter_config.json"]).read_bytes())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 8.0, True)
    assert config["target_modules"] == ["bigram"]
    (factors,) = contents(config, stored.tensors).factors.values()
    assert factors.scale == 8 / sqrt(4)
    plan = backend.jobs[0].adapter
    assert plan is not None
    assert (plan.scale, plan.dropout) == (8 / sqrt(4), 0.25)
    assert backend.jobs[0].lr[0] == 2e-4


def test_initial_adapters_are_drawn_by_name() -> None:
    """A is uniform within 1/sqrt(in) and keyed by draws and name alone, B is zero."""

    def initial(draws: str, rank: int = 16, **fields: int) -> np.ndarray:
        node = step("finetune", steps=2, adapter=Form("lora", (("rank", rank),)), **fields)
        plan = make_job(node, {"model": (model(),), "data": (DATA,)}, draws, FakeBackend())[
            0
        ].adapter
        assert plan is not None
        a, b = plan.initial[TABLE]
        assert not b.any()
        assert b.shape == (WORDS, rank)
        return a

    a = initial("ab")
    assert a.dtype == np.float32
    assert np.abs(a).max() <= 1 / sqrt(WORDS)
    assert float(a.std()) == pytest.approx(1 / sqrt(3 * WORDS), rel=0.05)
    assert np.array_equal(a, initial("ab", batch=3))
    assert not np.array_equal(a, initial("ac"))


def test_peft_names_whole_modules_where_only_some_are_adapted() -> None:
    """A module name that is not adapted everywhere is written out, so that PEFT adapts no more."""
    from recipelang.run.schedules import settings
    from tests.run_training.fake import Memory

    names = [f"layers.{i}.{p}.weight" for i in range(2) for p in ("q_proj", "v_proj")]
    memory = Memory({n: np.zeros((2, 2), np.float32) for n in names}, {})
    base = replace(model(), checkpoint=memory)
    chosen = [n for n in names if n != "layers.1.v_proj.weight"]
    found = json.loads(peft_config(settings(Form("lora")), chosen, base))
    assert found["target_modules"] == ["q_proj", "layers.0.v_proj"]


def test_data_order_is_that_of_the_draws() -> None:
    """A job's batches depend on the draws and the step, not on rates, adapters or micro-batches."""

    def tokens(draws: str, at: int, **fields: object) -> list[list[int]]:
        node = step("finetune", steps=9, batch=2, **fields)  # type: ignore[arg-type]
        job = make_job(node, {"model": (model(),), "data": (DATA,)}, draws, FakeBackend())[0]
        return job.batch(at).tokens.tolist()

    assert tokens("ab", 3) == tokens("ab", 3, lr=1.0, micro_batch=1, adapter=Form("lora"))
    assert [tokens("ab", t) for t in range(4)] != [tokens("ac", t) for t in range(4)]


def test_settings_reach_the_job(tmp_path: Path) -> None:
    """Optimiser, clipping, precision, hints and the checkpoint's folder arrive as written."""
    node = step(
        "finetune",
        epochs=2.0,
        batch=2,
        optimizer=Form("adamw", (("beta2", 0.95),)),
        weight_decay=0.1,
        clip=None,
        precision="f64",
        micro_batch=1,
        recompute=True,
        checkpoint=5.0,
        schedule=Form("linear", (("warmup", Quantity(2, "steps")),)),
    )
    job, facts, _ = make_job(
        node, {"model": (model(),), "data": (DATA,)}, "ab", FakeBackend(), tmp_path
    )
    assert (job.optimizer.beta2, job.optimizer.weight_decay, job.optimizer.clip) == (
        0.95,
        0.1,
        None,
    )
    assert (job.precision, job.micro_batch, job.recompute, job.checkpoint_seconds) == (
        "F64",
        1,
        True,
        5.0,
    )
    assert job.checkpoint == tmp_path
    assert job.steps == facts.steps == len(job.lr) == -(-2 * facts.counts.rows // 2)
    assert job.lr[:2] == pytest.approx((1e-5, 2e-5))


def test_distillation_has_teachers_and_its_objective(store: Store) -> None:
    """Teachers are values of the step; the temperature is in every term that has one."""
    parts = Form(
        "sum",
        (
            ("0", Form("term", (("weight", 0.7), ("of", Form("forward_kl"))))),
            ("1", Form("term", (("weight", 0.3), ("of", Form("cross_entropy"))))),
        ),
    )
    teacher, student, backend = model(seed=1), model(artifact="s"), FakeBackend()
    node = step("distill", steps=2, objective=parts, temperature=2.0)
    inputs = {"teachers": (teacher,), "into": (student,), "data": (DATA,)}
    manifest = train(
        node,
        inputs,
        draws="ab",
        backend=backend,
        checkpoint_folder=None,
        report=lambda _: None,
        store=store,
    )
    job = backend.jobs[0]
    assert manifest.kind == "model"
    assert job.teachers == (teacher.checkpoint,)
    assert job.model is student.checkpoint
    first = job.objective.args[0][1]
    assert isinstance(first, Form)
    assert first.get("of") == Form("forward_kl", (("temperature", 2.0),))
    last = job.objective.args[1][1]
    assert isinstance(last, Form)
    assert last.get("of") == Form("cross_entropy")


def test_packing_needs_a_model_that_keeps_documents_apart() -> None:
    """An architecture that mixes packed documents is refused, with the remedy."""
    inputs = {"model": (model(),), "data": (DATA,)}
    backend = FakeBackend(isolates=False)
    with pytest.raises(RecipeError, match="E0841"):
        make_job(step("finetune"), inputs, "ab", backend)
    job = make_job(step("finetune", packing=False), inputs, "ab", backend)[0]
    assert job.batch(0).segments.max() == 1


def test_chats_are_supervised_by_their_template() -> None:
    """A chat dataset trains the assistant's turns of the model's template."""
    from recipelang.run.data import Rows

    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    data = Rows("d", "chat", 64, lambda: rows)
    facts = make_job(
        step("finetune"), {"model": (model(CHATML),), "data": (data,)}, "ab", FakeBackend()
    )[1]
    assert [text for text, supervised in facts.sample if supervised] == ["b<|im_end|>"]


def test_stored_tensors_are_canonical(store: Store) -> None:
    """Equal tensors give equal objects whatever their order; other libraries read the shard."""
    from safetensors import safe_open

    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0,), np.float16)
    rows = [Tensor("b", "F16", (0,), lambda: b), Tensor("a", "F32", (2, 3), lambda: a)]
    one, two = store_tensors(store, rows), store_tensors(store, rows[::-1])
    assert one == two
    with safe_open(store.object_path(one["a"].shard), "numpy") as file:
        assert np.array_equal(file.get_tensor("a"), a)
        assert file.get_tensor("b").shape == (0,)
        assert file.metadata() == {"format": "pt"}
    with pytest.raises(ValueError, match="is not F32"):
        store_tensors(store, [Tensor("a", "F32", (5,), lambda: a)])
