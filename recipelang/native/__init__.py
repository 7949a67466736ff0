"""The compiled part: a small C library beside the Python that does the same.

Built when the package is installed where a C compiler is found (``hatch_build.py``). Everything
works without it, with the same bits and more slowly. ``RECIPELANG_NATIVE=0`` leaves it aside.

Example:
    >>> found = library()
    >>> found is None or found.strip_operations().startswith(b"load store ")
    True
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

__all__ = ["library"]

FILE = Path(__file__).with_name("native.lib")
VERSION = 3
"""What ``version.c`` says: raised with every change of an interface or of results, so that a
library which an older checkout built is left aside."""


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None where it was not built, is from another version, or is not wanted."""
    if os.environ.get("RECIPELANG_NATIVE") == "0":
        return None
    if sys.byteorder != "little" or sys.maxsize < 1 << 32:  # addresses are packed in eight bytes
        return None
    pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    try:
        found = ctypes.CDLL(str(FILE))
        if found.native_version() != VERSION:
            return None
        found.strip_operations.restype = ctypes.c_char_p
        found.strip_scratch_bytes.restype = number
        found.strip_scratch_bytes.argtypes = (count, count)
        found.run_strips.restype = None
        found.run_strips.argtypes = (
            pointer, count, count, count, pointer, pointer, pointer, pointer, number, number,
            number, pointer,
        )  # fmt: skip
        found.rank_rows.restype = None
        found.rank_rows.argtypes = (pointer, number, number, ctypes.c_float, pointer, pointer)
        for product in (found.f4_product, found.f8_product):
            product.restype = None
            product.argtypes = (pointer, pointer, number, number, number, pointer)
        found.digest_lanes_pay.restype = count
        found.digest_space_bytes.restype = number
        found.digest_ranges.restype = count
        found.digest_ranges.argtypes = (
            number, pointer, pointer, pointer, pointer, number, pointer, pointer,
        )  # fmt: skip
    except (OSError, AttributeError):
        return None
    return found
