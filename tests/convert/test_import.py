"""`recipe import`: every configuration in `cases/` gives exactly the recipe beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipelang.checking import check_text
from recipelang.convert.mergekit import Paths, import_yaml
from recipelang.convert.mergekit.methods import METHODS
from recipelang.diagnostics import Sink, Source
from recipelang.language.format import format_source
from recipelang.language.tokens import lex
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import REQUIRED, Range
from recipelang.types import ModelType, TensorInfo

CASES = sorted((Path(__file__).parent / "cases").glob("*.yml"))
MERGES = {method.verb for method in METHODS.values()} - {"stack"}
VERBS = MERGES | {"stack", "cast", "apply", "layers"}
ON_DISK = {"references"}
"""Cases that name folders, which are not there."""


def imported(
    text: str, *, exact: bool = False, publish_to: str = "", names: tuple[str, ...] = ()
) -> tuple[str | None, Sink]:
    """The recipe of a configuration, and what was said. All models have the tensors ``names``, if
    they are known."""
    sink = Sink()
    paths = Paths("/work", "/work", exists=lambda path: False)
    source = Source("merge.yml", text)
    model = ModelType(None, {name: TensorInfo("F32", (1,)) for name in names})
    recipe = import_yaml(
        source, sink, paths, publish_to=publish_to, exact=exact,
        known=lambda uri, revision: model if names else None,
    )  # fmt: skip
    return recipe, sink


def missing(recipe: str) -> set[str]:
    """The verbs and the shared fields in a recipe that do not exist."""
    words = {token.text for token in lex(recipe)}
    absent = words & VERBS - set(verbs())
    for verb in words & MERGES - absent:
        operation = lookup(verb)
        assert operation is not None
        fields = words & {"vocabulary", "rescale"}
        absent |= {f"{verb} {{ {name} }}" for name in fields if operation.field(name) is None}
    return absent


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_recipe(case: Path) -> None:
    """The text is the expected one, and in the one style."""
    sink = Sink()
    paths = Paths("/work", "/work", exists=lambda path: False)
    text = import_yaml(Source(case.name, case.read_text("utf-8")), sink, paths)
    expected = case.with_suffix(".recipe").read_text("utf-8")
    assert text == expected
    assert format_source(Source("a.recipe", expected)) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_recipe_is_sound(case: Path, tmp_path: Path) -> None:
    """`recipe check` finds nothing wrong with it."""
    text = case.with_suffix(".recipe").read_text("utf-8")
    if absent := missing(text):
        pytest.skip(f"without {', '.join(sorted(absent))}")
    faults = [d for d in check_text(text, folder=str(tmp_path)).sink if d.severity == "error"]
    allowed = {"E0720"} if case.stem in ON_DISK else set[str]()
    assert [d.message for d in faults if d.code not in allowed] == []


def test_every_method_has_a_case() -> None:
    """No method goes untried."""
    texts = [case.read_text("utf-8") for case in CASES]
    untried = [m for m in METHODS if not any(f"merge_method: {m}\n" in text for text in texts)]
    assert untried == []


@pytest.mark.parametrize("name", METHODS)
def test_fields_are_those_of_the_verb(name: str) -> None:
    """The table has the verb's fields as the verb declares them: whose, whether they vary, their
    units, ranges and defaults."""
    method = METHODS[name]
    if method.verb not in verbs():
        pytest.skip(f"without {method.verb}")
    operation = lookup(method.verb)
    assert operation is not None
    for parameter in (p for p in method.parameters if p.field):
        field = operation.field(parameter.field)
        assert field is not None, parameter.field
        declared = (
            field.per_input, field.per_tensor, field.block, "fraction" in field.units,
            field.range or Range(), None if field.default is REQUIRED else field.default,
        )  # fmt: skip
        in_block = parameter.in_block or not parameter.per_input
        share = parameter.kind == "fraction"
        told = (
            parameter.per_input, parameter.varies, in_block, share, parameter.range, parameter.ours
        )  # fmt: skip
        assert declared == told, parameter.field
    assert not method.differs or operation.field("compat") is not None


def test_every_verb_is_there() -> None:
    """What an import may write exists, with the fields that all merges share."""
    assert sorted(VERBS - set(verbs())) == []
    for verb in MERGES:
        operation = lookup(verb)
        assert operation is not None
        assert {"vocabulary", "dtype"} <= {field.name for field in operation.fields}, verb


# ---------------------------------------------------------------- options


TIES = """\
merge_method: ties
base_model: acme/base
models:
  - {model: acme/a, parameters: {weight: 1, density: 0.5}}
  - {model: acme/b, parameters: {weight: 1, density: 0.5}}
"""


def test_definitions_that_differ_are_named_once() -> None:
    """By default the recipe has recipelang's definitions, and one note says which those are."""
    text, sink = imported(TIES)
    assert text is not None
    assert "compat" not in text
    (note,) = sink
    assert (note.code, note.severity) == ("W0741", "note")
    assert note.notes[0].startswith("ties-merge: of equal magnitudes")
    assert "--exact" in note.help


