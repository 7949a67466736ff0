"""Opens what a step gave: a stored artifact, a source in its place, rows of data.

Example: ``open_value(session, node)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from recipelang.diagnostics import fault
from recipelang.ir.graph import Node
from recipelang.lineage.keys import is_input
from recipelang.run.measured import open_measurement, open_table
from recipelang.run.session import Session
from recipelang.run.values import AdapterValue, ModelValue, RuntimeValue
from recipelang.store.artifact import Manifest
from recipelang.types import TableType

__all__ = ["open_artifact", "open_value", "operand_names"]


def open_value(session: Session, node: Node) -> RuntimeValue:
    """The value of a step whose content id is known; it is kept for the run.

    Raises RecipeError of band E07 where it cannot be read.
    """
    if node not in session.values:
        session.values[node] = _open(session, node)
    return session.values[node]


def _open(session: Session, node: Node) -> RuntimeValue:
    operation = session.plan.state.lookup(node.op)
    if operation is not None and operation.kind == "data":
        from recipelang.run.data import evaluate_data

        inputs = {
            role: tuple(open_value(session, n) for n in nodes) for role, nodes in node.operands
        }
        return evaluate_data(node, inputs, session.step(node).draws)
    if is_input(operation):
        from recipelang.run.sources import open_source

        return open_source(session, node)
    artifact = session.ids[node]
    if isinstance(node.type, TableType):
        manifest = _manifest(session, artifact)
        names = operand_names(session, node)
        return open_table(manifest, names.get("models", ()), names.get("data", ()))
    return open_artifact(session, artifact)


def operand_names(session: Session, node: Node) -> dict[str, Sequence[str]]:
    """What the recipe calls the operands of a step, by role; empty where it has no name."""
    state = session.plan.state
    return {role: [state.place(n) for n in nodes] for role, nodes in node.operands}


def _manifest(session: Session, artifact: str) -> Manifest:
    manifest = session.store.manifest(artifact)
    if manifest is None:
        raise fault(
            "E0761", f"the store `{session.store.root}` lacks the artifact {artifact[:12]}",
            help="run the recipe again",
        )  # fmt: skip
    return manifest


def open_artifact(session: Session, artifact: str) -> RuntimeValue:
    """A stored artifact, or a source of this plan by its content id. Raises RecipeError E0761."""
    source = _source_of(session, artifact)
    if source is not None:
        return open_value(session, source)
    from recipelang.weights.stored import StoredModel

    manifest = _manifest(session, artifact)
    path = session.store.object_path
    match manifest.kind:
        case "measurement":
            return open_measurement(manifest)
        case "adapter":
            return AdapterValue(StoredModel.open(manifest, path), artifact)
        case "adapted":
            from recipelang.weights.adapted import Adapted

            base = open_artifact(session, manifest.base)
            assert isinstance(base, ModelValue)
            adapter = StoredModel.open(manifest, path)
            return ModelValue(Adapted(base.checkpoint, adapter), artifact)
        case _:
            return ModelValue(StoredModel.open(manifest, path), artifact)


def _source_of(session: Session, artifact: str) -> Node | None:
    """The source that has this content id, if it is one."""
    lookup = session.plan.state.lookup
    for node, found in session.ids.items():
        if found == artifact and is_input(lookup(node.op)):
            return node
    return None
