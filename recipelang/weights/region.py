"""A region of weight operations: steps over checkpoints and other steps, and what each tensor
needs.

Example:
    >>> soup = make_step(lookup("linear-merge"), {"inputs": (a, b)}, {})      # doctest: +SKIP
    >>> source_of(soup, "model.norm.weight", {})                              # doctest: +SKIP
    Combine(...)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from recipelang.diagnostics import RecipeError, fault
from recipelang.ops.lifted import result_of
from recipelang.ops.spec import Fault, Operation, Typed
from recipelang.types import AdapterType, DeltaType, LayersType, ModelType, TensorInfo
from recipelang.values import Attr
from recipelang.weights.adapter import AdapterTensor, Pair, pairs
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.compatibility import delta_tensors, model_of
from recipelang.weights.kernel import (
    Array,
    Block,
    Copy,
    Inputs,
    Kernel,
    MatrixKernel,
    Results,
)
from recipelang.weights.layers import stack_lengths
from recipelang.weights.metadata import FLOATS, checkpoint_type
from recipelang.weights.peft_names import weight_of
from recipelang.weights.varying import check_patterns, resolve

__all__ = [
    "Cast",
    "Combine",
    "Equal",
    "Leaf",
    "Operand",
    "Source",
    "Step",
    "make_step",
    "source_of",
]


@dataclass(frozen=True, eq=False)
class Step:
    """One weight operation with its operands by role and all its fields. ``draws`` holds, for each
    of the ``inputs`` (of an operation without, for the step), what its random draws are keyed by.
    """

    operation: Operation
    operands: Mapping[str, tuple[Operand, ...]]
    fields: Mapping[str, Attr]
    type: ModelType | DeltaType | LayersType | AdapterType
    draws: tuple[str, ...] = ()

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table of the result."""
        if isinstance(self.type, DeltaType):
            return delta_tensors(self.type.of) or {}
        if isinstance(self.type, AdapterType):
            return self.type.tensors or {}
        return model_of(self.type).tensors or {}

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """The numbers of layers of the model operands, in order; 0 where one is not known."""
        return tuple(model_of(operand_type(operand)).layers or 0 for operand in _models(self))

    @cached_property
    def factors(self) -> Mapping[str, tuple[str, ...]]:
        """Of an adapter, each weight that it changes -> the names of its factors, A and B."""
        found: dict[str, tuple[str, ...]] = {}
        for name in sorted(self.tensors):
            weight = weight_of(name)
            found[weight] = (*found.get(weight, ()), name)
        return found

    @cached_property
    def layers(self) -> int | None:
        """The number of layers of the first model operand."""
        return next(iter(self.depths), None) or None

    @cached_property
    def config(self) -> Mapping[str, object]:
        """The configuration of the result (for a delta and for layers, of its model; PEFT's, for an
        adapter)."""
        if isinstance(self.type, AdapterType):
            return self.type.config or {}
        return model_of(self.type).config or {}

    @cached_property
    def files(self) -> Mapping[str, Path | bytes]:
        """The first model operand's tokenizer files; an adapter has none."""
        for operands in () if is_adapter(self) else self.operands.values():
            for operand in operands:
                if not is_adapter(operand):
                    return operand.files
        return {}

    @cached_property
    def stacks(self) -> Mapping[str, int]:
        """The lengths of the result's stacks of layers, by prefix."""
        return stack_lengths(self.tensors)


Operand: TypeAlias = "Checkpoint | Step"


@dataclass(frozen=True, eq=False)
class Leaf:
    """A stored tensor."""

    checkpoint: Checkpoint
    name: str
    info: TensorInfo


@dataclass(frozen=True, eq=False)
class Cast:
    """A tensor rounded to another dtype."""

    source: Source
    info: TensorInfo
    allow: bool


@dataclass(frozen=True, eq=False)
class Equal:
    """A tensor that is no floating-point one and must be the same in all sources."""

    sources: tuple[Source, ...]
    info: TensorInfo


