"""One merge as the phrase of a verb: its inputs with their own parameters, its base, its block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from recipelang.convert.mergekit.methods import Parameter, Value
from recipelang.convert.mergekit.references import Reference
from recipelang.convert.mergekit.resolve import Merge, Operand
from recipelang.convert.mergekit.settings import Setting
from recipelang.convert.mergekit.varying import Reach, constant, percent, plain, written
from recipelang.language.format import WIDTH
from recipelang.values import number_text

__all__ = ["Block", "copied", "operand", "phrase", "scale_of", "sentence", "settings_of"]

DEFAULT: Final = "mergekit's default"
MOST_ROWS: Final = 2
"""More rows of a ``per`` go over several lines."""


@dataclass(frozen=True, slots=True)
class Block:
    """Fields of a block in order, each as value and comment (or an empty one)."""

    fields: Mapping[str, tuple[str, str]]

    def __str__(self) -> str:
        if not self.fields:
            return ""
        rows = (
            f"    {name} = {value}{f' # {comment}' if comment else ''}"
            for name, (value, comment) in self.fields.items()
        )
        return " {\n" + "\n".join(rows) + "\n}"


Name = Callable[[Reference], str]


def operand(one: Operand, name: Name) -> str:
    """``m`` or ``m.layers(0, 16)``."""
    text = name(one.model)
    return f"{text}.layers({one.layers[0]}, {one.layers[1]})" if one.layers else text


def phrase(
    binding: str, merge: Merge, name: Name, reach: Reach, more: Mapping[str, tuple[str, str]]
) -> str:
    """``m = ties-merge a(weight = 0.5) with b from base { … }``; ``more`` ends the block."""
    common = _common(merge)
    fields = {
        p.field: _field(p, setting, reach)
        for p in merge.method.parameters
        if (setting := {**common, **merge.shared}.get(p.name))
        and _told(p, setting)
        and not (p.idle_where and constant(merge.shared[p.idle_where]) is True)
    }
    inputs = [_input(merge, one, common, name, reach) for one in merge.inputs]
    if merge.base and merge.method.pair:
        inputs.insert(0, operand(merge.base, name))
    base = operand(merge.base, name) if merge.base and not merge.method.pair else ""
    return sentence(binding, merge.method.verb, inputs, base, Block({**fields, **more}))


def sentence(binding: str, verb: str, inputs: Sequence[str], base: str, block: Block) -> str:
    """The statement of a verb; inputs that do not fit into its line are written as a list."""
    text = f"{binding} = {verb} {inputs[0]}"
    if len(inputs) > 1:
        text += " with " + " and ".join(inputs[1:])
    origin = f" from {base}" if base else ""
    line = f"{text}{origin}{' {' if block.fields else ''}"
    crowded = len(line) > WIDTH or any(one.count('" = ') > MOST_ROWS for one in inputs)
    if len(inputs) > 1 and crowded:
        text = f"{binding} = {verb} [{', '.join(inputs)}]"
    return f"{text}{origin}{block}"


def copied(merge: Merge) -> Operand | None:
    """The model that the merge gives unchanged (but for :func:`scale_of`), or None."""
    if not merge.inputs:
        return merge.base
    alone = merge.inputs[0] if len(merge.inputs) == 1 else None
    if merge.method.name == "sce" and alone is not None:
        share = constant(merge.shared["select_topk"])  # nothing varies, so none is selected
        return alone if share == 1 else merge.base if share is not None else None
    if merge.method.name in ("linear", "karcher", "passthrough"):
        return alone
    return alone if merge.method.name == "multislerp" else None


def scale_of(merge: Merge) -> Setting | None:
    """The factor on a model that is :func:`copied`, None for 1."""
    if not merge.inputs:
        return None
    values = merge.inputs[0].values
    if merge.method.name == "passthrough":
        scale = values["scale"]
        return None if constant(scale) == 1 else scale
    normalize = merge.shared.get("normalize")
    if merge.method.name == "linear" and normalize and constant(normalize) is False:
        return None if constant(values["weight"]) == 1 else values["weight"]
    return None


def settings_of(merge: Merge) -> list[Setting]:
    """All values of the merge."""
    return [*merge.shared.values(), *(v for one in merge.inputs for v in one.values.values())]


def _common(merge: Merge) -> dict[str, Setting]:
    """The values that all inputs share and the block may hold."""
    if not merge.inputs:
        return {}
    first, *rest = (one.values for one in merge.inputs)
    return {
        p.name: first[p.name]
        for p in merge.method.parameters
        if p.per_input
        and p.in_block
        and p.name in first
        and all(values[p.name] == first[p.name] for values in rest)
    }


def _input(
    merge: Merge, one: Operand, common: Mapping[str, Setting], name: Name, reach: Reach
) -> str:
    """An input with the values that it does not share; our default too where others have theirs."""
    args = [
        f"{p.field} = {_field(p, one.values[p.name], reach)[0]}"
        for p in merge.method.parameters
        if p.name in one.values
        and p.name not in common
        and any(_told(p, each.values[p.name]) for each in merge.inputs)
    ]
    return operand(one, name) + (f"({', '.join(args)})" if args else "")


def _told(parameter: Parameter, setting: Setting) -> bool:
    """Whether the value is written: not where it is our default."""
    value = constant(setting)
    return value is None or parameter.word(value) != parameter.ours


def _field(parameter: Parameter, setting: Setting, reach: Reach) -> tuple[str, str]:
    """The value and, where mergekit's default is made explicit, a comment."""
    comment = DEFAULT if len(setting) == 1 and setting[0].span is None else ""
    show = percent if parameter.kind == "fraction" else partial(_shown, parameter)
    return written(setting, reach, show), comment


def _shown(parameter: Parameter, value: Value) -> str:
    word = parameter.word(value)
    if isinstance(word, str):
        return word
    return plain(word) if isinstance(word, bool) else number_text(word)
