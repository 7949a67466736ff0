"""The learning rate of every step: exact tables, the same for both backends.

With t the 0-based step, T the number of steps, W those of the warm-up and μ = ``final``:
warm-up (t + 1) / W; then with p = (t − W) / (T − W)
``constant`` 1; ``linear`` μ + (1 − μ)(1 − p); ``cosine`` μ + (1 − μ) ½ (1 + cos π p);
``wsd`` 1 until the last D steps, then μ + (1 − μ)(T − t) / D.

The first step is never lost to a rate of zero, as it is where the warm-up is t / W.

Example:
    >>> linear = Form("linear", (("warmup", Quantity(2, "steps")),))
    >>> [round(rate, 2) for rate in learning_rates(linear, 1.0, 6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
"""

from __future__ import annotations

from math import ceil, cos, pi

from recipelang.ops.spec import form_spec
from recipelang.ops.train import _fields
from recipelang.values import Attr, Form, Quantity

__all__ = ["learning_rates", "settings"]


def settings(form: Form) -> dict[str, Attr]:
    """The arguments of a schedule, optimiser or adapter, defaults filled in."""
    function = getattr(_fields, form.name.replace("-", "_"))
    defaults = {field.name: field.default for field in form_spec(function).fields}
    return {**defaults, **dict(form.args)}  # type: ignore[dict-item]


def _length(value: Attr, steps: int) -> int:
    """A part of the training in steps: a share is rounded up."""
    if isinstance(value, Quantity):
        return int(value.value) if value.unit == "steps" else ceil(round(value.value * steps, 9))
    assert isinstance(value, int | float)
    return ceil(round(value * steps, 9)) if value < 1 else int(value)


def learning_rates(schedule: Form, peak: float, steps: int) -> tuple[float, ...]:
    """The rate of each of ``steps`` steps; see the module."""
    given = settings(schedule)
    warmup = min(_length(given["warmup"], steps), steps)
    decay = max(1, _length(given.get("decay", 0), steps))
    final = given.get("final", 0.0)
    assert isinstance(final, int | float)

    def factor(t: int) -> float:
        if t < warmup:
            return (t + 1) / warmup
        p = (t - warmup) / (steps - warmup)
        match schedule.name:
            case "linear":
                shape = 1 - p
            case "cosine":
                shape = 0.5 * (1 + cos(pi * p))
            case "wsd":
                shape = min(1.0, (steps - t) / decay)
            case _:
                return 1.0
        return final + (1 - final) * shape

    return tuple(peak * factor(t) for t in range(steps))
