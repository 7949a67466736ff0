"""What the merges of task vectors share: their type rules, and a thinning for each input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recipelang.ops.merge._fields import check_weights, truthy
from recipelang.ops.spec import Cost, Fault, Typed
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernels.task_vectors import difference
from recipelang.weights.kernels.thinning import Thinning, rescaled

__all__ = ["check_spread", "elected_result", "summed_result", "thinned_cost", "thinnings"]


def elected_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0601 to E0603, E0640 to E0642."""
    return merged_type(typed)


def summed_result(typed: Typed) -> ModelType:
    """The subject's type, of a merge that divides by the sum of its weights where it normalises.

    Raises Fault E0541 for weights that cancel, E0601 to E0603, E0640 to E0642.
    """
    check_weights(typed, normalized=truthy(typed.fields.get("normalize")))
    return merged_type(typed)


def check_spread(typed: Typed) -> None:
    """Fault E0536 where probabilities from density - epsilon to density + epsilon leave (0, 1]."""
    densities, spreads = typed.fields.get("density"), typed.fields.get("epsilon")
    if not isinstance(densities, tuple) or not isinstance(spreads, tuple):
        return
    for density, spread in zip(densities, spreads, strict=True):
        if not isinstance(density, int | float) or not isinstance(spread, int | float):
            continue
        if density < 1 and not (spread < density and density + spread <= 1):
            raise Fault(
                "E0536",
                f"with density {density:g} and epsilon {spread:g}, entries would be kept with "
                f"probabilities from {density - spread:g} to {density + spread:g}",
                at="epsilon",
                help=f"take `epsilon` below {min(density, 1 - density):g}",
            )


def thinned_cost(levels: int) -> Callable[[Typed], Cost]:
    """The cost of a merge that thins a task vector after so many levels of statistics."""

    def cost(typed: Typed) -> Cost:
        """The levels of the thinning, and one for the L1 norm. A trim over the whole model looks
        at it twice for each task vector."""
        fields = typed.fields
        densities = fields.get("density")
        thinned = [d for d in densities if d != 1] if isinstance(densities, tuple) else []
        whole = fields.get("trim") == "model"
        own = (0 if whole else levels) + (fields.get("rescale") == "l1")
        return streaming_cost(
            typed,
            merged_type(typed),
            levels=own if thinned else 0,
            looks=2 * len(thinned) if whole else 0,
        )

    return cost


def thinnings(
    densities: Sequence[float], rescale: str, make: Callable[[int], Thinning]
) -> list[Thinning | None]:
    """The thinning of each input: none at density 1, and its L1 norm brought back where asked."""

    def one(index: int) -> Thinning | None:
        if densities[index] >= 1:
            return None
        made = make(index)
        return rescaled(made, difference(index)) if rescale == "l1" else made

    return [one(i) for i in range(len(densities))]
