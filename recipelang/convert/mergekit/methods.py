"""mergekit's merge methods (0.1.5) beside our verbs: parameters, defaults, numbers of models.

One table serves both directions. A parameter that changes nothing in mergekit has no field here.

Example:
    >>> METHODS["della"].verb, METHODS["della"].parameter("lambda").field
    ('della-ties-merge', 'scale')
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from recipelang.ops.marks import Range

__all__ = ["METHODS", "Method", "Parameter", "Value", "by_verb"]

Value = bool | int | float
Base = Literal["required", "optional", "ignored"]
Kind = Literal["number", "fraction", "whole", "bool"]
ANY: Final = Range()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a method.

    ``name`` is mergekit's, ``field`` ours (empty: it changes nothing in mergekit either, or, with
    ``only_default``, there is no other value here). ``default`` is mergekit's (None: required),
    ``ours`` is our field's. ``words`` maps values to the members of an enumeration. ``varies``:
    our field takes ``gradient`` and ``per``. ``range`` is what our field takes.
    """

    name: str
    field: str
    kind: Kind = "number"
    default: Value | None = None
    ours: Value | str | None = None
    per_input: bool = False
    varies: bool = True
    range: Range = ANY
    words: tuple[tuple[Value, str], ...] = ()
    idle_where: str = ""
    """A parameter of truth values: where it is true, this one changes nothing."""
    only_default: str = ""
    """What holds in a recipe instead of this bound, which may be mergekit's default or lower; empty
    where a recipe has a field."""

    @property
    def in_block(self) -> bool:
        """Whether the field may stand in the block; a weight stands on its input only."""
        return self.field != "weight"

    def word(self, value: Value) -> Value | str:
        """The value as our field has it."""
        return next((word for known, word in self.words if known is value), value)


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method. ``fewest`` and ``most`` count its models besides a base that it uses.

    ``pair``: the first of its two models is mergekit's base. ``differs`` says what recipelang
    defines otherwise (empty: nothing above rounding).
    """

    name: str
    verb: str
    base: Base
    parameters: tuple[Parameter, ...] = ()
    fewest: int = 0
    most: int | None = None
    pair: bool = False
    differs: str = ""

    def parameter(self, name: str) -> Parameter | None:
        """The parameter that mergekit calls so."""
        return next((p for p in self.parameters if p.name == name), None)

    def field(self, name: str) -> Parameter | None:
        """The parameter whose field we call so."""
        return next((p for p in self.parameters if p.field == name), None)


SHARE = Range(0, 1, open_low=True)
BELOW_ONE = Range(0, 1, open_high=True)
POSITIVE = Range(0)
SPREAD = Range(0, 0.5, open_high=True)
RESCALES = ((False, "none"), (True, "l1"))

WEIGHT = Parameter("weight", "weight", ours=1.0, per_input=True)
DENSITY = Parameter("density", "density", "fraction", 1.0, 0.5, per_input=True, range=SHARE)
GAMMA = Parameter("gamma", "gamma", "fraction", 0.01, 0.01, per_input=True, range=BELOW_ONE)
EPSILON = Parameter("epsilon", "epsilon", default=0.15, ours=0.15, per_input=True, range=SPREAD)
LAMBDA = Parameter("lambda", "scale", default=1.0, ours=1.0)
MASK = Parameter("int8_mask", "", "bool", False)


def _normalize(default: bool, name: str = "normalize") -> Parameter:
    """mergekit and the papers agree on this default."""
    return Parameter(name, "normalize", "bool", default, default, varies=False)


def _rescale(default: bool, ours: str) -> Parameter:
    return Parameter(
        "rescale", "rescale", "bool", default, ours, varies=False, words=RESCALES
    )  # fmt: skip


def _sparse(*own: Parameter, normalize: bool, rescale: bool, ours: str) -> tuple[Parameter, ...]:
    """The parameters of the methods that drop entries of task vectors."""
    rest = (LAMBDA, _normalize(normalize), _rescale(rescale, ours), MASK)
    return (WEIGHT, DENSITY, *own, *rest)


CHORD: Final = "the chord replaces the arc between opposite tensors, not above cosine 0.9995"
STORED: Final = "task vectors are float32, not rounded to the stored dtype"
LOWEST: Final = "of equal magnitudes at the threshold the lowest index is kept"
DRAWN: Final = "masks are drawn by seed, model, tensor and element, and are equal on every machine"
TRIG: Final = "angles and norms are summed in float64, not in the stored dtype"

METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method("linear", "linear-merge", "ignored", (WEIGHT, _normalize(True)), 1),
        Method(
            "slerp", "slerp-merge", "required",
            (Parameter("t", "t", range=Range(0, 1)),), 1, 1, pair=True,
            differs=CHORD,
        ),
        Method(
            "nuslerp", "nuslerp-merge", "optional",
            (
                WEIGHT,
                Parameter("nuslerp_row_wise", "row_wise", "bool", False, False,
                          idle_where="nuslerp_flatten"),
                Parameter("nuslerp_flatten", "flatten", "bool", True, True),
            ), 2, 2, differs=TRIG,
        ),
        Method(
            "multislerp", "multislerp-merge", "optional",
            (
                WEIGHT,
                _normalize(True, "normalize_weights"),
                Parameter("eps", "", default=1e-8, only_default="its bound is relative here"),
            ), 1, differs=TRIG,
        ),
        Method(
            "karcher", "karcher-merge", "ignored",
            (
                Parameter("max_iter", "iterations", "whole", 10, 10, varies=False,
                          range=Range(1, None)),
                Parameter("tol", "", default=1e-5,
                          only_default="its steps end below mergekit's default"),
            ), 1, differs=TRIG,
        ),
        Method(
            "passthrough", "stack", "ignored",
            (Parameter("scale", "scale", default=1.0, ours=1.0, per_input=True),), 1, 1,
        ),
        Method(
            "task_arithmetic", "task-arithmetic-merge", "required",
            (
                WEIGHT, LAMBDA, _normalize(False), MASK,
                Parameter("density", "", default=1.0, per_input=True),
                Parameter("rescale", "", "bool", False),
            ), differs=STORED,
        ),
        Method("ties", "ties-merge", "required",
               _sparse(normalize=True, rescale=False, ours="none"), differs=f"{LOWEST}; {STORED}"),
        Method("dare_linear", "dare-merge", "required",
               _sparse(normalize=False, rescale=True, ours="inverse"),
               differs=f"{DRAWN}; {STORED}"),
        Method("dare_ties", "dare-ties-merge", "required",
               _sparse(normalize=False, rescale=True, ours="inverse"),
               differs=f"{DRAWN}; {STORED}"),
        Method("breadcrumbs", "breadcrumbs-merge", "required",
               _sparse(GAMMA, normalize=False, rescale=False, ours="none"),
               differs=f"{LOWEST}; {STORED}"),
        Method("breadcrumbs_ties", "breadcrumbs-ties-merge", "required",
               _sparse(GAMMA, normalize=False, rescale=False, ours="none"),
               differs=f"{LOWEST}; {STORED}"),
        Method("della_linear", "della-merge", "required",
               _sparse(EPSILON, normalize=False, rescale=True, ours="inverse"),
               differs=f"{DRAWN}; {STORED}"),
        Method("della", "della-ties-merge", "required",
               _sparse(EPSILON, normalize=True, rescale=True, ours="inverse"),
               differs=f"{DRAWN}; {STORED}"),
        Method(
            "sce", "sce-merge", "required",
            (Parameter("select_topk", "select", "fraction", 1.0, 1.0, range=SHARE), MASK),
            differs=f"coefficients are relative, without a bound of 1e-6 on them; {STORED}",
        ),
        Method(
            "model_stock", "model-stock-merge", "required",
            (Parameter("filter_wise", "by_row", "bool", False, False),), 2,
            differs="angles are relative, without a bound of 1e-6 on products of norms",
        ),
        Method("nearswap", "nearswap-merge", "required", (Parameter("t", "t", range=POSITIVE),),
               1, 1, pair=True),
        Method("arcee_fusion", "fusion-merge", "required", (), 1, 1, pair=True,
               differs="quantiles are exact, not of a random sample"),
        Method("ram", "ram-merge", "required",
               (Parameter("epsilon", "epsilon", default=1e-5, ours=1e-5, range=POSITIVE),),
               differs=STORED),
        Method(
            "ramplus_tl", "ramplus-merge", "required",
            (
                Parameter("r", "r", default=0.1, ours=0.1, range=POSITIVE),
                Parameter("alpha", "alpha", default=0.2, ours=0.2, range=POSITIVE),
                Parameter("epsilon", "epsilon", default=1e-5, ours=1e-5, range=POSITIVE),
            ), differs=STORED,
        ),
    )
}  # fmt: skip
"""Every method that mergekit 0.1.5 registers, by its name."""


def by_verb(verb: str) -> Method | None:
    """The method that a verb is called in mergekit, or None."""
    return next((m for m in METHODS.values() if m.verb == verb), None)
