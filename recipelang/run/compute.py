"""Computes one missing step, by its kind, and stores the result.

Example: ``compute(session, node)`` gives the artifact's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recipelang.backend import Progress
from recipelang.diagnostics import fault
from recipelang.ir.graph import Node
from recipelang.ir.score import scores
from recipelang.run.events import Note, StepProgress
from recipelang.run.measured import measurement_manifest, table_manifest
from recipelang.run.opening import open_value, operand_names
from recipelang.run.session import Session, place_of
from recipelang.run.values import Measurement, ModelValue, RuntimeValue
from recipelang.store.artifact import Manifest

__all__ = ["compute", "total_of"]


def total_of(node: Node) -> tuple[int, str]:
    """How much a step is, where it is known before: optimiser steps, or cells of a table."""
    steps = node.attr("steps")
    if isinstance(steps, int):
        return steps, "steps"
    if node.op == "evaluate":
        return len(node.role("models")) * len(node.role("data")), "cells"
    if node.op == "greedy-soup":
        return len(node.role("inputs")) - 1, "trials"
    return 0, ""


def compute(session: Session, node: Node) -> str:
    """Carry out a step whose inputs are there; returns the artifact's id, which is stored.

    Raises RecipeError.
    """
    operation = session.plan.state.lookup(node.op)
    kind = operation.kind if operation else ""
    inputs = {role: tuple(open_value(session, n) for n in nodes) for role, nodes in node.operands}
    if node.op == "init":
        return _initial(session, node)
    if node.op == "adapter-of":
        return _adapter_of(session, inputs)
    match kind:
        case "train":
            return session.store.put_manifest(_train(session, node, inputs))
        case "measure" | "evaluate":
            return session.store.put_manifest(_measure(session, node, inputs))
        case "choose":
            return _choose(session, node, inputs)
        case "search":
            from recipelang.run.souping import make_soup

            return make_soup(session, node)
        case _:
            raise fault("E0901", f"`{node.op}` is an operation that recipelang cannot carry out")


Inputs = Mapping[str, tuple[RuntimeValue, ...]]


def _initial(session: Session, node: Node) -> str:
    """Draw a model and store it."""
    from recipelang.run.merging import store_checkpoint
    from recipelang.run.sources import open_initial

    return store_checkpoint(session, node, open_initial(session, node))


def _train(session: Session, node: Node, inputs: Inputs) -> Manifest:
    from recipelang.run.reports import Evaluated, Facts, Summary
    from recipelang.run.training import train

    place, backend = place_of(session.step(node)), session.backend
    devices = backend.devices()
    device = devices[0].kind if devices else "cpu"
    folder = session.store.work_folder(session.keys[node].digest, backend.name, device, 1)

    def report(told: Facts | Progress | Evaluated | Summary) -> None:
        match told:
            case Progress():
                session.listener(
                    StepProgress(place, told.step, told.steps, told.tokens, "tokens", told.loss)
                )
            case Facts():
                for line in told.lines():
                    session.listener(Note(f"{place:<12} {line}"))
            case Summary():
                session.summaries[place] = told
            case _:
                text = f"after {told.step} steps: {told.bits_per_byte:.3f} bits per byte"
                session.listener(Note(f"{place:<12} {text}"))

    session.work[node] = folder
    return train(
        node, inputs, draws=session.step(node).draws, backend=backend, checkpoint_folder=folder,
        report=report, store=session.store,
    )  # fmt: skip


def _measure(session: Session, node: Node, inputs: Inputs) -> Manifest:
    from recipelang.plan.make import uses_backend
    from recipelang.run.measuring import measure

    place = place_of(session.step(node))

    def progress(done: int, of: int) -> None:
        session.listener(StepProgress(place, done, of))

    operation = session.plan.state.lookup(node.op)
    backend = session.backend if uses_backend(node, operation) else None
    found = measure(
        node, inputs, draws=session.step(node).draws, backend=backend,
        names=operand_names(session, node), scores=session.scores, progress=progress,
    )  # fmt: skip
    if isinstance(found, Measurement):
        return measurement_manifest(found)
    return table_manifest(found)


def _choose(session: Session, node: Node, inputs: Inputs) -> str:
    """`best`: the artifact of the winner under another name."""
    from recipelang.run.measuring import choose

    measured = [v for v in inputs["by"] if isinstance(v, Measurement)]
    score, direction = node.attr("score"), node.attr("direction")
    if score is not None:  # arithmetic over several measures of each candidate
        values = scores(score, [m.value for m in measured])
        measured = [replace(measured[0], value=v, direction=str(direction)) for v in values]
    winner = choose(measured)
    chosen = node.role("of")[winner]
    value = session.values[chosen]
    assert isinstance(value, ModelValue)
    name = session.plan.state.place(chosen) or f"number {winner + 1}"
    place = place_of(session.step(node))
    session.listener(Note(f"{place:<12} is `{name}` ({measured[winner].value:.4g})"))
    return session.ids[chosen]


def _adapter_of(session: Session, inputs: Inputs) -> str:
    """The low-rank part of a model that was trained with an adapter; it shares its objects."""
    model = inputs["model"][0]
    assert isinstance(model, ModelValue)
    manifest = session.store.manifest(model.artifact)
    if manifest is None or manifest.kind != "adapted":
        raise fault(
            "E0862", "the model has no adapter of its own: it is stored whole",
            help="take the adapter of a model that was trained with `adapter = lora(…)`",
        )  # fmt: skip
    found = Manifest("adapter", manifest.tensors, manifest.files, manifest.base)
    return session.store.put_manifest(found)
