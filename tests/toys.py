"""Toy operations with every trait that graphs, passes, keys and plans read, and graphs over them.

`lookup` is a registry of them; `compute` gives their values in exact fractions, so that two graphs
can be compared; `programs()` draws random programs.
"""

# mypy: disable-error-code="assignment"
from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction as Exact
from typing import Annotated, Literal

from hypothesis import strategies as st

from recipelang.diagnostics import Source
from recipelang.ir.graph import Graph, Node, walk
from recipelang.lineage.keys import draws_of
from recipelang.ops.spec import (
    BLOCK,
    DRAWS,
    FROM,
    HINT,
    LOCATION,
    OF,
    ON,
    OVER,
    SUBJECT,
    WITH,
    Absent,
    Cost,
    Dataset,
    Fraction,
    Model,
    Operation,
    PerInput,
    PerTensor,
    Range,
    Steps,
    Typed,
    operation,
)
from recipelang.program import Budget, Program
from recipelang.types import DatasetType, MeasuredType, ModelType, TensorInfo, TokenizerType
from recipelang.values import Form


def training_cost(typed: Typed) -> Cost:
    """2 GiB of memory, and a TFLOP a step."""
    steps = typed.fields.get("steps")
    return Cost(flops=1e12 * steps if isinstance(steps, int) else 0.0, memory_bytes=2 << 30)


@operation(kind="source", result="Model")
def source(uri: Annotated[str, SUBJECT, LOCATION, "where"], dtype: str | None = None) -> None:
    """A model."""


@operation(kind="source", result="Dataset")
def notes(uri: Annotated[str, SUBJECT, LOCATION, "where"], take: int | None = None) -> None:
    """A dataset."""


@operation(kind="data", result="Dataset")
def halve(data: Annotated[Dataset, SUBJECT, "what"], part: int = 0) -> None:
    """Half of a dataset."""


@operation(
    kind="train", result="Model", origin="model", cost=training_cost, determinism="repeatable"
)
def train(
    model: Annotated[Model, SUBJECT, "start"],
    data: Annotated[Dataset, ON, "text"],
    over: Annotated[Dataset | None, OVER, "evaluated on"] = None,
    lr: Annotated[float, Range(0), "rate"] = 0.1,
    steps: Steps = 3,
    seed: Annotated[int, DRAWS, "draws"] = 0,
    late: Annotated[bool, Absent(False), "a field of a later release"] = False,
    micro_batch: Annotated[int | None, HINT, "rows"] = None,
) -> None:
    """Train."""


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("permutation_invariant", "ignores_zero_weight"),
)
def mean(
    inputs: Annotated[list[Model], SUBJECT, WITH, "models"],
    weight: Annotated[PerInput[PerTensor[float]], "share"] = 1.0,
    density: Annotated[
        PerInput[PerTensor[Fraction]], BLOCK, Range(0, 1, open_low=True), "kept"
    ] = 0.5,
    how: Literal["plain", "fancy"] = "plain",
) -> None:
    """The weighted sum."""


@operation(kind="weights", result="Model", origin="inputs")
def chain(
    inputs: Annotated[list[Model], SUBJECT, WITH, "models"],
    base: Annotated[Model | None, FROM, "base"] = None,
    weight: Annotated[PerInput[float], "share"] = 1.0,
) -> None:
    """A merge whose order counts."""


@operation(kind="weights", result="Model", origin="model", laws=("idempotent",))
def floor(model: Annotated[Model, SUBJECT, "model"], digits: int = 0) -> None:
    """Round down."""


@operation(kind="weights", result="Model", laws=("unit_factor",))
def scale(
    model: Annotated[Model, SUBJECT, "model"], factor: Annotated[float, "factor"] = 1.0
) -> None:
    """Multiply."""


@operation(kind="weights", result="Model", origin="model")
def mask(
    model: Annotated[Model, SUBJECT, "model"], seed: Annotated[int, DRAWS, "draws"] = 0
) -> None:
    """Drop at random."""


@operation(kind="weights", result="Model", origin="model", determinism="repeatable")
def decompose(model: Annotated[Model, SUBJECT, "model"], rank: int = 1) -> None:
    """Keep singular vectors."""


@operation(kind="measure", result="Measured", direction="min")
def score(
    model: Annotated[Model, OF, "model"], data: Annotated[Dataset | None, ON, "text"] = None
) -> None:
    """A measure."""


OPERATIONS: Mapping[str, Operation] = {
    o.verb: o
    for o in (source, notes, halve, train, mean, chain, floor, scale, mask, decompose, score)
}


def lookup(verb: str) -> Operation | None:
    """The toy operation of that verb."""
    return OPERATIONS.get(verb)


def content(node: Node) -> str:
    """The content of a toy source: its place up to a `#`, so that copies are equal."""
    return str(node.attr("uri")).partition("#")[0]


def model_type(parameters: int = 1 << 20) -> ModelType:
    """A small llama with a tokenizer."""
    return ModelType(
        {"model_type": "llama"},
        {"w": TensorInfo("BF16", (parameters,))},
        TokenizerType("t" * 64, ""),
    )


TYPES = {
    "Model": model_type(),
    "Dataset": DatasetType(None, "text", 10, 128),
    "Measured": MeasuredType("min"),
}


