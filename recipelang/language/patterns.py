"""Patterns over tensor names.

A pattern without ``*`` matches whole dotted components; one with ``*`` is a glob over the full
name.

Example:
    >>> matches("self_attn", "model.layers.3.self_attn.q_proj.weight")
    True
    >>> matches("attn", "model.layers.3.self_attn.q_proj.weight")
    False
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

__all__ = ["hidden", "matches", "unmatched"]


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches the tensor's name."""
    if "*" in pattern:
        return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))
    return f".{pattern}." in f".{name}."


def unmatched(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that match none of the names."""
    known = list(names)
    return [p for p in patterns if not any(matches(p, name) for name in known)]


def hidden(patterns: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """The patterns of which every match is taken by earlier ones, each with the first of those."""
    left = list(names)
    taken: dict[str, str] = {}
    found: dict[str, str] = {}
    for pattern in patterns:
        mine = [name for name in left if matches(pattern, name)]
        if mine:
            left = [name for name in left if name not in mine]
            taken |= dict.fromkeys(mine, pattern)
        elif first := next((by for name, by in taken.items() if matches(pattern, name)), None):
            found[pattern] = first
    return found
