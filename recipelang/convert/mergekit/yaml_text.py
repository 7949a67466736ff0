"""YAML as people write mergekit's: keys in order, short lists of plain values on one line.

Example:
    >>> print(dump([{"dtype": "bfloat16", "parameters": {"t": [0, 0.5]}}]), end="")
    dtype: bfloat16
    parameters:
      t: [0, 0.5]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

__all__ = ["dump"]

WIDTH = 96


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Lists of plain values on one line; every value written out, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _list(dumper: Any, items: list[Any]) -> Any:
    flat = not any(isinstance(item, list | dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(list, _list)


def dump(documents: Sequence[object]) -> str:
    """The documents, with ``---`` between them."""
    texts = (
        yaml.dump(one, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
        for one in documents
    )
    return "---\n".join(texts)
