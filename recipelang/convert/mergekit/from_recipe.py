"""A merge of a recipe as mergekit's configuration: one document, or several for a chain of merges.

``recipe export soup.recipe merged --mergekit`` prints what ``mergekit-yaml`` reads, and for merges
of merges what ``mergekit-multi`` reads.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final

from recipelang.convert.mergekit.from_parameters import (
    Document,
    dtype_of,
    given,
    parameter_setting,
    parameters_of,
)
from recipelang.convert.mergekit.from_values import Inexpressible, Known
from recipelang.convert.mergekit.methods import METHODS, Method, by_verb
from recipelang.convert.mergekit.yaml_text import dump
from recipelang.diagnostics import Diagnostic, Label, RecipeError
from recipelang.ir.graph import Node
from recipelang.program import Program, nodes_of
from recipelang.types import ModelType
from recipelang.values import Attr

__all__ = ["export_yaml"]

SOURCES: Final = ("model", "apply")
"""Steps that a reference to a model names: `org/base@revision+adapter`."""


def export_yaml(program: Program, target: str | None, *, here: str) -> str:
    """The YAML for a binding, or without one for what the recipe publishes or ends in.

    Local paths are relative to ``here``, where mergekit is to be run. Raises RecipeError: E0747 for
    what mergekit cannot say, E0820 for a target that there is not.
    """
    node = _target(program, target)
    exporter = _Exporter(program, here)
    try:
        final = exporter.document(node)
    except Inexpressible as refused:
        raise exporter.fault(exporter.at or node, refused) from None
    name = exporter.name(node)
    if exporter.documents and name != "merged":
        final = {"name": name, **final}
    return dump([*exporter.documents.values(), final])


def _target(program: Program, target: str | None) -> Node:
    """The step to export."""
    from recipelang.plan.checks import checked_names

    if target is None:
        nodes = tuple(dict.fromkeys(p.what for p in program.publishes)) or program.roots()
    else:
        checked_names(program, (target,), ())
        nodes = nodes_of(program.bindings[target])
    models = [node for node in nodes if isinstance(node.type, ModelType)]
    if len(models) != 1 or len(nodes) != 1:
        what = f"`{target}`" if target else "what the recipe ends in"
        help = "name the binding of one: `recipe export FILE TARGET --mergekit`"
        raise RecipeError(Diagnostic("E0747", "error", f"{what} is not one model", help=help))
    return models[0]


@dataclass
class _Exporter:
    """The documents of merges that others use, in order."""

    program: Program
    here: str
    documents: dict[Node, Document] = field(default_factory=dict[Node, Document])
    at: Node | None = None
    """The step that is being written, for messages."""

    def fault(self, node: Node, refused: Inexpressible) -> RecipeError:
        """The refusal, at the place of the step."""
        span = self.program.spans.get(node)
        label = Label(span) if span else None
        return RecipeError(
            Diagnostic("E0747", "error", refused.message, label, help=refused.help)
        )  # fmt: skip

    def name(self, node: Node) -> str:
        """What the step's document is called."""
        place = self.program.places.get(node, node.op)
        return re.sub(r"[^\w.-]+", "_", place)

    # ------------------------------------------------------------ documents

    def document(self, node: Node) -> Document:
        """The configuration that gives this model. Raises Inexpressible."""
        self.at = node
        if node.op == "stack":
            return self._stack(node)
        if node.op in SOURCES:
            return self._copy(node, node)
        if node.op == "cast":
            return self._copy(node, node.inputs[0])
        method = by_verb(node.op)
        if method is None:
            raise Inexpressible(
                f"mergekit has no `{node.op}`",
                "publish its result first, and name the folder in a recipe of merges",
            )
        shared, own = parameters_of(node, method, Known(_tensors(node)))
        inputs, base = self._inputs(node, method)
        models: list[Document] = [
            {"model": self.reference(one), **given("parameters", parameters)}
            for one, parameters in zip(inputs, own[-len(inputs) :], strict=True)
        ]
        found: Document = {"merge_method": method.name}
        if base is not None:
            found["base_model"] = self.reference(base)
            models.insert(0, {"model": found["base_model"]})
        self.at = node
        return {**found, "models": models, **given("parameters", shared), **self._ends(node, base)}

    def _copy(self, node: Node, inner: Node) -> Document:
        models = [{"model": self.reference(inner)}]
        return {"merge_method": "passthrough", "models": models, **dtype_of(node)}

    def _inputs(self, node: Node, method: Method) -> tuple[tuple[Node, ...], Node | None]:
        """The inputs without the base, and the base: of a pair it is the first."""
        inputs = node.role("inputs")
        return (inputs[1:], inputs[0]) if method.pair else (inputs, node.one("base"))

    def _ends(self, node: Node, base: Node | None) -> Document:
        """The tokenizer and the dtype."""
        wanted = node.attr("vocabulary")
        subject = node.role("inputs")[0]
        source: Document = {}
        if wanted == "union":
            source = {"tokenizer_source": "union"}
        elif wanted == "of-base" or (wanted == "of-subject" and subject is base):
            source = {"tokenizer_source": "base"}
        elif wanted == "of-subject":
            source = {"tokenizer_source": self.reference(subject)}
        return {**source, **dtype_of(node)}

    # ------------------------------------------------------------ slices

    def _stack(self, node: Node) -> Document:
        """Slices: merges of layers, and layers that are only copied."""
        slices = node.role("inputs")
        scales = node.attr("scale")
        assert isinstance(scales, tuple)
        if len(slices) == 1 and isinstance(slices[0].type, ModelType):
            return self._scaled(node, slices[0], scales[0])
        verbs = {one.op for one in slices if one.op != "stack" and by_verb(one.op)}
        if len(verbs) > 1:
            raise Inexpressible("mergekit has one method for all slices of a model")
        method = (by_verb(verbs.pop()) if verbs else None) or METHODS["passthrough"]
        entries: list[Document] = []
        ends: list[Document] = []
        for place, (one, scale) in enumerate(zip(slices, scales, strict=True)):
            if one.op == method.verb and one.op != "stack":
                if scale != 1:
                    raise Inexpressible("mergekit scales only layers that it copies")
                entries.append(self._merged(one, method, last=place == len(slices) - 1))
                ends.append(self._ends(one, self._inputs(one, method)[1]))
            else:
                entries.append(self._copied(one, scale, method, node))
                ends.append(dtype_of(node))
        if any(end != ends[0] for end in ends):
            message = "mergekit has one `dtype` and one tokenizer for all slices of a model"
            raise Inexpressible(message, "write the same in each merge of layers, and in the stack")
        return {"merge_method": method.name, "slices": entries, **ends[0]}

    def _merged(self, one: Node, method: Method, *, last: bool) -> Document:
        """A slice that is a merge of layers."""
        self.at = one
        several = getattr(one.type, "count", None) != 1
        shared, own = parameters_of(one, method, Known(_tensors(one), last, several))
        inputs, base = self._inputs(one, method)
        sources = [
            self._source(each, parameters)
            for each, parameters in zip(inputs, own[-len(inputs) :], strict=True)
        ]
        entry: Document = {"sources": sources}
        if base is not None:
            sources.insert(0, self._source(base, {}))
            entry["base_model"] = sources[0]["model"]
        return {**entry, **given("parameters", shared)}

    def _copied(self, one: Node, scale: Attr, method: Method, stack: Node) -> Document:
        """A slice of layers as they are, which only two methods can take among others."""
        self.at = stack
        if method.name == "linear" and scale == 1:
            return {"sources": [self._source(one, {"weight": 1})]}
        if method.name != "passthrough":
            raise Inexpressible(f"slices of one `{method.name}` cannot be copied layers")
        known = Known(_tensors(stack), gradients=len(stack.role("inputs")) == 1)
        value = parameter_setting(method.parameters[0], scale, known)
        return {"sources": [self._source(one, {} if value == 1 else {"scale": value})]}

    def _scaled(self, node: Node, one: Node, scale: Attr) -> Document:
        """A whole model, scaled."""
        passthrough = METHODS["passthrough"]
        value = parameter_setting(passthrough.parameters[0], scale, Known(_tensors(node)))
        entry = {"model": self.reference(one), **given("parameters", {"scale": value})}
        return {"merge_method": passthrough.name, "models": [entry], **dtype_of(node)}

    def _source(self, one: Node, parameters: Document) -> Document:
        """``{model, layer_range}``."""
        if one.op == "layers":
            model, start, stop = one.inputs[0], one.attr("start"), one.attr("stop")
        else:
            known = one.type.layers if isinstance(one.type, ModelType) else None
            model, start, stop = one, 0, known
        if stop is None:
            help = "write the range: `m.layers(0, 32)`"
            raise Inexpressible("mergekit wants a range of layers in each slice", help)
        source = {"model": self.reference(model), "layer_range": [start, stop]}
        return {**source, **given("parameters", parameters)}

    # ------------------------------------------------------------ references

    def reference(self, node: Node) -> str:
        """How mergekit names a model; a merge gets a document of its own."""
        if node.op == "model":
            return self._place(node)
        if node.op == "apply":
            adapter, model = node.one("adapter"), node.one("model")
            assert adapter is not None
            assert model is not None
            if adapter.op == "adapter":
                base = self.reference(model)
                if "+" in base:
                    raise Inexpressible("mergekit takes one adapter a model")
                return f"{base}+{self._place(adapter)}"
        if node not in self.documents:
            made = self.document(node)
            self.documents[node] = {"name": self.name(node), **made}
        return self.name(node)

    def _place(self, node: Node) -> str:
        """A repository or a folder."""
        self.at = node
        uri, revision = str(node.attr("uri")), node.attr("revision")
        if node.attr("dtype") is not None:
            raise Inexpressible("mergekit has one `dtype` for all models", "leave it to the merge")
        if uri.endswith(".gguf") or uri.startswith("package:"):
            raise Inexpressible(f"mergekit reads no `{os.path.basename(uri)}`")
        if uri.startswith("hf:"):
            name = uri.removeprefix("hf:")
            return f"{name}@{revision}" if revision else name
        path = os.path.relpath(uri, self.here)
        if "@" in path or "+" in path:
            raise Inexpressible("mergekit splits a path at `@` and `+`", "rename the folder")
        return path if path.startswith("..") else f"./{path}"


def _tensors(node: Node) -> tuple[str, ...]:
    """The names of the result's tensors, empty where they are not known."""
    of = node.type if isinstance(node.type, ModelType) else getattr(node.type, "of", None)
    return tuple(of.tensors) if isinstance(of, ModelType) and of.tensors else ()
