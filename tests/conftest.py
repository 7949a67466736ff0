"""How the suite is spread over processes: a file stays in one, so that what it has prepared serves
all its tests, but every example that is run is a piece of its own, and these come first, since
they take longest (``--dist loadgroup --no-loadscope-reorder``).
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group and order the tests."""
    for item in items:
        alone = item.get_closest_marker("long") is not None
        item.add_marker(pytest.mark.xdist_group(item.nodeid if alone else str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
