"""Which operands' tensors are known to be one: the same of one checkpoint, that of a model and of
the same model with an adapter which leaves it alone, and equal digests, in the store or of folders
that were hashed.

Nothing is read for that. A fine-tune with LoRA shares its embedding with its base, for example.

Example: ``only_one({"inputs": (a, b), "base": (base,)}, frozenset())`` gives the source, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipelang.weights.adapted import Adapted
from recipelang.weights.expression import Leaf, Source
from recipelang.weights.folder import Folder
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results
from recipelang.weights.stored import StoredModel

__all__ = ["kept", "only_one", "read_once"]


def only_one(
    inputs: Mapping[str, tuple[Source | None, ...]], unread: frozenset[tuple[str, int]]
) -> Source | None:
    """The one tensor that all operands are, but those that are not read; None where there is
    another, or where one has none."""
    read = [
        source
        for role, sources in inputs.items()
        for i, source in enumerate(sources)
        if (role, i) not in unread
    ]
    first = read[0] if read else None
    if first is None or any(one is None or _identity(one) != _identity(first) for one in read):
        return None
    return first


def read_once(
    inputs: Mapping[str, tuple[Source | None, ...]],
) -> dict[str, tuple[Source | None, ...]]:
    """The same operands, those that are known to be one as one object: it is read once."""
    first: dict[object, Source] = {}

    def shared(source: Source | None) -> Source | None:
        return None if source is None else first.setdefault(_identity(source), source)

    return {role: tuple(map(shared, sources)) for role, sources in inputs.items()}


def kept(
    inputs: Mapping[str, tuple[Source | None, ...]], unread: frozenset[tuple[str, int]]
) -> Kernel:
    """The kernel of a merge whose result is the one tensor that all its operands are."""
    role, i = next(
        (role, i) for role, items in inputs.items() for i in range(len(items))
        if (role, i) not in unread
    )  # fmt: skip

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        return blocks[role][i] + 0.0  # as what is computed, it has no negative zeros

    return Kernel(combine, unread=unread, copies=True)


def _identity(source: Source) -> object:
    if not isinstance(source, Leaf):
        return id(source)
    checkpoint = source.checkpoint
    while isinstance(checkpoint, Adapted) and source.name not in checkpoint.step.changes:
        checkpoint = checkpoint.base
    digest = ""
    if isinstance(checkpoint, StoredModel):
        digest = checkpoint.manifest.tensors[source.name].digest
    elif isinstance(checkpoint, Folder):
        digest = checkpoint.digests.get(source.name, "")
    if digest:
        return digest, checkpoint.tensors[source.name]
    return id(checkpoint), source.name
