"""Bytes and seconds in the form plans print.

Example:
    >>> bytes_text(3 * 2**30), seconds_text(90)
    ('3 GiB', '1.5 min')
"""

from __future__ import annotations

__all__ = ["bytes_text", "seconds_text"]


def bytes_text(count: float) -> str:
    """A size with at most three digits: ``227 MiB``, ``1.5 GiB``."""
    for scale, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= scale:
            return f"{_short(count / scale)} {name}"
    return f"{count:.0f} B"


def seconds_text(seconds: float) -> str:
    """A duration: ``8 s``, ``14 min``, ``2.1 h``."""
    if seconds < 1:
        return "< 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{_short(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{_short(seconds / 3600)} h"
    return f"{_short(seconds / 86400)} d"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
