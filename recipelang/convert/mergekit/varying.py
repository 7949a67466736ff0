"""Settings as recipes write them: a number, ``gradient(…)`` or ``per { … }``.

mergekit gives tensors outside the layers (embeddings, last norm, head) a gradient's first value,
recipes give those behind the layers its last; where that matters both are written out.

Example:
    >>> ramp = (Entry(None, (0, 0.5, 1)),)
    >>> written(ramp, Reach())
    'per { "*.layers.*" = gradient(0, 0.5, 1), "*" = 0 }'
    >>> written(ramp, Reach(last=False))
    'gradient(0, 0.5, 1)'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from recipelang.convert.mergekit.methods import Value
from recipelang.convert.mergekit.settings import Entry, Setting
from recipelang.language.patterns import matches
from recipelang.values import number_text
from recipelang.weights.layers import layer_of, stack_of

__all__ = ["Reach", "constant", "percent", "plain", "splits", "written"]

OUTSIDE: Final = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
TYPICAL: Final = OUTSIDE + tuple(
    f"model.layers.0.{name}"
    for name in (
        "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
        "self_attn.o_proj.weight", "self_attn.q_proj.bias", "self_attn.q_norm.weight",
        "self_attn.k_norm.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight",
        "mlp.down_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight",
    )
)  # fmt: skip
"""What most decoders call their tensors, for models that are not on this machine. They say only
which form of a value is written: one that names a tensor that a model has not is an error when the
recipe is checked."""
LAYERED: Final = "*.layers.*"


@dataclass(frozen=True, slots=True)
class Reach:
    """The layers that a value is for: whether they are several, and whether they are the first and
    the last of the model, which the tensors outside the layers go with. ``names`` are the model's
    tensors, empty where they are not known."""

    several: bool = True
    first: bool = True
    last: bool = True
    names: tuple[str, ...] = ()


def plain(value: Value) -> str:
    """A number or a truth value."""
    return ("true" if value else "false") if isinstance(value, bool) else number_text(value)


def percent(value: Value) -> str:
    """A share in percent, with all the digits that give it back.

    >>> percent(0.5), percent(0.333), percent(1), percent(0.9226063090384548)
    ('50%', '33.3%', '100%', '92.26063090384548%')
    """
    return format((Decimal(repr(value)) * 100).normalize(), "f") + "%"


def constant(setting: Setting) -> Value | None:
    """The one value that a setting has for all tensors, or None."""
    points = {point for entry in setting for point in entry.points}
    return points.pop() if len(points) == 1 else None


def splits(setting: Setting, reach: Reach) -> bool:
    """Whether a gradient of the setting is written apart from the tensors outside the layers."""
    return any(len(_rows(entry, setting[:i], reach)) > 1 for i, entry in enumerate(setting))


def written(setting: Setting, reach: Reach, show: Callable[[Value], str] = plain) -> str:
    """The value of a field. ``show`` writes one number."""
    single = constant(setting)
    if single is not None:
        return show(single)
    rows: dict[str, tuple[Value, ...]] = {}
    for place, entry in enumerate(setting):
        if _is_idle(entry, setting[:place], reach):
            continue
        for pattern, points in _rows(entry, setting[:place], reach):
            rows.setdefault(pattern, points)
    if list(rows) == ["*"]:
        return _points(rows["*"], show)
    inner = ", ".join(f'"{pattern}" = {_points(points, show)}' for pattern, points in rows.items())
    return f"per {{ {inner} }}"


def _points(points: tuple[Value, ...], show: Callable[[Value], str]) -> str:
    if len(set(points)) == 1:
        return show(points[0])
    return f"gradient({', '.join(show(point) for point in points)})"


def _rows(entry: Entry, before: Setting, reach: Reach) -> list[tuple[str, tuple[Value, ...]]]:
    """The rows of ``per`` that an entry becomes, by pattern."""
    inside = entry.points if reach.several else entry.points[-1:]
    outside = entry.points[:1]
    matters = reach.last or (reach.first and not reach.several)
    if not matters or len(set(entry.points)) == 1 or inside[-1] == outside[0]:
        return [(_pattern(entry), inside)]
    names = reach.names or TYPICAL
    mine = _left(entry, before, names)
    layered = [name for name in mine if layer_of(name) is not None]
    if len(layered) == len(mine):
        return [(_pattern(entry), inside)]
    if not layered:
        return [(_pattern(entry), outside)]
    globs = _layered(entry.filter, layered, names)
    return [*((glob, inside) for glob in globs), (_pattern(entry), outside)]


def _layered(filter: str | None, mine: Sequence[str], names: Sequence[str]) -> list[str]:
    """The globs for ``mine`` of the tensors: those in layers whose names hold the filter, in the
    name of their stack or behind it.

    >>> names = ["h.0.mlp.weight"], ["encoder.block.0.wi.weight", "decoder.block.0.wi.weight"]
    >>> _layered(None, names[0], names[0]), _layered("wi", names[1], names[1])
    (['h.*'], ['*.block.*wi*'])
    >>> _layered("enc", names[1][:1], names[1])
    ['encoder.block.*']
    """
    stacks = {stack for name in names if (stack := stack_of(name))}
    found: list[str] = []
    for stack in dict.fromkeys(stack_of(name) or "" for name in mine):
        own = stack.rpartition(".")[2]
        behind = filter is not None and filter not in f"{stack}."
        alike = sum(other.rpartition(".")[2] == own for other in stacks)
        whole = own == stack or (filter is not None and not behind and alike > 1)
        layers = f"{stack}.*" if whole else f"*.{own}.*"
        found.append(f"{layers}{filter}*" if behind else layers)
    return list(dict.fromkeys(found))


def _left(entry: Entry, before: Setting, names: Sequence[str]) -> list[str]:
    """The tensors that the entry is for: its pattern matches, and that of no earlier one."""
    pattern, taken = _pattern(entry), [_pattern(e) for e in before]
    return [
        name for name in names
        if matches(pattern, name) and not any(matches(other, name) for other in taken)
    ]  # fmt: skip


def _is_idle(entry: Entry, before: Setting, reach: Reach) -> bool:
    """Whether no known tensor is left to an entry that nobody wrote for just these: one for the
    rest, of a wider scope, or of a scope that all modules share."""
    if _left(entry, before, reach.names):
        return False
    if any(each.module for each in (entry, *before)):
        return bool(reach.names)
    return (entry.wider or entry.filter is None) and bool(_left(entry, (), reach.names))


def _pattern(entry: Entry) -> str:
    """The glob of a filter, which is a part of a tensor's name; a module is a whole component."""
    if not entry.module:
        return "*" if entry.filter is None else f"*{entry.filter}*"
    if entry.filter is None or entry.filter in entry.module:
        return entry.module
    return f"*{entry.module}.*{entry.filter}*"
