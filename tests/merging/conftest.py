"""Models that several files start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.merging.projects import (
    arrays_of,
    tuned,
    write_model,
)


@pytest.fixture
def base(tmp_path: Path) -> dict[str, Any]:
    """The tensors of ``base``, of which ``a`` and ``b`` are fine-tunes, all three in folders."""
    arrays = arrays_of(0)
    write_model(tmp_path / "base", arrays)
    for seed, name in ((1, "a"), (2, "b")):
        write_model(tmp_path / name, tuned(arrays, seed))
    return arrays
