"""Every method, parameter and structure against what mergekit 0.1.5 gave for it (float32).

The cases are in cases/*.toml: a configuration of mergekit's beside the recipe that means the same.
Its outputs are in fixtures/; benchmarks/mergekit/README.md tells how they were made.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.conformance import conformance, definitions, differences
from benchmarks.mergekit.cases import Case, load_cases
from benchmarks.mergekit.compare import ROUNDING, Bench, Fixtures, available_cases
from benchmarks.mergekit.masks import (
    Masks,
    expected,
    kept_entries,
    recorded_entries,
    task_vectors,
)
from benchmarks.pages import replaced
from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.weights.region import Step
from recipelang.weights.varying import resolve

CASES = available_cases()
NUMBER = re.compile(r"\d+e[-+]\d+|(?<=\| )0(?= )")
DARE = ("dare-merge", "dare-ties-merge")
DEFINITIONS = tomllib.loads(
    (Path(__file__).parents[2] / "benchmarks/mergekit/definitions.toml").read_text("utf-8")
)


def parametrised(cases: list[Case]) -> pytest.MarkDecorator:
    """One test a case."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The tiny models, on disk."""
    return Bench.open(tmp_path_factory.mktemp("models"))


@parametrised([case for case in CASES if case.recipe and not case.masks])
def test_a_recipe_gives_what_mergekit_gives(case: Case, bench: Bench) -> None:
    """To a few roundings, with the number of layers that mergekit's configuration says."""
    result = bench.result(case.recipe, compat=case.compat)
    assert bench.difference(case, result.tensors) <= ROUNDING
    assert result.step.config["num_hidden_layers"] == bench.fixtures.layers(case)


@parametrised([case for case in CASES if case.recipe and not case.masks and not case.compat])
def test_compat_changes_nothing_where_definitions_agree(case: Case, bench: Bench) -> None:
    """`compat = mergekit` is for the named differences only."""
    fields = [lookup(verb).field("compat") for verb in case.verbs]  # type: ignore[union-attr]
    if any(fields):
        result = bench.result(case.recipe, compat=True)
        assert bench.difference(case, result.tensors) <= ROUNDING


@parametrised([case for case in CASES if case.differs and not case.refused and not case.masks])
def test_a_difference_is_one_that_has_a_name(case: Case, bench: Bench) -> None:
    """What one would write differs by more than rounding, and by a definition."""
    assert set(case.differs) <= set(DEFINITIONS)
    difference = bench.difference(case, bench.result(case.plain or case.recipe).tensors)
    assert difference > ROUNDING
    assert np.isfinite(difference) or case.differs == ("rows of padding",)
    if case.compat:
        assert all(DEFINITIONS[name].get("compat") for name in case.differs)


@parametrised([case for case in CASES if case.refused])
def test_what_mergekit_accepts_and_should_not_is_refused(case: Case, bench: Bench) -> None:
    """Before weights are read, by an error of its own."""
    assert set(case.differs) <= set(DEFINITIONS)
    with pytest.raises(RecipeError, match=case.refused):
        bench.result(case.plain)


@parametrised([case for case in CASES if case.masks])
def test_random_masks_mean_what_they_mean_in_mergekit(case: Case, bench: Bench) -> None:
    """Given its masks, mergekit's result and recipelang's are one formula's."""
    step = bench.step(case.recipe)
    theirs = expected(step, recorded_entries(bench, case, step))
    assert bench.difference(case, theirs) <= ROUNDING
    ours = expected(step, kept_entries(bench, step))
    assert bench.distance(bench.run(step).tensors, ours) <= ROUNDING


@parametrised([case for case in CASES if case.masks and case.differs])
def test_a_difference_in_what_masks_mean_has_a_name(case: Case, bench: Bench) -> None:
    """What one would write differs by more than rounding for the same masks."""
    assert set(case.differs) <= set(DEFINITIONS)
    step, plain = bench.step(case.recipe), bench.step(case.plain)
    same = expected(step, kept_entries(bench, plain))
    assert bench.distance(bench.run(plain).tensors, same) > ROUNDING


@parametrised(
    [case for case in CASES if case.probabilities or (case.masks and case.verbs[0] in DARE)]
)
def test_masks_keep_what_mergekit_keeps(case: Case, bench: Bench) -> None:
    """Entries are kept as often as mergekit's probabilities say, and its own are too (4.5 standard
    deviations, of the number kept and of its slope over the probabilities)."""
    step = bench.step(case.recipe)
    chances = probabilities(bench, case, step)
    for masks in (kept_entries(bench, step), recorded_entries(bench, case, step)):
        kept, p = changed_entries(step, masks, chances)
        noise = p * (1 - p)
        assert abs((kept - p).sum()) <= 4.5 * np.sqrt(noise.sum())
        lever = p - p.mean()
        assert abs(((kept - p) * lever).sum()) <= 4.5 * np.sqrt((noise * lever**2).sum())


