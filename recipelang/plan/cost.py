"""What steps are estimated to take: an operation's own cost over a device's measured speed.

Example:
    >>> speed = Speed(flops=50e9, bytes=1e9)
    >>> round(speed.seconds(Cost(flops=1e12, bytes_read=2_000_000_000)), 1)
    22.0
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import perf_counter

from recipelang.ir.graph import Node
from recipelang.ops.spec import Cost, Operation, Typed
from recipelang.passes.state import GraphState, Region
from recipelang.plan.schedule import Estimate
from recipelang.types import AdapterType, DeltaType, ModelType, Type

__all__ = ["Speed", "cost_of", "estimate_region", "estimate_step", "measure_cpu", "stored_bytes"]


@dataclass(frozen=True, slots=True)
class Speed:
    """``flops``: float32 operations a second in matrix products; ``bytes``: bytes a second through
    memory. Zero is not known."""

    flops: float = 0.0
    bytes: float = 0.0

    def seconds(self, cost: Cost) -> float:
        """Computing and moving, one after the other; a part of unknown speed counts nothing."""
        computing = cost.flops / self.flops if self.flops else 0.0
        moved = cost.bytes_read + cost.bytes_written
        return computing + (moved / self.bytes if self.bytes else 0.0)


def measure_cpu(seconds: float = 0.03) -> Speed:
    """This machine's speed now: the best float32 product of two 512 x 512 matrices, and the best
    copy of 32 MiB, among as many as fit the time for each."""
    import numpy as np

    a = np.full((512, 512), 0.5, np.float32)
    out = np.empty_like(a)
    source = np.zeros(8 << 20, np.float32)
    target = np.zeros_like(source)
    product = _best(lambda: np.matmul(a, a, out=out), seconds)
    copy = _best(lambda: np.copyto(target, source), seconds)
    return Speed(2 * 512**3 / product, 2 * source.nbytes / copy)


def _best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of several runs, in seconds."""
    best, end = float("inf"), perf_counter() + seconds
    while True:
        start = perf_counter()
        work()
        now = perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def cost_of(node: Node, operation: Operation | None) -> Cost:
    """What the operation says of the step; nothing where it says nothing."""
    if operation is None or operation.cost is None:
        return Cost()
    types = {role: tuple(n.type for n in nodes) for role, nodes in node.operands}
    return operation.cost(Typed(types, dict(node.attrs) | dict(node.hints)))


def stored_bytes(type_: Type | None) -> int:
    """The bytes of a value of the type in the store; 0 where they are not known or small."""
    match type_:
        case ModelType(tensors=tensors) | AdapterType(tensors=tensors):
            return sum(t.bytes for t in (tensors or {}).values())
        case DeltaType(of=model):
            return sum(4 * t.elements for t in (model.tensors or {}).values())
        case _:
            return 0


def estimate_step(node: Node, operation: Operation | None, speed: Speed) -> Estimate:
    """The estimate of a step that runs alone."""
    cost = cost_of(node, operation)
    written = cost.bytes_written or (stored_bytes(node.type) if node.op == "init" else 0)
    return Estimate(speed.seconds(cost), cost.memory_bytes, written)


def estimate_region(
    state: GraphState, region: Region, running: Collection[Node], speed: Speed
) -> dict[Node, Estimate]:
    """The estimates of the steps of a region that run: what lies outside is read once, what is not
    stored is not written. The time stands at the last of them."""
    nodes = [node for node in region.nodes if node in running]
    outside = {n for node in nodes for n in node.inputs if n not in nodes}
    read = sum(stored_bytes(n.type) for n in outside)
    costs = {node: cost_of(node, state.lookup(node.op)) for node in nodes}
    found: dict[Node, Estimate] = {}
    for node in nodes:
        written = stored_bytes(node.type) if node in region.outputs else 0
        found[node] = Estimate(0.0, costs[node].memory_bytes, written)
    if nodes:
        written = sum(one.disk_bytes for one in found.values())
        last = found[nodes[-1]]
        flops = sum(cost.flops for cost in costs.values())
        total = speed.seconds(Cost(flops, read, written))
        found[nodes[-1]] = Estimate(total, last.memory_bytes, last.disk_bytes)
    return found
