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

__all__ = ["matches", "unmatched"]


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches the tensor's name."""
    if "*" in pattern:
        return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))
    return f".{pattern}." in f".{name}."


def unmatched(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that match none of the names."""
    known = list(names)
    return [p for p in patterns if not any(matches(p, name) for name in known)]