class Maker:
    """Makes nodes of toy operations with their defaults and types."""

    def __init__(self) -> None:
        self.graph = Graph()

    def __call__(self, verb: str, *operands: Node | list[Node], **fields: object) -> Node:
        """Operands in the order of the declaration; nodes by role may stand among the fields."""
        declared = OPERATIONS[verb]
        roles: dict[str, list[Node]] = {}
        for spec, given in zip(declared.operands, operands, strict=False):
            roles[spec.name] = given if isinstance(given, list) else [given]
        for spec in declared.operands:
            if spec.name in fields:
                roles[spec.name] = [fields.pop(spec.name)]  # type: ignore[list-item]
        count = len(roles.get("inputs", ()))
        values = {
            f.name: fields.get(f.name, (f.default,) * count if f.per_input else f.default)
            for f in declared.fields
        }
        hints = {f.name: values.pop(f.name) for f in declared.fields if f.hint}
        made = self.graph.node(
            verb, declared.version, roles, values, hints, TYPES[declared.result]  # type: ignore[arg-type]
        )  # fmt: skip
        return made


def program(graph: Graph, bindings: Mapping[str, Node], **parts: object) -> Program:
    """A program whose bindings are these nodes."""
    options: dict[str, object] = {"gates": (), "publishes": (), "evaluations": (), **parts}
    return Program(
        source=Source("toy.recipe", ""), graph=graph, bindings=bindings,
        places={node: name for name, node in reversed(bindings.items())}, spans={}, seed=0,
        params={},
        **{"budget": Budget(), **options},  # type: ignore[arg-type]
    )  # fmt: skip


# ---------------------------------------------------------------- values


def compute(root: Node, draws: Mapping[Node, str | None] | None = None) -> Exact:
    """The value of a toy model: an exact number that depends on everything that counts.

    ``draws`` gives the draw key of the nodes that draw.
    """
    ids = {n: n.op for n in walk([root])}
    found: dict[Node, Exact] = {}
    for node in walk([root]):
        key = draws[node] if draws is not None else draws_of(node, ids, lookup=lookup)
        found[node] = _value(node, [found[n] for n in node.inputs], key)
    return found[root]


def _value(node: Node, inputs: list[Exact], draws: str | None) -> Exact:
    noise = Exact(int(draws[:6], 16), 1 << 20) if draws else Exact(0)
    match node.op:
        case "source" | "notes":
            return Exact(sum(content(node).encode()), 7) + Exact(len(repr(node.attrs[0])), 11)
        case "halve":
            return inputs[0] / (2 + int(str(node.attr("part"))))
        case "train":
            return inputs[0] + Exact(str(node.attr("lr"))) * inputs[1] + noise
        case "mean":
            return sum((_number(w) * x for w, x in _weighted(node, inputs)), Exact(0))
        case "chain":
            total = Exact(0)
            for w, x in _weighted(node, inputs):
                total = total * 3 + _number(w) * x
            return total + (inputs[-1] if node.role("base") else 0)
        case "floor":
            return Exact(inputs[0].numerator // inputs[0].denominator)
        case "scale":
            return inputs[0] * Exact(str(node.attr("factor")))
        case _:
            return inputs[0] * 5 + noise


def _weighted(node: Node, inputs: list[Exact]) -> list[tuple[object, Exact]]:
    weights = node.attr("weight")
    assert isinstance(weights, tuple)
    return list(zip(weights, inputs, strict=False))


def _number(value: object) -> Exact:
    """A weight; a form that varies counts by its text."""
    if isinstance(value, Form):
        numbers = {str(item) for _, item in value.args}
        return Exact(numbers.pop()) if len(numbers) == 1 else Exact(len(repr(value)), 13)
    return Exact(str(value))


# ---------------------------------------------------------------- random programs

WEIGHTS = st.sampled_from(
    [0, 0.0, 1, 0.5, 2] + [Form("gradient", (("0", a), ("1", b))) for a, b in ((0.5, 0.5), (0, 1))]
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A program of up to a dozen toy steps, of which some are targets (evaluations)."""
    make = Maker()
    models = [make("source", uri=f"m{i}") for i in range(3)]
    models.append(make("source", uri="m0#copy"))
    data = [make("notes", uri="d0"), make("notes", uri="d1")]
    data.append(make("halve", data[0]))
    for _ in range(draw(st.integers(1, 9))):
        models.append(_step(draw, make, models, data))
    targets = draw(st.lists(st.sampled_from(models), min_size=1, max_size=3, unique=True))
    bindings = {f"m{i}": node for i, node in enumerate(models)}
    bindings |= {f"d{i}": node for i, node in enumerate(data)}
    return program(make.graph, bindings, evaluations=tuple(targets))


def _step(draw: st.DrawFn, make: Maker, models: list[Node], data: list[Node]) -> Node:
    one = st.sampled_from(models)
    verb = draw(st.sampled_from(["train", "mean", "mean", "chain", "floor", "scale", "mask"]))
    match verb:
        case "train":
            fields = {"lr": draw(st.sampled_from([0.1, 0.2])), "seed": draw(st.integers(0, 1))}
            return make(verb, draw(one), draw(st.sampled_from(data)), **fields)
        case "mean" | "chain":
            inputs = draw(st.lists(one, min_size=1, max_size=4))
            shares = WEIGHTS if verb == "mean" else st.sampled_from([1, 2])
            weights = [draw(shares) for _ in inputs]
            return make(verb, inputs, weight=tuple(weights))
        case "scale":
            return make(verb, draw(one), factor=draw(st.sampled_from([1, 1.0, 2])))
        case _:
            return make(verb, draw(one))
