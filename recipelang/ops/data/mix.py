"""mix: several datasets as one, in stated shares.

Example:
    >>> [f.name for f in mix.fields]
    ['weight', 'examples']
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import (
    SUBJECT,
    WITH,
    Dataset,
    Examples,
    Fault,
    PerInput,
    Range,
    Typed,
    operation,
)
from recipelang.types import DatasetType

__all__ = ["mix"]


def _type(step: Typed) -> DatasetType:
    parts = [t for t in step.types.get("data", ()) if isinstance(t, DatasetType)]
    formats = {p.format for p in parts if p.format is not None}
    if len(formats) > 1:
        raise Fault(
            "E0569",
            "the datasets have different formats: " + ", ".join(sorted(formats)),
            at="data[1]",
            help="mix datasets of one format",
        )
    for i, found in enumerate(parts):
        if found.take_tokens is not None:
            raise Fault(
                "E0568",
                "a dataset cut to a number of tokens cannot be mixed: its rows are not known",
                at=f"data[{i}]",
                help="take examples instead: `take = 500 examples`",
            )
    weights, examples = step.fields.get("weight"), step.fields.get("examples")
    given = [w for w in weights if isinstance(w, int | float)] if isinstance(weights, tuple) else []
    if given and len(given) == len(parts) and sum(given) <= 0:
        raise Fault(
            "E0570",
            "the weights of a mixture are all zero",
            at="weight",
            help="a weight is the share of a dataset's rows: `mix a(weight = 2) with b`",
        )
    rows = [p.rows for p in parts]
    total = examples if isinstance(examples, int) else None
    if total is None and not given and None not in rows:
        total = sum(r or 0 for r in rows)
    lengths = {p.length for p in parts}
    columns = (
        parts[0].columns if parts and all(p.columns == parts[0].columns for p in parts) else None
    )
    return DatasetType(
        columns,
        next(iter(formats), None),
        total,
        lengths.pop() if len(lengths) == 1 else None,
        sum(p.bytes or 0 for p in parts) or None,
        None,
        any(p.template for p in parts),
    )


@operation(kind="data", result="Dataset", result_type=_type)
def mix(
    data: Annotated[list[Dataset], SUBJECT, WITH, "what to mix"],
    weight: Annotated[
        PerInput[Annotated[float, Range(0)] | None], "share of the rows; without any, all rows"
    ] = None,  # type: ignore[assignment]
    examples: Annotated[
        Examples | None, Range(1), "rows in all [as many as come without repeating any]"
    ] = None,
) -> None:
    """Mix datasets of one format, evenly interleaved in the shares of their weights.

    Without weights and `examples` it is their concatenation. Where `examples` asks for more rows
    than a dataset has, its rows come round again in order.

        mix notes(weight = 2) with manners { examples = 3k }
    """
