"""Makes steps: fills fields, finds bases by origin, asks the operation's type rule, and shares
equal steps.

The builder takes constants that were checked already (:mod:`recipelang.language.fields`); it knows
no syntax. What a type rule complains of leaves it as :class:`~recipelang.ops.spec.Fault` or
:class:`~recipelang.diagnostics.RecipeError`, for the caller to add the place.

Example:
    >>> from recipelang.ops.registry import lookup
    >>> builder = Builder(seed=17)
    >>> base = builder.step(lookup("model"), {}, {"uri": "hf:a/b"})      # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recipelang.diagnostics import RecipeError, Span
from recipelang.ir.graph import Graph, Node, walk
from recipelang.ir.origin import (
    LAYERS,
    Origin,
    Range,
    ancestors,
    common_origin,
    is_open,
    itself,
)
from recipelang.ops.lifted import result_of
from recipelang.ops.registry import lookup
from recipelang.ops.spec import (
    REQUIRED,
    Fault,
    FieldSpec,
    Mark,
    OperandSpec,
    Operation,
    Typed,
)
from recipelang.types import (
    AdapterType,
    DatasetType,
    DeltaType,
    LayersType,
    MeasuredType,
    ModelType,
    ScalarType,
    SplitType,
    TableType,
    TokenizerType,
    Type,
)
from recipelang.values import Attr

__all__ = ["Builder", "inputs_role", "plain_type"]

_PLAIN: Mapping[str, Type] = {
    "Model": ModelType(), "Adapter": AdapterType(), "Delta": DeltaType(), "Layers": LayersType(),
    "Dataset": DatasetType(), "Split": SplitType(), "Tokenizer": TokenizerType("", ""),
    "Table": TableType(),
}  # fmt: skip


def plain_type(name: str, direction: str = "") -> Type:
    """The type of that name of which nothing more is known."""
    if name == "Measured":
        return MeasuredType(direction or "min")
    return _PLAIN.get(name) or ScalarType(name)


def inputs_role(operation: Operation) -> OperandSpec | None:
    """The operand that per-input fields belong to: the first that takes several, else the first."""
    many = (o for o in operation.operands if o.many and not o.metric)
    return next(many, operation.operands[0] if operation.operands else None)


@dataclass
class Builder:
    """Makes and shares the steps of one program. ``seed`` is the file's."""

    seed: int = 0
    graph: Graph = field(default_factory=Graph)
    spans: dict[Node, Span] = field(default_factory=dict[Node, Span])
    claimed: dict[Node, str] = field(default_factory=dict[Node, str])
    owners: dict[Node, str] = field(default_factory=dict[Node, str])
    inferred: dict[Node, Node] = field(default_factory=dict[Node, Node])
    """The base that was found by origin, by the step that uses it."""
    _made: dict[object, Node | Fault | RecipeError] = field(
        default_factory=dict[object, Node | Fault | RecipeError]
    )

    def step(
        self, operation: Operation, operands: Mapping[str, Sequence[Node]],
        fields: Mapping[str, Attr], span: Span | None = None, owner: str = "",
    ) -> Node:  # fmt: skip
        """The step with these operands and fields; missing fields take the operation's defaults.

        A per-input field given as a tuple runs along the inputs. Raises Fault (E0503 for a required
        field, E0604 where no common origin is found, whatever the type rule says) or RecipeError.
        """
        roles = {
            o.name: tuple(operands[o.name]) for o in operation.operands if operands.get(o.name)
        }
        inferred = self._bases(operation, roles)
        roles = {o.name: roles[o.name] for o in operation.operands if o.name in roles}
        count = len(roles.get(getattr(inputs_role(operation), "name", ""), ()))
        values = {f.name: self._value(operation, f, fields, count) for f in operation.fields}
        values |= {name: value for name, value in fields.items() if name not in values}
        key = _key(operation, roles, values)
        made = self._made.get(key)
        if made is None:
            try:
                made = self._make(operation, roles, values)
            except (Fault, RecipeError) as fault:
                made = fault
            self._made[key] = made
        if not isinstance(made, Node):
            raise made
        if span is not None:
            self.spans.setdefault(made, span)
        self.owners.setdefault(made, owner)
        if inferred is not None:
            self.inferred.setdefault(made, inferred)
        return made

    def _bases(self, operation: Operation, roles: dict[str, tuple[Node, ...]]) -> Node | None:
        """Fill the operands that are found by origin; gives the one that was found."""
        for operand in operation.operands:
            if not operand.by_origin or operand.name in roles:
                continue
            models = tuple(
                n
                for nodes in roles.values()
                for n in nodes
                if isinstance(n.type, ModelType | LayersType)
            )
            found = common_origin(models)
            if found is not None:
                base = self._step_of(found)
                roles[operand.name] = (base,)
                return base
            if operand.optional or any(is_open(node) for node in models) or _unequal(models):
                return None
            raise self._no_origin(operation, models)
        return None

    def _step_of(self, origin: Origin) -> Node:
        """The step that gives this model, or takes these layers."""
        if isinstance(origin, Node):
            return origin
        operation = lookup(LAYERS)
        assert operation is not None
        fields = {"start": origin.start, "stop": origin.stop}
        return self.step(operation, {"model": [origin.model]}, fields)

    def _no_origin(self, operation: Operation, models: Sequence[Node]) -> Fault:
        names = [self.name(node) for node in models]
        layers = any(isinstance(node.type, LayersType) for node in models)
        what = "the layers" if layers else "the model"
        notes = (
            f"`{name}` comes from {self._lineage(node)}"
            for name, node in zip(names, models, strict=True)
        )
        return Fault(
            "E0604",
            f"`{operation.verb}` needs a base, and its inputs have no common origin",
            help=f"name {what} that they were trained from: `from {(names or ['base'])[0]}`",
            notes=tuple(notes),
        )

    def _lineage(self, node: Node) -> str:
        """What a model comes from, nearest first."""
        older = [self._title(origin) for origin in ancestors(node)[1:]]
        return " -> ".join(f"`{title}`" for title in older) or "no other model"

    def _title(self, origin: Origin) -> str:
        if isinstance(origin, Range):
            return f"{self.name(origin.model)}.layers({origin.start}, {origin.stop})"
        return self.name(origin)

    def _value(
        self, operation: Operation, spec: FieldSpec, fields: Mapping[str, Attr], count: int
    ) -> Attr:
        if spec.name in fields:
            return fields[spec.name]
        if spec.draws:
            return self.seed
        default = spec.default
        if default is REQUIRED or isinstance(default, Mark):
            raise Fault(
                "E0503",
                f"`{operation.verb}` needs `{spec.name}`",
                label=f"`{spec.name}`: {spec.doc}" if spec.doc else "",
                help=_how(operation, spec),
            )
        return (default,) * count if spec.per_input else default

    def _make(
        self,
        operation: Operation,
        roles: Mapping[str, tuple[Node, ...]],
        values: Mapping[str, Attr],
    ) -> Node:
        typed = Typed(
            {role: tuple(n.type for n in nodes) for role, nodes in roles.items()},
            values,
            {role: tuple(self.name(n) for n in nodes) for role, nodes in roles.items()},
        )
        if operation.result_type is None:
            type_ = plain_type(operation.result, operation.direction)
        else:
            type_ = result_of(operation, typed)
        hints = {f.name: values[f.name] for f in operation.fields if f.hint}
        attrs = {name: value for name, value in values.items() if name not in hints}
        return self.graph.node(operation.verb, operation.version, roles, attrs, hints, type_)

    def parameter(self, name: str, type_: Type) -> Node:
        """An input of a template that is checked without a call; never part of a program."""
        return self.graph.node("parameter", 1, {}, {"name": name}, {}, type_)

    # ---------------------------------------------------------------- names

    def claim(self, node: Node, place: str) -> None:
        """Name a step; a name outside templates wins over one inside, then the first."""
        known = self.claimed.get(node)
        if known is None or place.count("/") < known.count("/"):
            self.claimed[node] = place

    def name(self, node: Node) -> str:
        """The step's name as far as it has one, else its operation; layers that have no name of
        their own as they are written."""
        known = self.claimed.get(node, "" if node.op == LAYERS else node.op)
        named = known.isidentifier() or node.op != LAYERS
        return known if named else self._title(itself(node))

    def places(self, roots: Sequence[Node]) -> dict[Node, str]:
        """A name for every step below the roots: ``notes/dataset`` for one that the recipe did not
        name."""
        named: dict[Node, str] = {}
        used: set[str] = set()
        for node in walk(roots):
            wanted = self.claimed.get(node)
            if wanted is None:
                owner = self.owners.get(node, "").rstrip("/")
                owner = owner or next((named[n] for n in node.inputs), "")
                wanted = f"{owner}/{node.op}" if owner else node.op
            text, number = wanted, 2
            while text in used:
                text, number = f"{wanted}-{number}", number + 1
            used.add(text)
            named[node] = text
        return named


def _key(
    operation: Operation, roles: Mapping[str, tuple[Node, ...]], values: Mapping[str, Attr]
) -> object:
    kinds = tuple((name, repr(value)) for name, value in values.items())
    return operation.verb, operation.version, tuple(roles.items()), kinds


def _how(operation: Operation, spec: FieldSpec) -> str:
    """How the recipe would write the field."""
    if spec.prepositions:
        words = " ".join((operation.verb, *spec.prepositions[:1])).strip()
        return f'write `{words} "..."`'
    if spec.per_input and not spec.block:
        return f"write it on each input: `x({spec.name} = ...)`"
    return f"write `{{ {spec.name} = ... }}`"


def _unequal(models: Sequence[Node]) -> bool:
    """Whether these cannot be merged whatever they come from, so that the type rule complains."""
    counts = {n.type.count if isinstance(n.type, LayersType) else "model" for n in models}
    return len(counts - {None}) > 1
