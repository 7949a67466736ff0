"""The table of methods says what mergekit 0.1.5 says of itself.

``mergekit-0.1.5.json`` holds what its registry declares: base, numbers of models, and each
parameter's scope and default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipelang.convert.mergekit.methods import METHODS, by_verb

DECLARED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "mergekit-0.1.5.json").read_text("utf-8")
)
COPIED = {"scale": 1.0}
"""Defaults that are none there and mean a number: `passthrough` without a scale copies."""


def test_methods() -> None:
    """All of them, and no others; each verb is one method's."""
    assert sorted(METHODS) == sorted(DECLARED)
    assert all(by_verb(method.verb) is method for method in METHODS.values())


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_models(name: str) -> None:
    """Whether there is a base, and how many models besides it."""
    method, declared = METHODS[name], DECLARED[name]
    assert method.base == declared["base"]
    fewest, most = declared["inputs"]
    with_base = method.base == "required"
    if declared["besides_the_base"][0] is not None:
        (fewest, most), with_base = declared["besides_the_base"], False
    assert method.fewest + with_base == fewest
    assert (None if method.most is None else method.most + with_base) == most


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_parameters(name: str) -> None:
    """Names, whose they are, and defaults."""
    found = {p.name: p for p in METHODS[name].parameters}
    declared = DECLARED[name]["parameters"]
    assert sorted(found) == sorted(declared)
    for parameter, (scope, default) in declared.items():
        assert found[parameter].per_input == (scope != "shared"), parameter
        wanted = COPIED.get(parameter) if default is None else default
        assert found[parameter].default == (None if default == "required" else wanted), parameter
