"""The one JSON text of a document, from which identities are hashed.

Example:
    >>> canonical_json({"b": [1, "é"], "a": None})
    b'{"a":null,"b":[1,"\\xc3\\xa9"]}'
"""

from __future__ import annotations

import json

__all__ = ["canonical_json"]


def canonical_json(document: object) -> bytes:
    """Sorted keys, no spaces, UTF-8 (RFC 8785, but for floats that are not texts already, which
    Python prints in the shortest form as the RFC asks). Raises ValueError on NaN and infinities."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
