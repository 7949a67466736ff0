"""What steps are estimated to take: an operation's own cost over the device's speed.

The speed is that of the steps in the store that this plan finds cached; before there are any, a
constant for CPUs. For other devices it is then not known, and no time is printed.

Example:
    >>> speed = Speed(flops=50e9, bytes=1e9)
    >>> round(speed.seconds(Cost(flops=1e12, bytes_read=2_000_000_000)), 1)
    22.0
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from recipelang.ir.graph import Node
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Cost, Operation, Typed
from recipelang.passes.state import GraphState, Region
from recipelang.plan.schedule import Estimate
from recipelang.processors import multiplies_bfloat16
from recipelang.types import AdapterType, DeltaType, LayersType, ModelType, Type
from recipelang.weights.compatibility import streamed_bytes

__all__ = [
    "Speed",
    "calibrated",
    "cost_of",
    "cpu_speed",
    "estimate_region",
    "estimate_step",
    "stored_bytes",
]


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


FLOPS_A_CORE: Final = 100e9
"""Operations a second and core of a training or scoring step on a CPU: the quick start's estimate
of 2.8e13 operations over the 131 s that its chain took in torch on two cores of a server (2025)."""
FLOPS_A_CORE_WITHOUT_BFLOAT16: Final = 35e9
"""The same on two shared cores that have no products of bfloat16: the quick start, 259 s (2026)."""
BYTES_A_SECOND: Final = 1e9
"""Bytes a second of a streaming step that writes to a disk which is synced, of the order of 1
GB/s."""


def cpu_speed() -> Speed:
    """What is assumed of this machine before any of its own runs is known."""
    flops = FLOPS_A_CORE if multiplies_bfloat16() else FLOPS_A_CORE_WITHOUT_BFLOAT16
    return Speed(flops * (os.cpu_count() or 1), BYTES_A_SECOND)


def calibrated(speed: Speed, samples: Iterable[tuple[Cost, float]]) -> Speed:
    """The speed, with the operations a second that earlier steps ran at: pairs of a step's cost and
    the seconds it took. Steps of less than a second say nothing."""
    counted = [(cost.flops, seconds) for cost, seconds in samples if cost.flops and seconds >= 1]
    if not counted:
        return speed
    total = sum(seconds for _, seconds in counted)
    return Speed(sum(flops for flops, _ in counted) / total, speed.bytes)


def cost_of(node: Node, operation: Operation | None) -> Cost:
    """What the operation says of the step; nothing where it says nothing. To a search comes what
    its trials measure: as much as was measured of all candidates but one."""
    if operation is None or operation.cost is None:
        return Cost()
    types = {role: tuple(n.type for n in nodes) for role, nodes in node.operands}
    own = operation.cost(Typed(types, dict(node.attrs) | dict(node.hints)))
    if operation.kind != "search":
        return own
    measures = [cost_of(measure, lookup(measure.op)) for measure in node.role("by")]
    candidates = len(node.inputs) - len(measures)
    share = (candidates - 1) / candidates
    return replace(
        own, flops=own.flops + share * sum(cost.flops for cost in measures),
        tokens=own.tokens + round(share * sum(cost.tokens for cost in measures)),
        memory_bytes=max(own.memory_bytes, *(cost.memory_bytes for cost in measures)),
    )  # fmt: skip


def stored_bytes(type_: Type | None) -> int:
    """The bytes of a value of the type in the store; 0 where they are not known or small."""
    match type_:
        case ModelType(tensors=tensors) | AdapterType(tensors=tensors):
            return sum(t.bytes for t in (tensors or {}).values())
        case LayersType(of=model):
            return model.bytes or 0
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
    """The estimates of the steps of a region that run: what lies outside is read once, or for each
    level of statistics, what is not stored is not written. The time stands at the last of them."""
    nodes = [node for node in region.nodes if node in running]
    costs = {node: cost_of(node, state.lookup(node.op)) for node in nodes}
    read = _read_bytes(nodes, costs)
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


def _read_bytes(nodes: Sequence[Node], costs: Mapping[Node, Cost]) -> int:
    """What steps that run as one, in run order, read of what lies outside them."""
    above: dict[Node, tuple[int, int]] = {}
    for node in reversed(nodes):
        cost, (levels, looks) = costs[node], above.get(node, (0, 0))
        levels, looks = levels + cost.levels, looks + cost.looks
        for operand in node.inputs:
            known = above.get(operand, (0, 0))
            above[operand] = max(known[0], levels), max(known[1], looks)
    outside = [node for node in above if node not in costs]
    tables = {node: node.type.tensors for node in outside if isinstance(node.type, ModelType)}
    others = sum(stored_bytes(node.type) for node in outside if node not in tables)
    return others + streamed_bytes((table or {}, *above[node]) for node, table in tables.items())