def test_what_is_not_merged_has_no_other_definition() -> None:
    """An adapter is baked into its base by a merge of nothing else."""
    text, sink = imported(
        "merge_method: task_arithmetic\nbase_model: a/b+a/lora\n"
        "models: [{model: a/b+a/lora}]\ndtype: bfloat16\n"
    )
    assert text is not None
    assert text.splitlines()[-1] == "merged = cast b_lora { dtype = bf16 }"
    assert list(sink) == []


def test_exact_keeps_the_definitions_of_mergekit() -> None:
    """With ``exact`` they are mergekit's, and there is nothing to say."""
    text, sink = imported(TIES, exact=True)
    assert text is not None
    assert text.endswith("merged = ties-merge a with b from base { compat = mergekit }\n")
    assert list(sink) == []


def test_exact_has_nothing_to_write_where_nothing_differs() -> None:
    """`linear` is the same in both."""
    text, _ = imported("merge_method: linear\nmodels: [{model: a/b, parameters: {weight: 1}}]\n")
    other, _ = imported(
        "merge_method: linear\nmodels: [{model: a/b, parameters: {weight: 1}}]\n", exact=True
    )
    assert text == other


def test_a_switch_without_effect_is_left_out() -> None:
    """Columns of a flattened tensor, which a recipe refuses."""
    nuslerp = TIES.replace("ties", "nuslerp").replace(", density: 0.5", "")
    nuslerp = nuslerp.replace("base_model: acme/base\n", "")
    text, _ = imported(nuslerp + "parameters: {nuslerp_row_wise: true}\n")
    assert text is not None
    assert text.splitlines()[-1] == "merged = nuslerp-merge a with b"
    rows = "parameters: {nuslerp_row_wise: true, nuslerp_flatten: [{filter: mlp, value: false}]}\n"
    text, _ = imported(nuslerp + rows)
    assert text is not None
    assert "row_wise = true" in text


@pytest.mark.parametrize(("share", "copy"), [("1", "a"), ("0.5", "base")])
def test_sce_of_one_model_is_a_copy(share: str, copy: str) -> None:
    """Which mergekit gives: the model, or the base where it is to select."""
    recipe, _ = imported(
        "merge_method: sce\nbase_model: acme/base\nmodels: [{model: acme/a}]\n"
        f"parameters: {{select_topk: {share}}}\ndtype: float16\n"
    )
    assert recipe is not None
    assert recipe.splitlines()[-1] == f"merged = cast {copy} {{ dtype = f16 }}"


def test_parameters_of_other_methods_are_left_out() -> None:
    """The merge is the one that mergekit makes, and one warning shows every place."""
    stock = TIES.replace("ties", "model_stock").replace(", density: 0.5", "")
    text, sink = imported(stock)
    assert text is not None
    assert text.splitlines()[-1] == "merged = model-stock-merge a with b from base"
    (warning,) = [d for d in sink if d.severity == "warning"]
    assert warning.code == "W0740"
    assert "no parameter `weight`, and mergekit ignores it" in warning.message
    assert warning.help == "it takes `filter_wise`"
    assert [label.text for label in warning.secondary] == ["and here"]


def test_keys_without_effect_are_left_out() -> None:
    """Below `parameters:`, where `embed_slerp` meant something until 2024, and beside it."""
    text, sink = imported(
        "merge_method: slerp\nbase_model: a/b\nmodels: [{model: a/c}]\nrandom_seed: 0\n"
        "int8_mask: true\nparameters: {t: 0.5, embed_slerp: true, int8_mask: true}\n"
    )
    assert text is not None
    assert [d.message for d in sink if d.code == "W0740"] == [
        f"`{key}` changes nothing in mergekit; it is left out"
        for key in ("random_seed", "int8_mask", "embed_slerp")
    ]


def test_a_slice_may_repeat_the_method() -> None:
    """mergekit reads none there; another one is an error."""
    text, sink = imported(
        "merge_method: passthrough\nslices:\n- merge_method: passthrough\n"
        "  sources: [{model: a/b, layer_range: [0, 4]}]\n"
    )
    assert text is not None
    assert list(sink) == []


def test_lower_bounds_are_left_out() -> None:
    """Whoever asks for a smaller error than mergekit's default gets one."""
    mean = "merge_method: karcher\nmodels: [{model: a/b}, {model: a/c}]\n"
    text, sink = imported(mean + "parameters: {tol: 1e-9, max_iter: 2000}\n")
    assert text is not None
    assert "iterations = 2000" in text
    assert [d.message for d in sink if d.code == "W0740"] == [
        "a recipe has no `tol`: its steps end below mergekit's default"
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("no", False), ("1.0", True), ("0.0", False), ("0", False), ("'on'", True), ("F", False)],
)
def test_truth_values(written: str, meant: bool) -> None:
    """mergekit takes numbers for truth values, and writes them so itself."""
    text, _ = imported(TIES + f"parameters: {{normalize: {written}}}\n")
    assert text is not None
    assert ("normalize = false" in text) == (not meant)


