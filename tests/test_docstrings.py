"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import recipelang

MODULES = [
    module.name
    for module in pkgutil.walk_packages(recipelang.__path__, "recipelang.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    """What a docstring shows after ``>>>`` is what Python answers."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_most_modules_show_something() -> None:
    """The examples are found."""
    finder = doctest.DocTestFinder()
    shown = sum(bool(t.examples) for m in MODULES for t in finder.find(importlib.import_module(m)))
    assert shown > len(MODULES) / 4
