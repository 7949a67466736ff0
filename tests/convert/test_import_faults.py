"""One fault of a configuration a test: its code, its place, its words.

The mark ``^`` in a configuration is the first character of the place that must be told.
"""

from __future__ import annotations

import pytest

from recipelang.diagnostics import Diagnostic
from tests.convert.test_import import imported

TWO = """\
models:
  - {model: acme/a, parameters: {weight: 1}}
  - {model: acme/b, parameters: {weight: 1}}
"""


def refused(text: str) -> tuple[Diagnostic, ...]:
    """The errors of a configuration, after checking that the first one stands at the mark."""
    mark = text.find("^")
    recipe, sink = imported(text.replace("^", "", 1))
    assert recipe is None
    errors = tuple(d for d in sink if d.severity == "error")
    assert errors
    if mark >= 0:
        assert errors[0].primary is not None
        assert errors[0].primary.span.start == mark, errors[0]
    return errors


FAULTS = {
    "no mapping": ("- a\n", "E0745", "a mapping"),
    "nothing": ("# only a comment\n", "E0745", "holds no configuration"),
    "key": ("merge_method: linear\n^base-model: acme/a\n" + TWO, "E0741", "`base_model`?"),
    "misspelt key with an anchor": (
        "merge_method: linear\nmodels:\n  - {model: a/b, ^paramters: &p {weight: 1}}\n"
        "  - {model: a/c, parameters: *p}\n",
        "E0741",
        "`parameters`?",
    ),
    "key elsewhere": (
        "merge_method: linear\nmodels:\n  - {model: acme/a, ^layer_range: [0, 2]}\n",
        "E0741",
        "a source of a slice",
    ),
    "parameter as a key": (
        "merge_method: linear\nmodels:\n  - {model: acme/a, ^weight: 0.5}\n",
        "E0741",
        "below `parameters:`",
    ),
    "key of a filter": (
        "merge_method: slerp\nbase_model: acme/a\n" + TWO.replace(", parameters: {weight: 1}", "")
        + "parameters: {t: [{^filtr: mlp, value: 1}]}\n",
        "E0741",
        "`filter`?",
    ),
    "key of the tokenizer": (
        "merge_method: linear\ntokenizer: {^sorce: union}\n" + TWO,
        "E0741",
        "`source`?",
    ),
    "gradient of a switch": (
        "merge_method: model_stock\nbase_model: acme/c\nmodels: [{model: a/b}, {model: a/c}]\n"
        "parameters: {^filter_wise: [true, false]}\n",
        "E0746",
        "a gradient is of numbers",
    ),
    "a mixture of experts": (
        "base_model: a/b\n^gate_mode: hidden\nexperts: []\nshared_experts: []\n",
        "E0746",
        "mergekit-moe",
    ),
    "a search": ("^genome: {}\ntasks: []\n", "E0746", "best_config.yaml"),
    "an old format": ("^layer_slices: []\n", "E0746", "passthrough"),
    "revision of its own": (
        "merge_method: karcher\nmodels:\n  - {model: a/b, ^revision: v1}\n",
        "E0741",
        "org/name@revision",
    ),
    "key of the whole": (
        "merge_method: karcher\nmodels:\n  - {model: a/b, ^dtype: float16}\n",
        "E0741",
        "the top of the configuration",
    ),
    "no method": ("^dtype: float16\n" + TWO, "E0745", "no `merge_method`"),
    "method": ("merge_method: ^dare-ties\n" + TWO, "E0742", "`dare_ties`?"),
    "misspelt parameter": (
        "merge_method: linear\nmodels:\n  - {model: a/b, parameters: {^wieght: 1}}\n",
        "E0743",
        "`weight`?",
    ),
    "key of the whole as a parameter": (
        "merge_method: linear\nparameters: {weight: 1, ^dtype: float16}\n" + TWO,
        "E0743",
        "at the top of the configuration",
    ),
    "parameter of the whole": (
        "merge_method: linear\nmodels:\n"
        "  - {model: a/b, parameters: {weight: 1, ^normalize: true}}\n",
        "E0743",
        "belongs to the whole merge",
    ),
    "a text for a number": (
        "merge_method: linear\nmodels:\n  - {model: a/b, parameters: {weight: ^half}}\n",
        "E0744",
        "is a number, found `half`",
    ),
    "octal": (
        "merge_method: linear\nmodels:\n  - {model: a/b, parameters: {weight: ^010}}\n",
        "E0744",
        "is a number, found `010`",
    ),
    "a number for a switch": (
        "merge_method: linear\nparameters: {normalize: ^2}\n" + TWO,
        "E0744",
        "`true` or `false`",
    ),
    "beyond the range": (
        "merge_method: ties\nbase_model: acme/c\nparameters: {density: ^1.5}\n" + TWO,
        "E0744",
        "lies in (0, 1]",
    ),
    "a half iteration": (
        "merge_method: karcher\nparameters: {max_iter: ^2.5}\nmodels: [{model: a/b}]\n",
        "E0744",
        "a whole number",
    ),
    "an empty gradient": (
        "merge_method: linear\nparameters: {weight: ^[]}\nmodels: [{model: a/b}]\n",
        "E0744",
        "an empty list",
    ),
    "a pattern for a filter": (
        "merge_method: linear\nparameters:\n  weight: [{filter: ^'*mlp*', value: 1}, {value: 2}]\n"
        "models: [{model: a/b}]\n",
        "E0744",
        "write `mlp`",
    ),
    "an entry that is never reached": (
        "merge_method: linear\nparameters:\n  weight: [{value: 1}, ^{filter: mlp, value: 2}]\n"
        "models: [{model: a/b}]\n",
        "E0744",
        "never reached",
    ),
    "plain values beside filters": (
        "merge_method: linear\nparameters:\n  weight: [{filter: mlp, value: 1}, ^2]\n"
        "models: [{model: a/b}]\n",
        "E0744",
        "mixes plain values",
    ),
    "a filter without a value": (
        "merge_method: linear\nparameters:\n  weight: [^{filter: mlp}, {value: 1}]\n"
        "models: [{model: a/b}]\n",
        "E0745",
        "no `value`",
    ),
    "no value for the rest": (
        "merge_method: linear\nparameters:\n  weight: [^{filter: mlp, value: 1}]\n"
        "models: [{model: a/b}, {model: a/c}]\n",
        "E0745",
        "an entry without `filter`",
    ),
    "no weight": ("merge_method: linear\nmodels:\n  - {^model: a/b}\n", "E0745", "has no value"),
    "no weight of an appended base": (
        "merge_method: linear\nbase_model: ^acme/c\n" + TWO,
        "E0745",
        "`weight` of `acme/c` has no value",
    ),
    "two outputs": (
        "merge_method: linear\n" + TWO + "^slices: []\n",
        "E0745",
        "one of `models`, `slices` and `modules`, found 2",
    ),
    "no output": ("^merge_method: linear\n", "E0745", "found none"),
    "a text for a model": (
        "merge_method: linear\nmodels: [^acme/a]\n",
        "E0744",
        "write `- model: acme/a`",
    ),
    "no models": ("merge_method: linear\nmodels: ^[]\n", "E0744", "one entry or more"),
    "no base": ("merge_method: ties\n^" + TWO, "E0745", "needs a `base_model`"),
    "three for a pair": (
        "merge_method: slerp\nbase_model: acme/c\nparameters: {t: 1}\n^"
        + TWO.replace(", parameters: {weight: 1}", ""),
        "E0745",
        "takes one model besides its base, found 2",
    ),
    "two for one": (
        "merge_method: passthrough\nbase_model: acme/c\n^models:\n  - model: acme/a\n",
        "E0745",
        "takes one model, found 2",
    ),
    "too few": (
        "merge_method: model_stock\nbase_model: acme/c\n^models:\n  - model: acme/a\n",
        "E0745",
        "2 models or more besides its base, found 1",
    ),
    "twice the same": (
        "merge_method: karcher\nmodels:\n  - model: acme/a\n  - ^model: acme/a\n",
        "E0745",
        "merged with itself",
    ),
    "revision of a folder": (
        "merge_method: karcher\nmodels:\n  - model: ^./a@main\n",
        "E0744",
        "a repository of the hub",
    ),
    "two adapters": ("merge_method: karcher\nmodels:\n  - model: ^a+b+c\n", "E0744", "one at most"),
    "no adapter": ("merge_method: karcher\nmodels:\n  - model: ^a/b+\n", "E0744", "base+adapter"),
    "an address": (
        "merge_method: karcher\nmodels:\n  - model: ^https://huggingface.co/a/b\n",
        "E0744",
        "write `a/b`",
    ),
    "path of a model": (
        "merge_method: karcher\nmodels:\n  - model: {^path: a}\n",
        "E0741",
        "org/name@revision",
    ),
    "two revisions": ("merge_method: karcher\nmodels:\n  - model: ^a@b@c\n", "E0744", "one `@`"),
    "key of a model": (
        "merge_method: karcher\nmodels:\n  - model: {^modle: a}\n",
        "E0741",
        "`model`?",
    ),
    "architecture": (
        "merge_method: karcher\nmodels:\n  - model: {model: a/b, ^override_architecture: X}\n",
        "E0746",
        "no `override_architecture`",
    ),
    "dtype of recipes": ("merge_method: linear\ndtype: ^bf16\n" + TWO, "E0744", "`bfloat16`"),
    "dtype": ("merge_method: linear\ndtype: ^bfloat\n" + TWO, "E0744", "did you mean"),
    "integers": ("merge_method: linear\ndtype: ^int64\n" + TWO, "E0746", "floating point"),
    "template": ("merge_method: linear\n^chat_template: chatml\n" + TWO, "E0746", "chat template"),
    "tokens": (
        "merge_method: linear\ntokenizer: {source: union, ^tokens: {a: {source: acme/a}}}\n" + TWO,
        "E0746",
        "no `tokens`",
    ),
    "padding": (
        "merge_method: linear\ntokenizer: {source: union, ^pad_to_multiple_of: 8}\n" + TWO,
        "E0746",
        "no `pad_to_multiple_of`",
    ),
    "two tokenizers": (
        "merge_method: linear\ntokenizer_source: union\ntokenizer: ^{source: union}\n" + TWO,
        "E0745",
        "exclude each other",
    ),
    "tokenizer of another model": (
        "merge_method: linear\ntokenizer_source: ^acme/z\n" + TWO,
        "E0746",
        "no input of this merge",
    ),
    "tokenizer of no base": (
        "merge_method: linear\ntokenizer_source: ^base\n" + TWO,
        "E0745",
        "needs a `base_model`",
    ),
    "tokenizer of the second of a pair": (
        "merge_method: arcee_fusion\nbase_model: acme/b\nmodels: [{model: acme/a}]\n"
        "tokenizer_source: ^acme/a\n",
        "E0746",
        "vocabulary of its first model",
    ),
    "filtered switch": (
        "merge_method: linear\nparameters:\n  ^normalize: [{filter: mlp, value: true}, "
        "{value: false}]\n" + TWO,
        "E0746",
        "one value for the whole merge",
    ),
    "absolute bound": (
        "merge_method: karcher\nparameters: {^tol: 0.1}\nmodels: [{model: a/b}, {model: a/c}]\n",
        "E0746",
        "steps end below",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    """The one error of the configuration, at its mark."""
    text, code, words = FAULTS[name]
    (error,) = refused(text)
    assert error.code == code
    assert words in f"{error.message} {error.help}"


SLICES = {
    "no range": ("- sources:\n  - ^{model: a/b}\n", "E0745", "needs a `layer_range`"),
    "one number": ("- sources:\n  - {model: a/b, layer_range: ^16}\n", "E0744", "[0, 16]"),
    "backwards": ("- sources:\n  - {model: a/b, layer_range: ^[4, 2]}\n", "E0745", "no layer"),
    "key": ("- ^source: []\n", "E0741", "`sources`?"),
    "method": (
        "- {sources: [{model: a/b, layer_range: [0, 2]}], ^merge_method: slerp}\n",
        "E0741",
        "one method",
    ),
    "no model": ("- sources:\n  - ^{layer_range: [0, 2]}\n", "E0745", "needs a `model`"),
    "numbered filter": (
        "- sources:\n  - model: a/b\n    layer_range: [0, 2]\n    parameters:\n"
        "      scale: [^{filter: layers.1., value: 0}, {value: 1}]\n",
        "E0746",
        "slices number theirs anew",
    ),
    "gradient": (
        "- sources:\n  - model: a/b\n    layer_range: [0, 2]\n    parameters: {scale: ^[0, 1]}\n"
        "- sources:\n  - {model: a/b, layer_range: [0, 2]}\n",
        "E0746",
        "a gradient over the layers of one slice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLICES)
def test_fault_of_a_slice(name: str) -> None:
    """Faults below `slices:`."""
    text, code, words = SLICES[name]
    error = refused(f"merge_method: passthrough\nslices:\n{text}")[0]
    assert error.code == code
    assert words in f"{error.message} {error.help}"


def test_sources_of_different_lengths() -> None:
    """The second source is told, and the first shown."""
    (error,) = refused(
        "merge_method: linear\nparameters: {weight: 1}\nslices:\n- sources:\n"
        "  - {model: a/b, layer_range: [0, 4]}\n  - {^model: a/c, layer_range: [0, 5]}\n"
    )
    assert "equally many layers, found 5" in error.message
    assert error.secondary[0].text == "4 layers"


def test_base_outside_its_slice() -> None:
    """mergekit adds a base to `models:`, not to `sources:`."""
    (error,) = refused(
        "merge_method: ties\nbase_model: a/base\nparameters: {weight: 1}\nslices:\n- ^sources:\n"
        "  - {model: a/b, layer_range: [0, 4]}\n"
    )
    assert "the base `a/base` is not among the sources" in error.message


MODULES = {
    "name": ("  ^text-decoder: {}\n", "E0741", "`text_decoder`?"),
    "slices": ("  vision_tower:\n    ^slices: []\n", "E0746", "layers of whole models"),
    "no models": ("  ^vision_tower: {parameters: {t: 1}}\n", "E0745", "no `models`"),
    "both": (
        "  ^default: {models: [{model: a/a}], slices: [{sources: []}]}\n",
        "E0745",
        "both `models` and `slices`",
    ),
    "the only one beside another": (
        "  ^default: {models: [{model: a/a}]}\n  encoder: {models: [{model: a/a}]}\n",
        "E0745",
        "have one only",
    ),
    "gradient": (
        "  encoder: {models: [{model: a/a}, {model: a/b}], parameters: {t: ^[0, 1]}}\n"
        "  decoder: {models: [{model: a/a}, {model: a/b}], parameters: {t: 0}}\n",
        "E0746",
        "the layers of a module",
    ),
    "different models": (
        "  encoder: {^models: [{model: a/a}, {model: a/b}], parameters: {t: 0.5}}\n"
        "  decoder: {models: [{model: a/a}, {model: a/c}], parameters: {t: 0.5}}\n",
        "E0746",
        "modules of different models",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_fault_of_a_module(name: str) -> None:
    """Faults below `modules:`."""
    text, code, words = MODULES[name]
    error = refused(f"merge_method: slerp\nbase_model: a/a\nmodules:\n{text}")[0]
    assert error.code == code
    assert words in f"{error.message} {error.help}"


def test_modules_of_more_models_than_the_method_takes() -> None:
    """A weight of zero keeps a model out of a module, but not out of the count."""
    (error,) = refused(
        "merge_method: nuslerp\nparameters: {weight: 1}\nmodules:\n"
        "  encoder: {models: [{model: a/a}, {model: a/b}]}\n"
        "  decoder: {^models: [{model: a/a}, {model: a/c}]}\n"
    )
    assert error.code == "E0746"
    assert "more than `nuslerp`" in error.message


def test_modules_that_normalise_differently() -> None:
    """A switch of the whole merge has one value, and a recipe would be refused for two."""
    (error,) = refused(
        "merge_method: ties\nbase_model: a/a\nparameters: {weight: 1}\nmodules:\n"
        "  encoder: {models: [{model: a/b}], parameters: {normalize: ^true}}\n"
        "  decoder: {models: [{model: a/b}], parameters: {normalize: false}}\n"
    )
    assert error.code == "E0746"
    assert "`normalize` is one value" in error.message


DOCUMENTS = {
    "twice": ("name: a\nSOUP---\n^name: a\nSOUP", "two documents are named `a`"),
    "two unnamed": ("SOUP---\n^SOUP", "two have no `name`"),
    "cycle": (
        "name: a\nmerge_method: karcher\nmodels: [{model: b}, {model: x/y}]\n---\n"
        "name: b\nmerge_method: karcher\nmodels: [{model: a}, {model: x/y}]\n",
        "made from itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_fault_of_documents(name: str) -> None:
    """Documents that cannot be put in order."""
    text, words = DOCUMENTS[name]
    (error,) = refused(text.replace("SOUP", "merge_method: linear\n" + TWO))
    assert error.code == "E0745"
    assert words in error.message


def test_all_faults_are_reported_at_once() -> None:
    """One run tells of every line."""
    errors = refused(
        "merge_method: ties\nbase-model: a/b\nmodels:\n"
        "  - {model: a/c, parameters: {wight: 1}}\n  - {modell: a/d}\ndtype: half\n"
    )
    assert [d.code for d in errors] == ["E0741", "E0743", "E0741", "E0744"]


def test_secrets_are_not_repeated() -> None:
    """What looks like a token is blotted out, and stops the import."""
    token = "hf_" + "A" * 34
    recipe, sink = imported(f"merge_method: linear\n# {token}\n" + TWO)
    assert recipe is None
    (error,) = sink
    assert error.code == "E0702"
    assert error.primary is not None
    assert token not in error.primary.span.source.text
