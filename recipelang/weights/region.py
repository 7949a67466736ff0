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
from recipelang.weights.adapter import adapter_type_of
from recipelang.weights.adapting import AdapterTensor, Change, changes_in
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.compatibility import delta_tensors, model_of
from recipelang.weights.embeddings import stored_name
from recipelang.weights.expression import Aligned, Cast, Combine, Equal, Leaf, Source
from recipelang.weights.joining import is_buffer
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
from recipelang.weights.rows import Alignment, Place
from recipelang.weights.sharing import kept, only_one, read_once
from recipelang.weights.tokenizer_files import union_files
from recipelang.weights.varying import check_patterns, resolve
from recipelang.weights.vocabulary import only_in

__all__ = [
    "Aligned",
    "Cast",
    "Combine",
    "Equal",
    "Leaf",
    "Operand",
    "Source",
    "Step",
    "inputs_of",
    "make_step",
    "source_of",
]


@dataclass(frozen=True, eq=False)
class Step:
    """One weight operation with its operands and their types by role, and all its fields. ``draws``
    holds, for each of the ``inputs`` (of an operation without, for the step), what its random draws
    are keyed by."""

    operation: Operation
    operands: Mapping[str, tuple[Operand, ...]]
    types: Mapping[str, tuple[ModelType | DeltaType | LayersType | AdapterType, ...]]
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
        return tuple(model.layers or 0 for model in self.models.values())

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
    def changes(self) -> Mapping[str, Change]:
        """Tensor -> what the step's adapter changes in it."""
        adapters = [t for types in self.types.values() for t in types
                    if isinstance(t, AdapterType)]  # fmt: skip
        model = next(iter(self.models.values()), None)
        return changes_in(adapters[0], model) if adapters and model is not None else {}

    @cached_property
    def models(self) -> Mapping[Place, ModelType]:
        """Role and index -> the type of every model operand (of a delta, that of its models)."""
        return {
            (role, i): model_of(type_)
            for role, types in self.types.items()
            for i, type_ in enumerate(types)
            if not isinstance(type_, AdapterType)
        }

    @cached_property
    def files(self) -> Mapping[str, Path | bytes]:
        """The tokenizer files: of the operand whose tokenizer the result has (an adapter's over
        the model's), else of the first model with the other models' tokens added; an adapter that
        is made has none."""
        if not self.models or is_adapter(self):
            return {}
        files = {place: self.operands[place[0]][place[1]].files for place in self.models}
        tokenizer = model_of(self.type).tokenizer
        for role, types in self.types.items():
            for i, type_ in enumerate(types):
                brought = type_.tokenizer if isinstance(type_, AdapterType) else None
                if brought is not None and brought == tokenizer:
                    return {**next(iter(files.values())), **self.operands[role][i].files}
        own = [place for place, model in self.models.items() if model.tokenizer == tokenizer]
        if own:
            of_base = self.fields.get("vocabulary") == "of-base"
            return files[next((p for p in own if of_base and p[0] == "base"), own[0])]
        first, *others = files
        mine = self.models[first].tokenizer
        assert tokenizer is not None
        assert mine is not None
        new = dict(only_in(tokenizer, mine))
        return union_files(files[first], [files[place] for place in others], new)

    @cached_property
    def stacks(self) -> Mapping[str, int]:
        """The lengths of the result's stacks of layers, by prefix."""
        return stack_lengths(self.tensors)

    @cached_property
    def alignment(self) -> Alignment:
        """How the operands' rows are put into the order of the result's tokens."""
        weights = self.fields.get("weight")
        idle = (
            {("inputs", i) for i, w in enumerate(weights) if i and w == 0}
            if isinstance(weights, tuple)
            else set[Place]()
        )
        result = self.type.base if isinstance(self.type, AdapterType) else model_of(self.type)
        return Alignment(result or ModelType(), self.models, frozenset(idle))


