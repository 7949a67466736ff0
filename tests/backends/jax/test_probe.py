"""An accelerator that computes wrong numbers is refused before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from recipelang.diagnostics import RecipeError
from recipelang_jax import probe


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """It is asked once a process."""
    probe.require_sound.cache_clear()
    yield
    probe.require_sound.cache_clear()


def test_this_machine_answers_right() -> None:
    """Each question has one answer."""
    assert probe.wrong_answers() == []


def test_an_accelerator_that_answers_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it said, and what to do."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jnp, "sqrt", lambda x: x * 0)
    with pytest.raises(RecipeError) as caught:
        probe.require_sound()
    (found,) = caught.value.diagnostics
    assert found.code == "E0805"
    assert "sqrt(512) = 0" in found.message
    assert "--backend torch" in found.help


def test_nan_is_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every draw was where this was seen."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, jnp.nan))
    (wrong,) = probe.wrong_answers()
    assert wrong.endswith("= nan")


def test_a_cpu_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels are those of the tests."""
    monkeypatch.setattr(probe, "wrong_answers", lambda: ["anything"])
    probe.require_sound()
