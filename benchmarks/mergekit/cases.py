"""The cases of the comparison with mergekit: a configuration of mergekit's beside the recipe that
means the same, from tests/merging/cases/*.toml.

Standard library only, for both Pythons read it. The keys of a case:

- ``method``: mergekit's name of the method; ``shows``: what about it the case is for;
- ``mergekit``: the YAML, several documents for mergekit-multi;
- ``recipe``: a value that gives the same, over bindings named as the models are; left out where
  none does;
- ``compat``: the recipe needs `compat = mergekit` for that;
- ``plain``: what one would write and means something else [the recipe without compat];
- ``refused``: the code of the error that ``plain`` is;
- ``differs``: names of the definitions that ``plain`` differs by;
- ``masks``: it draws masks, so that results are equal only given equal masks;
  ``probabilities``: record what mergekit drew them with.

Example:
    >>> load_cases()[0].method
    'linear'
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "load_cases"]

FOLDER = Path(__file__).parents[2] / "tests" / "merging" / "cases"


@dataclass(frozen=True)
class Case:
    """One configuration in both languages."""

    name: str
    method: str
    shows: str
    mergekit: str
    recipe: str = ""
    compat: bool = False
    plain: str = ""
    refused: str = ""
    differs: tuple[str, ...] = ()
    masks: bool = False
    probabilities: bool = False

    @property
    def verbs(self) -> tuple[str, ...]:
        """The operations that its recipes need."""
        found = re.findall(r"\b(?:stack|apply|[a-z-]+-merge)\b", f"{self.recipe} {self.plain}")
        return tuple(dict.fromkeys(found))

    @property
    def digest(self) -> str:
        """Tells whether a recorded output is of this configuration."""
        return hashlib.sha256(self.mergekit.encode()).hexdigest()[:16]


def load_cases() -> list[Case]:
    """All cases, in the order of the files. Raises TypeError for a key that no case has."""
    cases: list[Case] = []
    for file in sorted(FOLDER.glob("*.toml")):
        for name, keys in tomllib.loads(file.read_text("utf-8")).items():
            keys["differs"] = tuple(keys.get("differs", ()))
            cases.append(Case(name=name, **keys))
    return cases
