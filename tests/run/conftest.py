"""A run that every test may start from."""

from __future__ import annotations

import pytest

from recipelang.run.running import RunOptions, run_recipe
from tests.run.project import Finished, write_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The undisturbed run on torch."""
    recipe = write_project(tmp_path_factory.mktemp("finished"))
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    return Finished(recipe, outcome)
