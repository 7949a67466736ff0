"""Adapters among the inputs of a merge: each stands for its base with it in it, by a step ``apply``
like one that is written.

The base is the one that the adapter declares (``adapter "…" from base``; of an ``adapter-of`` what
the model was trained from); else the base that the merge names; else the model of the merge's
lineage that the adapter's configuration names; else what all the other inputs come from.

Example: ``ties-merge with verses and prose from base`` is ``ties-merge with (apply verses to base)
and (apply prose to base) from base``.
"""

from __future__ import annotations

import re
from dataclasses import replace

from recipelang.diagnostics import RecipeError, Sink, Span
from recipelang.ir.build import Builder
from recipelang.ir.graph import Node
from recipelang.ir.origin import ancestors, common_origin, is_open
from recipelang.language.clauses import Input, Phrase, inside
from recipelang.language.report import report_fault
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault
from recipelang.types import AdapterType, ModelType
from recipelang.weights.strict_json import readable

__all__ = ["apply_adapters", "declared_base", "warn_other_base"]

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def apply_adapters(phrase: Phrase) -> None:
    """Put ``apply`` in place of every adapter that stands where a model is taken. Reports E0613
    where its base is not known, and what ``apply`` complains of."""
    for role, items in phrase.inputs.items():
        operand = phrase.operation.operand(role)
        if operand is not None and "Model" in operand.type.split("|") and operand.many:
            phrase.inputs[role] = [
                _applied(phrase, item) if isinstance(item.node.type, AdapterType) else item
                for item in items
            ]


def declared_base(adapter: Node) -> Node | None:
    """The model that the adapter was trained on, as far as the recipe says."""
    origins = _lineage(adapter)[2 if adapter.op == "adapter-of" else 1 :]
    return origins[0] if origins else None


def _applied(phrase: Phrase, item: Input) -> Input:
    base = _base(phrase, item.node)
    builder, sink = phrase.scope.builder, phrase.scope.sink
    if base is None:
        name = builder.name(item.node)
        phrase.error(
            "E0613",
            f"`{phrase.verb}` takes models, and it is not known which model `{name}` adapts",
            item.span,
            help=f"write `(apply {name} to base)`, or declare it where the adapter is read: "
            '`adapter "..." from base`',
        )
        return item
    operation = lookup("apply")
    assert operation is not None
    if base is not declared_base(item.node):
        warn_other_base(item.node, base, item.span, builder, sink)
    try:
        roles = {"adapter": [item.node], "model": [base]}
        node = builder.step(operation, roles, {}, item.span, inside(phrase))
    except (Fault, RecipeError) as fault:
        report_fault(fault, sink, item.span, {})
        phrase.given.sound = False
        return item
    return replace(item, node=node)


def _base(phrase: Phrase, adapter: Node) -> Node | None:
    """The model that an adapter is applied to, None where that is not known."""
    declared = declared_base(adapter)
    if declared is not None:
        return declared
    written = [o.name for o in phrase.operation.operands if o.by_origin and o.name in phrase.inputs]
    if written:
        return phrase.inputs[written[0]][0].node
    inputs = [i.node for items in phrase.inputs.values() for i in items]
    models = [node for node in inputs if isinstance(node.type, ModelType)]
    bases = [declared_base(node) for node in inputs if isinstance(node.type, AdapterType)]
    known = [*models, *(base for base in bases if base is not None)]
    if any(is_open(node) for node in (adapter, *known)):
        return phrase.scope.builder.parameter("base", ModelType())
    named = {node: None for one in known for node in _lineage(one) if _same(_said(adapter), node)}
    if len(named) == 1:
        return next(iter(named))
    origin = common_origin(known)
    return origin if isinstance(origin, Node) and origin not in models else None


def warn_other_base(adapter: Node, base: Node, span: Span, builder: Builder, sink: Sink) -> None:
    """W0613 where the adapter's configuration names a repository of the hub, and the recipe applies
    it to what comes from others. A copy under the same last name says nothing."""
    said, lineage = _said(adapter), _lineage(base)
    hub = [node for node in lineage if _uri(node).startswith("hf:")]
    if not HUB.fullmatch(said) or not hub or any(_same(said, node) for node in lineage):
        return
    sink.warning(
        "W0613",
        f"`{builder.name(adapter)}` was trained on `{readable(said)}`, and `{builder.name(base)}` "
        f"comes from `{_uri(hub[-1]).removeprefix('hf:')}`",
        span,
        help="apply it to the model that it was trained on",
    )


def _lineage(node: Node) -> list[Node]:
    """The step and the models that it comes from, the nearest first."""
    return [one for one in ancestors(node) if isinstance(one, Node)]


def _said(adapter: Node) -> str:
    """What the adapter's configuration says that it was trained on; empty where it says nothing."""
    config = adapter.type.config if isinstance(adapter.type, AdapterType) else None
    said = (config or {}).get("base_model_name_or_path")
    return said if isinstance(said, str) else ""


def _uri(node: Node) -> str:
    return str(node.attr("uri")) if node.op == "model" else ""


def _same(said: str, node: Node) -> bool:
    """Whether a model is called as the configuration says, in any organisation or folder."""
    names = (text.rstrip("/").rpartition("/")[2].lower() for text in (said, _uri(node)))
    first, second = names
    return first != "" and first == second.removeprefix("hf:")
