"""Rewrites of the recipe graph, and the order they run in.

A pass is a frozen dataclass with a ``name``, an ``exactness`` (``exact``: the same bits;
``reassociates``: the same up to the rounding of a sum in another order) and ``apply``; its
docstring states its law. Any may be switched off: the results stay equal, only the work changes.

Laws of operations that passes read, each declared in the operation's file:

- ``permutation_invariant``: the order of the inputs after the first changes rounding only.
- ``ignores_zero_weight``: an input whose ``weight`` is 0 does not enter, nor is it read.
- ``idempotent``: on one operand, ``f(f(x)) = f(x)`` bit for bit.
- ``idempotent_when_normalized``: the same, where the field ``normalize`` is true.
- ``moves_tensors``: every tensor of the result is one of an operand, perhaps under another name,
  perhaps scaled (the weight engine reads this one).
- ``keeps_base``: a tensor that is the base's own in all inputs is that of the result; where they
  are known to be one tensor it is copied (the weight engine reads this one).
- ``unit_factor``: with ``factor = 1`` the result is the operand bit for bit.

Laws of merges that tests hold them to, at the operation's own rules (``compat = none``):

- ``endpoints``: all the weight on one of two models gives it bit for bit; the other is not read.
- ``unanimous``: models that are all equal, the base among them, give that model up to rounding.
- ``homogeneous``: all models times a power of two give the result times it, bit for bit.

Example: ``run_passes(state, skip=frozenset({"share_common_steps"}))``.
"""

from __future__ import annotations

from typing import Final, Protocol

from recipelang.ir.verify import verify
from recipelang.passes.canonicalise import Canonicalise
from recipelang.passes.drop_dead import DropDead
from recipelang.passes.fold_constants import FoldConstants
from recipelang.passes.group_weight_operations import GroupWeightOperations
from recipelang.passes.share_common_steps import ShareCommonSteps
from recipelang.passes.share_tokenised_data import ShareTokenisedData
from recipelang.passes.state import Change, GraphState, Region, TokenSet, start

__all__ = [
    "PIPELINE",
    "Change",
    "GraphState",
    "Pass",
    "Region",
    "TokenSet",
    "run_passes",
    "start",
]


class Pass(Protocol):
    """One rewrite."""

    @property
    def name(self) -> str:
        """What ``--passes`` prints: a verb phrase, the file's name."""
        ...

    @property
    def exactness(self) -> str:
        """``exact`` or ``reassociates``."""
        ...

    def apply(self, state: GraphState) -> GraphState:
        """The rewritten state, with a change noted for each thing done."""
        ...


PIPELINE: Final[tuple[Pass, ...]] = (
    Canonicalise(),
    FoldConstants(),
    DropDead(),
    ShareCommonSteps(),
    GroupWeightOperations(),
    ShareTokenisedData(),
)


def run_passes(
    state: GraphState, *, skip: frozenset[str] = frozenset(), check: bool = False
) -> GraphState:
    """The state after every pass that is not skipped; with ``check`` the graph is verified
    between."""
    if check:
        verify(state.roots, state.program.places, lookup=state.lookup, after="lowering")
    for step in PIPELINE:
        if step.name not in skip:
            state = step.apply(state)
            if check:
                verify(state.roots, lookup=state.lookup, after=step.name)
    return state