Operand: TypeAlias = "Checkpoint | Step"


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
    step = Step(operation, given, types, complete, result, keyed)
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
        return adapter_type_of(operand)
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
    moves = "moves_tensors" in step.operation.laws
    first, *others = _models(step)
    lacking = not all(name in other.tensors for other in others)
    buffer = is_buffer(name, info.shape)
    if name in first.tensors and not moves and buffer and (lacking or info.dtype in FLOATS):
        return _in_dtype(source_of(first, name, memo), info, allow=True)
    if info.dtype not in FLOATS and not moves:
        sources = [source_of(o, name, memo) for o in _models(step) if name in o.tensors]
        return sources[0] if len(sources) == 1 else Equal(tuple(sources), info)
    made = _call(step, name)
    if isinstance(made, Copy):
        source = _tensor(step, (made.role, made.index), made.name or name, memo)
        assert source is not None
        if made.factor != 1 and info.dtype in FLOATS and not buffer:
            kernel = _scaled(made.factor)
            return Combine(kernel, {"of": (source,)}, info, (), allow, step.operation.verb)
        return _in_dtype(source, info, allow or buffer)
    named = {(role, i): n for role, i, n in made.named} if isinstance(made, Kernel) else {}
    inputs = read_once(inputs_of(step, name, memo, named))
    law = "keeps_base" in step.operation.laws and not (isinstance(made, Kernel) and made.model)
    if law and not allow and only_one(inputs, made.unread):  # NaN - NaN is no zero
        made = kept(inputs, made.unread)
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
    kernel, inputs = _call(step, weight), inputs_of(step, weight, memo)
    assert isinstance(kernel, MatrixKernel)
    for part, factor in enumerate(step.factors[weight]):
        memo[id(step), factor] = Combine(
            kernel, inputs, step.tensors[factor], verb=step.operation.verb, part=part
        )
    return memo[id(step), name]


def inputs_of(
    step: Step, name: str, memo: Memo, named: Mapping[tuple[str, int], str] | None = None
) -> dict[str, tuple[Source | None, ...]]:
    """Role -> what gives each operand's tensor, None where it has none. ``named`` are operands of
    which another tensor is taken."""
    return {
        role: tuple(
            _tensor(step, (role, i), (named or {}).get((role, i), name), memo)
            for i in range(len(items))
        )
        for role, items in step.operands.items()
    }


def _in_dtype(source: Source, info: TensorInfo, allow: bool) -> Source:
    return source if source.info.dtype == info.dtype else Cast(source, info, allow)


def _tensor(step: Step, place: Place, name: str, memo: Memo) -> Source | None:
    """An operand's tensor, in the order of the result's tokens; None where it has none."""
    found = _plain_tensor(step, place, name, memo)
    rows = step.alignment.of(place, name)
    if found is None or rows is None:
        return found
    donors = [_plain_tensor(step, donor, name, memo) for donor, _ in rows.donors]
    sources = (found, *(source for source in donors if source is not None))
    return Aligned(sources, rows, step.alignment.aligned(found.info, name))


def _plain_tensor(step: Step, place: Place, name: str, memo: Memo) -> Source | None:
    """An operand's tensor as it is: of a tied model, the embedding for the head; of an adapter one
    of its own names."""
    model, operand = step.models.get(place), step.operands[place[0]][place[1]]
    stored = name if model is None else stored_name(model, name)
    if stored is None or stored not in operand.tensors:
        return None
    return source_of(operand, stored, memo)


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
        count = len(step.operands.get(operand.name, ()))
        infos = tuple(_info(step, (operand.name, i), name) for i in range(count))
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


def _info(step: Step, place: Place, name: str) -> object:
    """What the operation's function is told of an operand's tensor: dtype, and the shape that its
    kernel sees."""
    operand, model = step.operands[place[0]][place[1]], step.models.get(place)
    if model is None:
        return AdapterTensor(step.changes.get(name))
    info = operand.tensors.get(stored_name(model, name) or "")
    aligned = info is not None and step.alignment.of(place, name) is not None
    return step.alignment.aligned(info, name) if info and aligned else info


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
