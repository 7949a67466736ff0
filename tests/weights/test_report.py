"""The figures of merges: against float64, from samples, after kills, and without any influence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.ops.registry import lookup, verbs
from recipelang.weights import blocks, report
from recipelang.weights.engine import RegionProgress, run_region
from recipelang.weights.figures import MergeReport, Origin, TensorSums, merge_report, read_report
from recipelang.weights.region import Operand, Step, make_step
from recipelang.weights.report import Watcher, compared, watched_step
from recipelang.weights.writer import ModelWriter
from tests.weights.models import Memory, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (90, 20),
    "model.layers.0.mlp.w": (30, 21),
    "model.layers.0.norm": (21,),
    "model.layers.1.mlp.w": (30, 21),
    "model.norm.weight": (20,),
}
WIDE = {"model.layers.0.w": (700, 300), "model.layers.1.w": (513, 257), "model.norm": (300,)}


def step(verb: str, operands: dict[str, tuple[Operand, ...]], **fields: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, operands, fields)


def watched(made: Step, folder: Path, **options: Any) -> tuple[dict[str, TensorSums], Any]:
    """The sums of a step that is carried out, and its arrays."""
    from recipelang.weights.rawread import read_elements
    from recipelang.weights.safetensors import read_header

    writer = ModelWriter(folder, made.tensors)
    found = watched_step(made)
    assert found is not None
    watcher = Watcher(found, folder / "report.jsonl")
    run_region([(made, writer)], watchers={writer: watcher}, **options)
    arrays: dict[str, Any] = {}
    for shard in writer.finish().shards:
        for name, entry in read_header(shard.path).entries.items():
            arrays[name] = read_elements(shard.path, entry).reshape(entry.info.shape)
    return watcher.sums, arrays


def gathered(sums: Mapping[str, TensorSums], inputs: int, based: bool = False) -> MergeReport:
    """The report of inputs a, b, c, ... and, where it is based, of the base o."""
    names = [Origin(name) for name in "abcdef"[:inputs]]
    return merge_report("x-merge", names, Origin("o") if based else None, sums.values(), len(sums))


def exact(result: Any, inputs: list[Any], base: Any = None) -> dict[str, Any]:
    """The figures of some arrays, in float64."""
    r, xs = result.astype(np.float64), [x.astype(np.float64) for x in inputs]
    norm = np.linalg.norm
    found: dict[str, Any] = {
        "norm_ratio": norm(r) / np.mean([norm(x) for x in xs]),
        "cosine": [np.sum(r * x) / norm(r) / norm(x) for x in xs],
    }
    if base is not None:
        b = base.astype(np.float64)
        ds = [x - b for x in xs]
        found["change_ratio"] = norm(r - b) / np.mean([norm(d) for d in ds])
        found["change_cosine"] = [np.sum((r - b) * d) / norm(r - b) / norm(d) for d in ds]
        up, down = np.any([d > 0 for d in ds], axis=0), np.any([d < 0 for d in ds], axis=0)
        found["conflicts"] = np.mean(up & down)
    return found


def check(row: Any, expected: dict[str, Any], tolerance: float) -> None:
    """A row of a report has these figures, within an absolute error."""
    for name, value in expected.items():
        several = isinstance(value, list)
        got = [getattr(i, name) for i in row.inputs] if several else getattr(row, name)
        assert got == pytest.approx(value, abs=tolerance), name


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_small_tensors_are_exact(dtype: str, tmp_path: Path) -> None:
    """Sums of tensors that are taken whole are those of float64, layer by layer."""
    base = random_model(0, SHAPES, dtype)
    models = [near(base, i, 0.01) for i in (1, 2, 3)]
    made = step("ties-merge", {"inputs": tuple(models), "base": (base,)}, density=0.7)
    sums, result = watched(made, tmp_path)
    got = gathered(sums, 3, based=True)
    assert [row.label for row in got.layers] == ["before", "0", "1", "after"]
    assert got.whole.sampled == got.whole.elements == sum(a.size for a in result.values())
    for row, layer in ((got.layers[1], ".0."), (got.layers[2], ".1."), (got.whole, "")):
        names = [name for name in SHAPES if layer in name]

        def join(arrays: Mapping[str, Any], names: list[str] = names) -> Any:
            return np.concatenate([arrays[name].reshape(-1) for name in names])

        inputs = [join(m.arrays) for m in models]
        check(row, exact(join(result), inputs, join(base.arrays)), 2e-5)


def test_a_sample_is_near(tmp_path: Path) -> None:
    """The figures of larger tensors come from a sample of them, and are near those of all."""
    base = random_model(0, WIDE)
    models = [near(base, 1, 0.002), near(base, 2, 0.006)]
    made = step("task-arithmetic-merge", {"inputs": tuple(models), "base": (base,)}, weight=0.7)
    sums, result = watched(made, tmp_path)
    got = gathered(sums, 2, based=True)
    assert got.layers[0].sampled == 4 * report.RUN
    assert got.layers[2].sampled == 300
    for row, name in zip(got.layers, WIDE, strict=True):
        inputs = [m.arrays[name] for m in models]
        check(row, exact(result[name], inputs, base.arrays[name]), 0.02)


def test_a_sample_covers_rows_and_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs move on, so that every column of a matrix is met, and rows from all its parts."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 4096)
    monkeypatch.setattr(report, "STRETCH", 4096)
    monkeypatch.setattr(report, "RUN", 128)
    taken: list[Any] = []
    take = report._Sums.take  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        report._Sums,  # pyright: ignore[reportPrivateUsage]
        "take",
        lambda self, stored: (taken.append(stored[1].astype(int)), take(self, stored)),
    )
    places = np.arange(1024 * 512, dtype=np.float32).reshape(1024, 512)
    model = Memory({"w": places})
    watched(step("linear-merge", {"inputs": (model, near(model, 1))}), tmp_path)
    met = np.concatenate(taken)
    assert len(met) == len(set(met.tolist())) == 1024 * 512 // 256
    assert {*(met % 512)} == set(range(512))
    assert {*(met // 512 // 128)} == set(range(8))


@pytest.mark.parametrize(("budget", "threads"), [(1 << 30, 1), (0, 3)])
def test_figures_depend_on_the_tensors_alone(budget: int, threads: int, tmp_path: Path) -> None:
    """Neither the budget nor the threads change a digit, and the result has the same bytes with a
    watcher and without."""
    base = random_model(0, WIDE)
    made = step("ties-merge", {"inputs": (near(base, 1), near(base, 2)), "base": (base,)})
    expected, _ = watched(made, tmp_path / "a", threads=2)
    got, _ = watched(made, tmp_path / "b", budget_bytes=budget, threads=threads)
    assert got == expected
    plain = ModelWriter(tmp_path / "c", made.tensors)
    run_region([(made, plain)])
    assert (
        plain.finish().shards[0].path.read_bytes()
        == (tmp_path / "a" / "model.safetensors").read_bytes()
    )


def test_every_number_that_is_not_finite_is_counted(tmp_path: Path) -> None:
    """Infinities and NaN count wherever they are; the other figures leave their elements out."""
    base = random_model(0, WIDE)
    bad, good = near(base, 1), near(base, 2)
    flat = bad.arrays["model.layers.0.w"].reshape(-1)
    flat[[0, 5, 100_000, flat.size - 1]] = [np.nan, np.inf, -np.inf, np.nan]
    made = step("linear-merge", {"inputs": (bad, good)}, nonfinite="allow")
    sums, result = watched(made, tmp_path)
    got = gathered(sums, 2)
    assert got.nonfinite == (("model.layers.0.w", 4),)
    assert got.whole.nonfinite == 4
    assert got.layers[0].sampled == 4 * report.RUN - 2
    name = "model.layers.0.w"
    kept = np.isfinite(result[name].astype(np.float64))
    check(
        got.layers[0],
        exact(result[name][kept], [m.arrays[name][kept] for m in (bad, good)]),
        0.04,
    )


def test_overflow_of_the_last_rounding_is_counted(tmp_path: Path) -> None:
    """What becomes an infinity only when the result is stored is one."""
    model = Memory({"w": np.array([1.0, 70000.0, -70000.0], np.float32)})
    made = step(
        "linear-merge", {"inputs": (model, model)}, dtype="f16", nonfinite="allow"
    )  # fmt: skip
    sums, _ = watched(made, tmp_path)
    assert sums["w"].nonfinite == 2


def test_squares_may_overflow_float32(tmp_path: Path) -> None:
    """Large finite numbers still have a norm."""
    model = Memory({"w": np.full(10, 1e30, np.float32)})
    sums, _ = watched(step("linear-merge", {"inputs": (model, model)}), tmp_path)
    assert sums["w"].squares == pytest.approx(1e61)
    assert gathered(sums, 2).whole.norm_ratio == 1.0


def test_an_input_that_is_not_read_has_no_figures(tmp_path: Path) -> None:
    """An input of weight zero, and the other end of a slerp, are left out; there is nothing to be
    in conflict with."""
    base = random_model(0, SHAPES)
    a, b = near(base, 1), near(base, 2)
    made = step("ties-merge", {"inputs": (a, b), "base": (base,)}, weight=(1.0, 0.0))
    got = gathered(watched(made, tmp_path / "ties")[0], 2, based=True)
    assert got.whole.inputs[1].norm_ratio is None
    assert got.whole.conflicts is None
    end = gathered(watched(step("slerp-merge", {"inputs": (a, b)}, t=1), tmp_path / "slerp")[0], 2)
    assert end.whole.inputs[0].cosine is None
    assert end.whole.inputs[1].cosine == 1.0
    assert b.counts.keys() == SHAPES.keys()


def test_a_chain_is_compared_with_the_last_merge(tmp_path: Path) -> None:
    """The inputs of a chain's report are those of its last merge, also where one exists only block
    by block; a cast after it is looked through and counts as part of the result."""
    base = random_model(0, SHAPES)
    a, b, c = (near(base, i) for i in (1, 2, 3))
    inner = step("ties-merge", {"inputs": (a, b), "base": (base,)})
    outer = step("slerp-merge", {"inputs": (inner, c)}, t=0.3)
    last = step("cast", {"model": (outer,)}, dtype="f16")
    assert watched_step(last) is outer
    assert compared(outer) == ((("inputs", 0), ("inputs", 1)), None)
    sums, result = watched(last, tmp_path / "last")
    _, middle = watched(inner, tmp_path / "inner")
    name = "model.layers.0.mlp.w"
    check(
        gathered(sums, 2).layers[1],
        exact(*(lambda join: (join(result), [join(middle), join(c.arrays)]))(
            lambda arrays: np.concatenate(
                [arrays[name].reshape(-1), arrays["model.layers.0.norm"].reshape(-1)]
            )
        )),
        2e-5,
    )  # fmt: skip


def test_what_is_made_of_one_model_has_no_report() -> None:
    """A cast, fewer layers and a delta are no merges; arithmetic with a delta is compared with what
    the model was before."""
    base = random_model(0, SHAPES)
    a, b = near(base, 1), near(base, 2)
    assert watched_step(base) is None
    assert watched_step(step("cast", {"model": (a,)}, dtype="f16")) is None
    assert watched_step(step("shrink", {"model": (a,)}, keep=(0,))) is None
    delta = step("delta", {"of": (a,), "minus": (b,)})
    assert watched_step(delta) is None
    sum_ = step("add-delta", {"model": (base,), "delta": (delta,)}, scale=0.4)
    assert watched_step(sum_) is sum_
    assert compared(sum_) == ((("model", 0),), None)
    merged = step("linear-merge", {"inputs": (a, b)})
    assert watched_step(step("add-delta", {"model": (merged,), "delta": (delta,)})) is merged


def test_copies_know_their_input(tmp_path: Path) -> None:
    """A tensor that is copied is compared with the input it comes from; integers with none."""
    model = random_model(0, SHAPES)
    model = Memory({**model.arrays, "ids": np.arange(4)}, model.config)
    rng, module = np.random.default_rng(1), "base_model.model.model.layers.0.mlp"
    arrays = {
        f"{module}.lora_A.weight": rng.standard_normal((2, 21)).astype(np.float32),
        f"{module}.lora_B.weight": rng.standard_normal((30, 2)).astype(np.float32),
    }
    adapter = Memory(arrays, {"peft_type": "LORA", "r": 2, "lora_alpha": 2})
    renamed = {n.replace("mlp.w", "mlp.weight"): a for n, a in model.arrays.items()}
    made = step("apply", {"adapter": (adapter,), "model": (Memory(renamed, model.config),)})
    sums, _ = watched(made, tmp_path)
    copied, changed = sums["model.layers.1.mlp.weight"], sums["model.layers.0.mlp.weight"]
    assert [i and i.equal for i in copied.inputs] == [True]
    assert [i and i.equal for i in changed.inputs] == [False]
    assert (sums["ids"].inputs, sums["ids"].sampled) == ((None,), 0)


def test_equal_to_an_input(tmp_path: Path) -> None:
    """A result that is one of its inputs, or the base, is named where another input differs."""
    base = random_model(0, SHAPES)
    a, b = near(base, 1, 0.01), near(base, 2, 0.01)

    def equal(name: str, verb: str, inputs: tuple[Memory, ...], **fields: Any) -> int | None:
        operation = lookup(verb)
        assert operation is not None
        based = operation.operand("base") is not None
        roles: dict[str, tuple[Operand, ...]] = {"inputs": inputs}
        made = step(verb, {**roles, "base": (base,)} if based else roles, **fields)
        return gathered(watched(made, tmp_path / name)[0], len(inputs), based).equal_to

    assert equal("tiny", "linear-merge", (a, b), weight=(1.0, 1e-7)) == 0
    assert equal("scale", "task-arithmetic-merge", (a, b), scale=1e-9) == 2
    assert equal("same", "linear-merge", (a, a)) is None
    assert equal("sound", "linear-merge", (a, b)) is None
    assert equal("alone", "ties-merge", (a, b), weight=(1.0, 0.0), density=1.0) is None


def test_a_killed_merge_keeps_its_figures(tmp_path: Path) -> None:
    """What was finished before a kill has its figures after it; a journal that is lost leaves its
    tensors unseen, and a line that was cut off does no harm."""
    base = random_model(0, SHAPES)
    made = step("linear-merge", {"inputs": (near(base, 1), near(base, 2))})
    expected, _ = watched(made, tmp_path / "whole")
    stop = RuntimeError("killed")

    def kill(progress: RegionProgress) -> None:
        if progress.tensors == 3:
            raise stop

    def go_on(folder: Path, **options: Any) -> Watcher:
        writer = ModelWriter(folder, made.tensors, identity="k")
        watcher = Watcher(made, folder / "report.jsonl")
        try:
            run_region([(made, writer)], threads=1, watchers={writer: watcher}, **options)
        finally:
            writer.close()
        return watcher

    for name in ("kept", "lost"):
        with pytest.raises(RuntimeError, match="killed"):
            go_on(tmp_path / name, report=kill)
    with (tmp_path / "kept" / "report.jsonl").open("a") as file:
        file.write('{"name": "model.norm')
    (tmp_path / "lost" / "report.jsonl").unlink()
    assert go_on(tmp_path / "kept").sums == expected
    lost = go_on(tmp_path / "lost").sums
    assert len(lost) == len(SHAPES) - 3
    assert merge_report("x", [Origin("a"), Origin("b")], None, lost.values(), 5).unseen == 3


def test_rows_of_models_with_several_stacks() -> None:
    """Layers of two stacks are not mixed; what stands before and after them has its row."""
    names = ["vision.blocks.1.w", "text.layers.10.w", "text.layers.2.w", "text.layers.2.b",
             "embed_tokens.weight", "head.weight"]  # fmt: skip
    sums = [TensorSums(name, 1, 1, 0, 1.0, 0.0, None, None, (None,)) for name in names]
    rows = merge_report("x", [Origin("a")], None, sums, 6).layers
    assert [(row.label, row.tensors) for row in rows] == [
        ("before", 1), ("text.layers.2", 2), ("text.layers.10", 1), ("vision.blocks.1", 1),
        ("after", 1),
    ]  # fmt: skip


def test_reports_survive_json(tmp_path: Path) -> None:
    """A report that is written and read is the same; anything else is none."""
    base = random_model(0, SHAPES)
    made = step("ties-merge", {"inputs": (near(base, 1), near(base, 2)), "base": (base,)})
    got = gathered(watched(made, tmp_path)[0], 2, based=True)
    import json

    assert read_report(json.loads(json.dumps(got.to_json(), allow_nan=False))) == got
    for other in (None, [], {}, {"schema": "recipelang/merge-report/1"}, {"schema": "x"}):
        assert read_report(other) is None


MERGES = [
    verb
    for verb in verbs()
    if (found := lookup(verb)) and found.kind == "weights" and found.operand("inputs")
]


@pytest.mark.parametrize("verb", MERGES)
def test_every_merge_of_one_family_looks_sound(verb: str, tmp_path: Path) -> None:
    """Each operation that merges can be watched, by blocks or by whole matrices, and merges of
    fine-tunes of one base lie within the bounds that warnings start from."""
    operation = lookup(verb)
    assert operation is not None
    base = random_model(0, WIDE)
    roles: dict[str, tuple[Operand, ...]] = {"inputs": (near(base, 1), near(base, 2))}
    based = operation.operand("base") is not None
    if based:
        roles["base"] = (base,)
    fields = {field.name: 0.001 for field in operation.fields if field.required}
    made = step(verb, roles, **fields)
    sums, _ = watched(made, tmp_path)
    got = gathered(sums, 2, based)
    assert sums.keys() == made.tensors.keys()
    assert got.nonfinite == ()
    for row in got.layers:
        assert row.norm_ratio == pytest.approx(1, abs=0.1)
        assert max(i.cosine or 0 for i in row.inputs) > 0.95
    assert (got.whole.change_ratio or 0) < 5


def test_names_follow_content_ids() -> None:
    """A stored report shows what the recipe calls its inputs now."""
    sums = [TensorSums("w", 1, 1, 0, 1.0, 0.0, None, None, (None, None))]
    old = merge_report("x", [Origin("a", "1f"), Origin("b", "2f")], Origin("o", "3f"), sums, 1)
    assert [o.name for o in old.renamed({"2f": "chat", "3f": "base"}).origins] == [
        "a", "chat", "base",
    ]  # fmt: skip


def test_infinities_of_a_mask_are_meant(tmp_path: Path) -> None:
    """GPT-NeoX in f16 stores its mask's value as an infinity; that is no sign of garbage."""
    mask = "model.layers.0.attention.masked_bias"
    base = random_model(1, SHAPES)
    models = tuple(
        Memory({**near(base, seed).arrays, mask: np.array([-np.inf], np.float16)}, base.config)
        for seed in (2, 3)
    )
    sums, arrays = watched(step("linear-merge", {"inputs": models}), tmp_path)
    assert arrays[mask].tolist() == [-np.inf]
    assert sums[mask].nonfinite == 0
