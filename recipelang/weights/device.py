"""Which tensors a device computes, and what that needs of its memory.

A device computes a tensor whole. What has nothing to compute, and what is too large for the
device, is done on the host, block by block.

Example:
    >>> runs_on_device(source), device_bytes(source)      # doctest: +SKIP
    (True, 163840)
"""

from __future__ import annotations

from recipelang.weights.expression import Aligned, Combine, Leaf, Source
from recipelang.weights.kernel import MatrixKernel
from recipelang.weights.needs import walk
from recipelang.weights.numbers import FLOATS

__all__ = ["device_bytes", "runs_on_device"]

WORKING_BYTES = 64
"""What a kernel needs for an element beside its operands: the most is for ranks within rows."""


def runs_on_device(source: Source) -> bool:
    """Whether there is anything to compute, from floating-point tensors alone: what is copied or
    only rounded stays on the host, and so does what reads by rows: decompositions, and embeddings
    that are put into another vocabulary's order."""
    nodes = list(walk(source))
    kernels = [node for node in nodes if isinstance(node, Combine) and not _copies(node)]
    if not kernels or not source.info.elements or any(isinstance(n, Aligned) for n in nodes):
        return False
    if any(isinstance(node.kernel, MatrixKernel) for node in kernels):
        return False
    leaves = [node for node in nodes if isinstance(node, Leaf)]
    leaves += [leaf for node in kernels for leaf in node.whole]
    return all(leaf.info.dtype in FLOATS for leaf in leaves)


def _copies(node: Combine) -> bool:
    return not isinstance(node.kernel, MatrixKernel) and node.kernel.copies


def device_bytes(source: Source) -> int:
    """About what computing a source holds on the device at its peak: the stored operands, their
    wide copies and what is made of them, and a kernel's working memory."""
    nodes = list(walk(source))
    stored = sum(node.info.bytes for node in nodes if isinstance(node, Leaf))
    kernels = [node for node in nodes if isinstance(node, Combine)]
    wide = 8 if any(node.info.dtype == "F64" for node in nodes) else 4
    operands = max(len(node.sources) for node in kernels)
    each = 2 * wide * operands + WORKING_BYTES
    return stored + source.info.elements * each
