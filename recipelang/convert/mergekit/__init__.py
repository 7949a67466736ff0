"""Recipes from and to the configurations of mergekit 0.1.5 (``mergekit-yaml``, ``mergekit-multi``).

Example:
    >>> entry = "- {model: org/%s, parameters: {weight: 0.5}}\\n"
    >>> text = "merge_method: linear\\nmodels:\\n" + entry % "a" + entry % "b"
    >>> print(import_yaml(Source("soup.yml", text), Sink(), Paths("/", "/")), end="")
    language 1
    <BLANKLINE>
    # Imported from soup.yml, a configuration of mergekit.
    a = model "hf:org/a"
    b = model "hf:org/b"
    <BLANKLINE>
    merged = linear-merge a(weight = 0.5) with b(weight = 0.5)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from recipelang.convert.mergekit.configuration import Configuration
from recipelang.convert.mergekit.documents import ordered
from recipelang.convert.mergekit.from_recipe import export_yaml
from recipelang.convert.mergekit.names import Paths
from recipelang.convert.mergekit.read import read_configuration
from recipelang.convert.mergekit.to_recipe import Known, write_recipe
from recipelang.convert.yaml_tree import read_documents
from recipelang.diagnostics import Diagnostic, Sink, Source
from recipelang.language.reading import screen

__all__ = ["Paths", "export_yaml", "import_yaml"]

MAX_DOCUMENTS: Final = 100


def import_yaml(
    source: Source, sink: Sink, paths: Paths, *, publish_to: str = "", exact: bool = False,
    known: Known = lambda uri, revision: None,
) -> str | None:  # fmt: skip
    """The recipe that says what a configuration says; None where it has faults (in the sink).

    ``publish_to`` is a URI as the recipe writes it. ``exact`` writes ``compat = mergekit`` where
    recipelang defines a method otherwise; without it one note names the differences. ``known``
    gives the types of models: one slice of all layers is then written as whole models, and values
    that vary by tensor fit the names of the tensors.
    """
    source = screen(source, sink)
    documents = None if sink.has_errors else read_documents(source, sink)
    if documents is None:
        return None
    if not 0 < len(documents) <= MAX_DOCUMENTS:
        holds = "no configuration" if not documents else f"more than {MAX_DOCUMENTS} configurations"
        sink.error("E0745", f"`{source.path}` holds {holds}")
        return None
    read = [read_configuration(document, sink) for document in documents]
    found = [one for one in read if one is not None]
    order = None if sink.has_errors else ordered(found, sink)
    if order is None:
        return None
    name = "".join(c if c.isprintable() else " " for c in os.path.basename(source.path))
    title = f"Imported from {name}, a configuration of mergekit."
    text = write_recipe(
        order, paths, known, sink, title=title, publish_to=publish_to, exact=exact
    )  # fmt: skip
    if text is not None and not exact:
        _note_differences(order, text, sink)
    return text


def _note_differences(configurations: Sequence[Configuration], text: str, sink: Sink) -> None:
    """One note on what recipelang defines otherwise, of the verbs that the recipe has: a merge of
    nothing but its base is written as that model."""
    written = (one.method for one in configurations if f" {one.method.verb} " in text)
    methods = {method.name: method for method in written if method.differs}
    notes = tuple(f"{method.verb}: {method.differs}" for method in methods.values())
    if any(_has_another_donor(one) for one in configurations):
        notes += ("configuration and tokenizer are the first input's, not those of `base_model`",)
    if notes:
        help = "`--exact` writes `compat = mergekit`" if methods else ""
        message = "not everything is defined as in mergekit"
        sink.add(Diagnostic("W0741", "note", message, None, (), notes, help))


def _has_another_donor(one: Configuration) -> bool:
    """Whether mergekit copies the configuration and the tokenizer of a model that is not the first
    input: it copies those of the base."""
    if one.base is None or one.method.pair:
        return False
    models = [each.model for each in one.modules[0].slices[0].inputs]
    if one.method.base == "ignored":
        return models[0] != one.base
    return any(model != one.base for model in models)