def test_publish() -> None:
    """The last merge is published."""
    text, _ = imported(TIES, publish_to='out/"mine"')
    assert text is not None
    assert text.endswith('\n\npublish merged to "out/\\"mine\\""\n')


def deep(layers: int) -> ModelType:
    """A model of which only the depth is known."""
    return ModelType({"num_hidden_layers": layers})


def test_whole_models_are_written_where_their_depth_is_known() -> None:
    """One slice of all layers is a merge of models; of some layers it is not."""
    whole = """\
merge_method: slerp
base_model: acme/a
slices:
  - sources:
      - {model: acme/a, layer_range: [0, 4]}
      - {model: acme/b, layer_range: [0, 4]}
parameters: {t: [0, 1]}
"""
    paths = Paths("/work", "/work", exists=lambda path: False)
    text = import_yaml(Source("m.yml", whole), Sink(), paths, known=lambda uri, revision: deep(4))
    assert text is not None
    assert text.splitlines()[-1] == (
        'merged = slerp-merge a with b { t = per { "*.layers.*" = gradient(0, 1), "*" = 0 } }'
    )
    part = import_yaml(Source("m.yml", whole), Sink(), paths, known=lambda uri, revision: deep(8))
    assert part is not None
    assert part.endswith("    -> stack\n")


def test_filters_of_a_wider_scope_that_have_no_tensor_left_are_left_out() -> None:
    """Which mergekit never reaches, and which nobody wrote to stand behind those of the model."""
    text = """\
merge_method: linear
models:
  - {model: acme/a, parameters: {weight: [{filter: model.layers, value: 1}]}}
  - {model: acme/b, parameters: {weight: 2}}
parameters: {weight: [{filter: layers, value: 3}, {filter: norm, value: 4}, {value: 5}]}
"""
    names = ("model.layers.0.mlp.weight", "model.norm.weight", "lm_head.weight")
    for known, row in ((names, ""), ((), '"*layers*" = 3 ')):
        recipe, _ = imported(text, names=known)
        assert recipe is not None
        rows = f'{{ "*model.layers*" = 1 {row}"*norm*" = 4 "*" = 5 }}'
        assert rows in " ".join(recipe.replace(",", " ").split())


def test_paths_are_relative_to_the_recipe() -> None:
    """A folder that is there is none of the hub; a revision is."""
    text = """\
merge_method: linear
models:
  - {model: org/local, parameters: {weight: 1}}
  - {model: org/local@v1, parameters: {weight: 1}}
  - {model: ./x, parameters: {weight: 1}}
  - {model: /models/y, parameters: {weight: 1}}
"""
    paths = Paths("/here", "/here/recipes", exists=lambda path: path == "/here/org/local")
    found = import_yaml(Source("m.yml", text), Sink(), paths)
    assert found is not None
    assert [line.partition(" = ")[2] for line in found.splitlines()[3:7]] == [
        'model "../org/local"',
        'model "hf:org/local" at "v1"',
        'model "../x"',
        'model "/models/y"',
    ]


def test_paths_of_windows_are_told() -> None:
    """They are kept, for nobody knows where the folder is here."""
    text, sink = imported(
        "merge_method: karcher\nmodels: [{model: 'D:\\my models\\a'}, {model: a/b}]\n"
    )
    assert text is not None
    (note,) = [d for d in sink if d.code == "W0740"]
    assert note.message == "`D:\\my models\\a` is a path of Windows: write the one of this machine"


def test_keys_may_hold_values_for_aliases() -> None:
    """A key that mergekit drops is fine where aliases take its value, unless it is misspelt."""
    text, sink = imported(
        "shared: &shared {weight: 0.5, density: 0.4}\n" + TIES.replace(
            "{weight: 1, density: 0.5}", "{<<: *shared}"
        )
    )  # fmt: skip
    assert text is not None
    assert "a(weight = 0.5) with b(weight = 0.5)" in text
    assert [d.code for d in sink] == ["W0741"]


def test_tokenizer_source_of_old() -> None:
    """Until 2024 a model had a prefix there."""
    models = (
        "models: [{model: a/b, parameters: {weight: 1}}, {model: a/c, parameters: {weight: 2}}]"
    )
    text, _ = imported(f"merge_method: linear\ntokenizer_source: model:a/c\n{models}\n")
    assert text is not None
    assert "linear-merge c(weight = 2) with b(weight = 1) { vocabulary = of-subject }" in text


def test_empty_documents() -> None:
    """A file that ends with `---` is one configuration."""
    text, _ = imported("---\n" + TIES + "---\n---\n")
    other, _ = imported(TIES)
    assert text == other


def test_example_of_the_documentation() -> None:
    """The page shows what the import gives."""
    page = (Path(__file__).parents[2] / "docs" / "from-mergekit.md").read_text("utf-8")
    blocks = dict(re.findall(r"^```(yaml|recipe)\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    assert imported(blocks["yaml"])[0] == blocks["recipe"]
