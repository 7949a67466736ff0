"""What the evaluation of an expression takes: the tensors under it, memory, more than one look.

Example: ``held_bytes(source)`` is what reading every stored tensor once and keeping it takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from recipelang.weights.expression import Aligned, Cast, Combine, Equal, Leaf, Source
from recipelang.weights.kernel import MatrixKernel

__all__ = [
    "held_bytes",
    "made_whole",
    "needs_statistics",
    "operands_of",
    "walk",
    "working_bytes",
]


def operands_of(node: Source) -> tuple[Source, ...]:
    """What a node is made of."""
    match node:
        case Leaf():
            return ()
        case Cast():
            return (node.source,)
        case Equal() | Aligned() | Combine():
            return node.sources


def walk(source: Source) -> Iterator[Source]:
    """The sources under this one, operands first, each once."""
    seen: set[int] = set()
    stack = [(source, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((s, False) for s in operands_of(node))


def needs_statistics(source: Source) -> bool:
    """Whether anything under it needs more than one look at its inputs, or looks here and there."""
    return any(
        isinstance(s.kernel, MatrixKernel) or bool(s.kernel.levels) if isinstance(s, Combine)
        else isinstance(s, Aligned) and (s.rows.pads or any(_scattered(s)))
        for s in walk(source)
    )  # fmt: skip


def held_bytes(source: Source) -> int:
    """Memory to hold every stored tensor under it, and every computed one whose rows are taken
    here and there, with what a k-th magnitude keeps."""
    held: dict[int, Source] = {}
    for node in walk(source):
        if isinstance(node, Leaf):
            held[id(node)] = node
        elif isinstance(node, Aligned):
            held |= {id(s): s for s in made_whole(node)}
    return sum(node.info.bytes for node in held.values()) + source.info.elements


def working_bytes(source: Source) -> int:
    """Memory that the matrix kernels under it take beside the stored tensors."""
    kernels = {id(s.kernel): s.kernel for s in walk(source) if isinstance(s, Combine)}
    return sum(k.memory_bytes for k in kernels.values() if isinstance(k, MatrixKernel))


def _scattered(node: Aligned) -> list[bool]:
    """Of each source whether its rows are taken here and there."""
    return [node.rows.scattered(i) for i in range(len(node.sources))]


def made_whole(node: Aligned) -> list[Source]:
    """The sources that are computed, and of which rows are taken here and there: they are best
    held."""
    far = zip(node.sources, _scattered(node), strict=True)
    return [source for source, is_far in far if is_far and not isinstance(source, Leaf)]