@dataclass(frozen=True, eq=False)
class Combine:
    """A kernel over operand tensors of one shape, None where an operand has no such tensor.
    ``whole`` are the tensors that it sees whole. ``allow`` lets infinities and NaN through.
    ``name`` is the tensor's of ``step``; ``part`` says which of a matrix kernel's results it is.
    """

    kernel: Kernel | MatrixKernel
    inputs: Mapping[str, tuple[Source | None, ...]]
    info: TensorInfo
    whole: tuple[Leaf, ...] = ()
    allow: bool = False
    verb: str = ""
    step: Step | None = None
    name: str = ""
    part: int = 0

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The operand tensors that are read, in order."""
        return tuple(
            source for role, items in self.inputs.items() for i, source in enumerate(items)
            if source is not None and (role, i) not in self.kernel.unread
        )  # fmt: skip


Source: TypeAlias = "Leaf | Cast | Equal | Combine"
Memo: TypeAlias = "dict[tuple[int, str], Source]"


def make_step(
    operation: Operation, operands: Mapping[str, Sequence[Operand]], fields: Mapping[str, Attr],
    draws: Sequence[str] = (),
) -> Step:  # fmt: skip
    """A step whose result type comes from the operands as they are now.

    ``draws`` are the keys of the inputs' draws, their positions where it is empty. ``fields`` may
    leave out what has a default; a per-input field may be one value for all inputs.
    Raises RecipeError with the operation's own complaint (band E05 or E06).
    """
    given = {role: tuple(items) for role, items in operands.items() if items}
    complete = _complete(operation, given, fields)
    types = {role: tuple(operand_type(item) for item in items) for role, items in given.items()}
    try:
        result = result_of(operation, Typed(types, complete))
    except Fault as complaint:
        raise fault(complaint.code, complaint.message, help=complaint.help) from None
    assert isinstance(result, ModelType | DeltaType | LayersType | AdapterType)
    count = len(given["inputs"]) if "inputs" in given else 1
    keyed = tuple(draws) or tuple(str(i) for i in range(count))
    step = Step(operation, given, complete, result, keyed)
    for name, value in complete.items():
        bad = check_patterns(value, step.tensors)
        if bad is not None:
            raise fault("E0543", f'no tensor matches the pattern "{bad}" of `{name}`')
    return step


def operand_type(operand: Operand) -> ModelType | DeltaType | LayersType | AdapterType:
    """The type of an operand."""
    if isinstance(operand, Step):
        return operand.type
    if is_adapter(operand):
        return AdapterType(operand.config, operand.tensors)
    return checkpoint_type(operand)


def is_adapter(operand: Operand) -> bool:
    """Whether it is a low-rank adapter."""
    return "peft_type" in operand.config


def source_of(operand: Operand, name: str, memo: Memo) -> Source:
    """What gives the tensor ``name`` of an operand. ``memo`` makes shared parts one object."""
    key = (id(operand), name)
    found = memo.get(key)
    if found is None:
        found = memo[key] = (
            _of_step(operand, name, memo) if isinstance(operand, Step)
            else Leaf(operand, name, operand.tensors[name])
        )  # fmt: skip
    return found


def _of_step(step: Step, name: str, memo: Memo) -> Source:
    if is_adapter(step):
        return _factor(step, name, memo)
    info = step.tensors[name]
    allow = step.fields.get("nonfinite") == "allow"
    if info.dtype not in FLOATS and "moves_tensors" not in step.operation.laws:
        sources = [source_of(o, name, memo) for o in _models(step) if name in o.tensors]
        return sources[0] if len(sources) == 1 else Equal(tuple(sources), info)
    made = _call(step, name)
    if isinstance(made, Copy):
        source = source_of(step.operands[made.role][made.index], made.name or name, memo)
        if made.factor != 1 and info.dtype in FLOATS:
            kernel = _scaled(made.factor)
            return Combine(kernel, {"of": (source,)}, info, (), allow, step.operation.verb)
        return source if source.info.dtype == info.dtype else Cast(source, info, allow)
    inputs = _inputs(step, name, memo)
    whole: list[Leaf] = []
    for role, index, tensor in made.whole if isinstance(made, Kernel) else ():
        leaf = source_of(step.operands[role][index], tensor, memo)
        assert isinstance(leaf, Leaf)
        whole.append(leaf)
    return Combine(made, inputs, info, tuple(whole), allow, step.operation.verb, step, name)


def _scaled(factor: float) -> Kernel:
    """A tensor times a number; times 0 it is not read."""

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        return blocks["of"][0] * factor

    return Kernel(combine, unread=frozenset() if factor else frozenset({("of", 0)}))


def _factor(step: Step, name: str, memo: Memo) -> Source:
    """A factor of an adapter's weight. Both come from one kernel, so that it is prepared once."""
    weight = weight_of(name)
    kernel, inputs = _call(step, weight), _inputs(step, weight, memo)
    assert isinstance(kernel, MatrixKernel)
    for part, factor in enumerate(step.factors[weight]):
        memo[id(step), factor] = Combine(
            kernel, inputs, step.tensors[factor], verb=step.operation.verb, part=part
        )
    return memo[id(step), name]