def probabilities(bench: Bench, case: Case, step: Step) -> list[dict[str, Any]]:
    """For each input: tensor -> the probability that each entry is kept: recorded for a della, the
    density for dare."""
    base, vectors = task_vectors(step)
    names = bench.fixtures.names(case)
    if case.probabilities:
        rows = bench.fixtures.masks[case.name + "/probability"]
        ends = np.cumsum([base[name].size for name in names])[:-1]
        return [dict(zip(names, np.split(row, ends), strict=True)) for row in rows]
    shares = {
        n: resolve(step.fields["density"], n, stacks=step.stacks, default=None) for n in names
    }
    return [
        {n: np.full(base[n].size, shares[n][i]) for n in names}  # type: ignore[index]
        for i in range(len(vectors))
    ]


def changed_entries(step: Step, masks: Masks, chances: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Of the entries that their input changes: whether they were kept, and their probability."""
    _, vectors = task_vectors(step)
    kept, p = [], []
    for vector, mask, chance in zip(vectors, masks, chances, strict=True):
        for name, values in vector.items():
            changed = values.reshape(-1) != 0
            kept.append(mask[name].reshape(-1)[changed])
            p.append(chance[name][changed])
    return np.concatenate(kept).astype(np.float64), np.concatenate(p).astype(np.float64)


def test_what_is_said_of_mergekit_is_so() -> None:
    """Weights that cancel give infinities and NaN, opposite tensors one hundreds of times too
    large."""
    outputs = Fixtures.load().outputs
    assert np.isinf(outputs["linear-cancelling"]).any()
    assert np.isnan(outputs["linear-cancelling"]).any()
    assert np.abs(outputs["nuslerp-opposite"]).max() > 100


def test_tables_say_what_was_measured(bench: Bench) -> None:
    """A bit-equal case, one that is refused, and a page's markers."""
    cases = {case.name: case for case in load_cases()}
    assert differences(bench, cases["slerp-start"]) == ("0", "")
    assert differences(bench, cases["linear-cancelling"]) == ("none", "error E0541")
    assert differences(bench, cases["linear-gradient"])[1] == "2e-01"
    assert definitions().count("\n") == len(DEFINITIONS) + 1
    page = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n"
    assert replaced(page, "t", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="no lines `<!-- u -->`"):
        replaced(page, "u", "new")


def test_the_page_s_tables_are_in_step(bench: Bench) -> None:
    """They are what the fixtures give now; rounding may be another processor's."""
    page = (Path(__file__).parents[2] / "docs" / "merging.md").read_text("utf-8")
    assert replaced(page, "definitions", definitions()) == page
    written = page.partition("<!-- conformance -->")[2].partition("<!-- /conformance -->")[0]
    rows, now = written.strip().splitlines(), conformance(bench).splitlines()
    assert [NUMBER.sub("n", row) for row in rows] == [NUMBER.sub("n", row) for row in now]
    for row, again in zip(rows, now, strict=True):
        for old, new in zip(NUMBER.findall(row), NUMBER.findall(again), strict=True):
            if max(float(old), float(new)) > ROUNDING:
                assert float(old) / 4 <= float(new) <= 4 * float(old)


def test_every_definition_has_a_case() -> None:
    """A difference that is claimed is shown."""
    assert set(DEFINITIONS) == {name for case in load_cases() for name in case.differs}


def test_every_method_of_mergekit_has_cases() -> None:
    """All twenty of its names."""
    assert {case.method for case in load_cases()} == {
        "linear", "slerp", "nuslerp", "multislerp", "karcher", "passthrough", "task_arithmetic",
        "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della",
        "della_linear", "sce", "model_stock", "nearswap", "arcee_fusion", "ram", "ramplus_tl",
    }  # fmt: skip


def test_outputs_are_of_these_configurations() -> None:
    """A case that changed was recorded again."""
    recorded = Fixtures.load().record["cases"]
    assert {case.name: case.digest for case in load_cases()} == {
        name: entry["digest"] for name, entry in recorded.items()
    }


def test_every_verb_exists() -> None:
    """No case is left out."""
    verbs = {verb for case in load_cases() for verb in case.verbs}
    assert sorted(verb for verb in verbs if lookup(verb) is None) == []
