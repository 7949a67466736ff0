"""The fields of a merge as mergekit's ``parameters``: those of all models, and each model's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from recipelang.convert.mergekit.from_values import Inexpressible, Known, Setting, setting
from recipelang.convert.mergekit.methods import Method, Parameter
from recipelang.ir.graph import Node
from recipelang.ops.registry import lookup
from recipelang.values import Attr, show

__all__ = ["DTYPES", "Document", "dtype_of", "given", "parameter_setting", "parameters_of"]

Document: TypeAlias = dict[str, Any]
OWN: Final = frozenset({"dtype", "vocabulary"})
"""Fields that are keys of the configuration."""
IGNORED: Final = frozenset({"nonfinite", "compat", "seed"})
"""Fields that the YAML has no place for and needs none: mergekit never looks for infinities, has
its own definitions, and takes its seed on the command line."""
DTYPES: Final = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
}  # fmt: skip


def parameters_of(node: Node, method: Method, known: Known) -> tuple[Document, list[Document]]:
    """The parameters of all inputs, and those of each. Raises Inexpressible."""
    _refuse_others(node, method)
    count = len(node.role("inputs"))
    shared: Document = {}
    own: list[Document] = [{} for _ in range(count)]
    fields = {name for name, _ in node.attrs}
    for parameter in method.parameters:
        if parameter.field not in fields:
            continue
        value = node.attr(parameter.field)
        if not parameter.per_input:
            _set(shared, parameter, parameter_setting(parameter, value, known))
            continue
        values = value if isinstance(value, tuple) else (value,) * count
        settings = [parameter_setting(parameter, each, known) for each in values]
        if parameter.in_block and all(each == settings[0] for each in settings):
            _set(shared, parameter, settings[0])
            continue
        for document, each in zip(own, settings, strict=True):
            document[parameter.name] = each
    return shared, own


def parameter_setting(parameter: Parameter, value: Attr, known: Known) -> Setting:
    """The setting of one parameter. Raises Inexpressible."""
    if not parameter.words:
        return setting(value, known, parameter.ours)
    for own, word in parameter.words:
        if word == value:
            return own
    words = " or ".join(f"`{parameter.field} = {word}`" for _, word in parameter.words)
    raise Inexpressible(f"mergekit has no `{parameter.field} = {value}`", f"write {words}")


def dtype_of(node: Node) -> Document:
    """What is stored, computed in float32 as here; as mergekit would with ``compat = mergekit``."""
    written = node.attr("dtype")
    if not isinstance(written, str):
        return {}
    stored = DTYPES.get(written, written)
    if stored not in ("float16", "bfloat16") or node.attr("compat") == "mergekit":
        return {"dtype": stored}
    return {"dtype": "float32", "out_dtype": stored}


def given(key: str, value: Sequence[object] | Document) -> Document:
    """The entry, or none where the value is empty."""
    return {key: value} if value else {}


def _set(document: Document, parameter: Parameter, value: Setting) -> None:
    """Write the value unless it is what mergekit takes anyway."""
    if value != parameter.default or isinstance(value, bool) != isinstance(parameter.default, bool):
        document[parameter.name] = value


def _refuse_others(node: Node, method: Method) -> None:
    """Fields that mergekit has nothing for may have their default only."""
    operation = lookup(node.op)
    assert operation is not None
    for name, value in node.attrs:
        if method.field(name) or name in OWN or name in IGNORED:
            continue
        spec = operation.field(name)
        default = spec.default if spec else None
        if value != default and not (
            isinstance(value, tuple) and all(each == default for each in value)
        ):
            written = value if spec and spec.kind == "choice" else show(value)
            raise Inexpressible(f"mergekit has no `{name} = {written}` for `{node.op}`")
