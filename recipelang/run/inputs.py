"""What only whole files tell, found out before the first step runs: every row of the data, whether
supervision selects anything of them; and whether sources are here and places to publish free.

`recipe check` reads the first 1,000 rows; `plan` and `run` read all, so that a fault in the last
row is not met after hours of training.

Example: ``inspect_inputs(plan, tokenise_all=True).diagnostics`` is empty where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import Diagnostic, Label, RecipeError, Span
from recipelang.diagnostics.diagnostic import fault
from recipelang.ir.graph import Node
from recipelang.language.report import shown
from recipelang.lineage.keys import is_input
from recipelang.plan.schedule import Plan, PlanStep
from recipelang.run.values import RuntimeValue
from recipelang.types import ModelType

if TYPE_CHECKING:
    from recipelang.data.encoder import Encoder
    from recipelang.run.data import Rows

__all__ = ["Inspected", "inspect_inputs", "missing_sources", "occupied_places"]

FIRST_ROWS = 64
"""Rows that nearly always settle whether supervision selects anything."""


@dataclass(eq=False)
class Inspected:
    """The data of the steps that run, opened; those that cannot be; and what is wrong with them."""

    values: dict[Node, RuntimeValue] = field(default_factory=dict[Node, RuntimeValue])
    diagnostics: list[Diagnostic] = field(default_factory=list[Diagnostic])
    bad: set[Node] = field(default_factory=set[Node])


def inspect_inputs(plan: Plan, *, tokenise_all: bool) -> Inspected:
    """Read all data of the steps that run, and see whether trainings have something to learn.

    With ``tokenise_all`` every row is put into tokens (which the run needs anyway and keeps), so
    that a chat which the template refuses is found wherever it stands; without, the first rows are,
    and the others only where those select nothing.
    """
    found = Inspected()
    for step in plan.to_run:
        measures = step.node.role("by")
        for node in (*step.node.inputs, *(n for measure in measures for n in measure.inputs)):
            if _is_data(plan, node):
                _read(plan, node, found)
    encoders: dict[tuple[str, str | None], Encoder | None] = {}
    for step in plan.to_run:
        data = step.node.one("data") if step.kind == "train" else None
        if data is not None and data in found.values:
            try:
                _learns(plan, step, found.values[data], encoders, tokenise_all)
            except RecipeError as error:
                found.diagnostics += _at(plan, step.node, error)
    return found


def missing_sources(plan: Plan) -> tuple[Diagnostic, ...]:
    """E0723 for each source that a step needs and that is not on this machine."""
    nodes = dict.fromkeys(node for step in plan.to_run for node in step.node.inputs)
    found: list[Diagnostic] = []
    for node in nodes:
        if is_input(plan.state.lookup(node.op)) and plan.by_node[node].artifact is None:
            missing = f"`{node.attr('uri')}` is not on this machine"
            error = fault("E0723", missing, help="fetch it: `recipe fetch FILE`")
            found += _at(plan, node, error)
    return tuple(found)


def occupied_places(plan: Plan) -> tuple[Diagnostic, ...]:
    """E0855 for each publish into a place that holds what recipelang did not write."""
    from recipelang.run.publish import check_place, resolve

    found: list[Diagnostic] = []
    for root in plan.publishes:
        try:
            check_place(resolve(root.uri, root.folder), root.overwrite)
        except RecipeError as error:
            found += _placed(error, root.span)
    return tuple(found)


def _is_data(plan: Plan, node: Node) -> bool:
    operation = plan.state.lookup(node.op)
    return operation is not None and operation.kind == "data"


def _read(plan: Plan, node: Node, found: Inspected) -> None:
    """Open a data step and those below it, and read all rows."""
    from recipelang.run.data import Rows, evaluate_data

    if node in found.values or node in found.bad:
        return
    for below in node.inputs:
        _read(plan, below, found)
    if any(below in found.bad for below in node.inputs):
        found.bad.add(node)
        return
    try:
        inputs: Mapping[str, tuple[RuntimeValue, ...]] = {
            role: tuple(found.values[n] for n in nodes) for role, nodes in node.operands
        }
        value = evaluate_data(node, inputs, plan.state.draws(node))
        if isinstance(value, Rows):
            value.rows()
        found.values[node] = value
    except RecipeError as error:
        found.bad.add(node)
        found.diagnostics += _at(plan, node, error)


def _learns(
    plan: Plan, step: PlanStep, data: RuntimeValue,
    encoders: dict[tuple[str, str | None], Encoder | None], tokenise_all: bool,
) -> None:  # fmt: skip
    """Raise RecipeError where nothing of the data is learned, or a row cannot be tokenised."""
    from recipelang.data.packing import pack
    from recipelang.data.tokenise import tokenise
    from recipelang.ops.train._rules import supervised_by
    from recipelang.run.data import Rows
    from recipelang.run.training import row_length

    node, operation = step.node, plan.state.lookup(step.node.op)
    start = node.one(operation.origin) if operation is not None else None
    if start is None or not isinstance(start.type, ModelType) or not isinstance(data, Rows):
        return
    encoder = _encoder(start.type, data, encoders)
    if encoder is None:
        return
    supervise = supervised_by(data.format, node.attr("supervise"))
    length, overflow = row_length(node, data), str(node.attr("overflow", "cut"))
    if not tokenise_all:
        first = data.rows()[:FIRST_ROWS]
        try:
            documents = tokenise(
                first, data.format, supervise, encoder, take_tokens=data.take_tokens
            )
            pack(documents, length, packing=False, overflow=overflow)
            return
        except RecipeError:
            pass  # the other rows may select something, and all of them count in the message
    pack(data.documents(encoder, supervise), length, packing=False, overflow=overflow)


def _encoder(
    model: ModelType, data: Rows, known: dict[tuple[str, str | None], Encoder | None]
) -> Encoder | None:
    """The tokenizer of a model that need not be there yet; None where no file holds it."""
    from recipelang.data.encoder import encoder_of

    tokenizer, config = model.tokenizer, model.config
    if tokenizer is None or tokenizer.added or not tokenizer.path or config is None:
        return None
    template = data.template if data.template is not None else model.chat_template
    key = (tokenizer.digest, template)
    if key not in known:
        known[key] = encoder_of(_tokenizer_files(Path(tokenizer.path)), config, template)
    return known[key]


def _tokenizer_files(path: Path) -> Mapping[str, Path | bytes]:
    """The tokenizer at this path, with the files that belong to it."""
    if path.suffix == ".gguf":
        from recipelang.weights.gguf import GgufModel

        return GgufModel.open(path).files
    from recipelang.weights.folder import auxiliary_files

    return {**auxiliary_files(path.parent), "tokenizer.json": path}


def _at(plan: Plan, node: Node, error: RecipeError) -> list[Diagnostic]:
    """The error's diagnostics at the step in the recipe."""
    return _placed(error, plan.state.program.spans.get(plan.state.stands_for.get(node, node)))


def _placed(error: RecipeError, span: Span | None) -> list[Diagnostic]:
    label = Label(span) if span else None
    return [
        replace(d, primary=d.primary or label, message=shown(d.message)) for d in error.diagnostics
    ]