def _inputs(step: Step, name: str, memo: Memo) -> dict[str, tuple[Source | None, ...]]:
    """Role -> what gives each operand's tensor, None where it has none."""
    return {
        role: tuple(
            source_of(o, name, memo) if not is_adapter(o) and name in o.tensors else None
            for o in items
        )
        for role, items in step.operands.items()
    }


def _models(step: Step) -> list[Operand]:
    return [o for items in step.operands.values() for o in items if not is_adapter(o)]


def _call(step: Step, name: str) -> Kernel | MatrixKernel | Copy:
    """The operation's function, with its fields resolved for this tensor."""
    operation = step.operation
    arguments: dict[str, Any] = {}
    for field_ in operation.fields:
        value = step.fields[field_.name]
        if field_.per_tensor:
            value = resolve(
                value, name, stacks=step.stacks, default=_default(operation, field_.name)
            )
        arguments[field_.name] = value
    for operand in operation.operands:
        infos = tuple(_info(o, name) for o in step.operands.get(operand.name, ()))
        arguments[operand.name] = infos if operand.many else (infos[0] if infos else None)
    parameters = inspect.signature(operation.function).parameters
    accepts_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known: dict[str, Any] = {
        "tensor": name, "depth": step.layers, "depths": step.depths, "draws": step.draws,
        "result": step.type,
    }  # fmt: skip
    arguments |= {word: value for word, value in known.items() if word in parameters}
    made = operation.function(
        **{k: v for k, v in arguments.items() if accepts_all or k in parameters}
    )
    assert isinstance(made, Kernel | MatrixKernel | Copy)
    return made


def _info(operand: Operand, name: str) -> object:
    if isinstance(operand, Step) or not is_adapter(operand):
        return operand.tensors.get(name)
    return AdapterTensor(adapter_pairs(operand).get(name))


def adapter_pairs(adapter: Checkpoint) -> dict[str, Pair]:
    """Weight name -> pair of an adapter's checkpoint."""
    return pairs(adapter.config, adapter.tensors)


def _default(operation: Operation, name: str) -> Attr:
    found = operation.field(name)
    return None if found is None or found.required else found.default  # type: ignore[return-value]


def _complete(
    operation: Operation, operands: Mapping[str, tuple[Operand, ...]], fields: Mapping[str, Attr]
) -> dict[str, Attr]:
    complete: dict[str, Attr] = {}
    for spec in operation.fields:
        if spec.name not in fields and spec.required:
            raise _missing(operation, spec.name)
        value = fields[spec.name] if spec.name in fields else _default(operation, spec.name)
        if spec.per_input and not isinstance(value, tuple):
            value = (value,) * len(next((v for r, v in operands.items() if r == "inputs"), ()))
        complete[spec.name] = value
    return complete


def _missing(operation: Operation, name: str) -> RecipeError:
    return fault("E0901", f"`{operation.verb}` was run without its field `{name}`")
