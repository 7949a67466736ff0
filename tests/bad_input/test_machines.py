"""Bad input that is refused before anything runs: machines and budgets that do not suffice."""

from __future__ import annotations

import pytest

from recipelang.plan import limits
from tests.bad_input.lab import Lab


def test_architecture_that_jax_lacks(lab: Lab) -> None:
    """The model's type is named, before anything is loaded."""
    text = 'u = model "unknown"\nt = ^finetune u on notes'
    lab.refuses(text, "E0803", "`gptj`", "--backend", "jax")


def test_unknown_backend(lab: Lab) -> None:
    """The backends that there are are named."""
    lab.refuses("t = finetune a on notes", "E0801", "one of `torch`, `jax`", "--backend", "tpu")


def test_no_backend(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch and jax a training cannot be planned."""
    monkeypatch.setattr("recipelang.backend.available", dict)
    lab.refuses("t = finetune a on notes", "E0801", "pip install 'recipelang[torch]'")


def test_no_space(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with less room than the result takes."""
    monkeypatch.setattr("recipelang.plan.make.free_bytes", lambda folder: 1000)
    lab.refuses("m = linear-merge a with b", "E0811", "free some space")


@pytest.mark.parametrize(("limit", "value"), [("wall", "1s"), ("memory", "1KiB"), ("disk", "1KiB")])
def test_budget_that_is_exceeded(lab: Lab, limit: str, value: str) -> None:
    """The place is the limit, and the largest step is named."""
    text = f"budget {{ {limit} = ^{value} }}\nt = finetune a on notes {{ steps = 1M }}"
    lab.refuses(text, "E0810", "the largest part is `t`")


def test_device_that_is_not_here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe for a GPU is not run on a CPU, nor one for eight on one."""
    machine = limits.Machine("torch", "cpu", "a toy", 8 << 30)
    monkeypatch.setattr("recipelang.plan.make.prepare_backend", lambda name: machine)
    text = "budget { device = ^1 gpu }\nt = finetune a on notes"
    lab.refuses(text, "E0813", "has the CPU")
    machine = limits.Machine("torch", "gpu", "a toy", 8 << 30, count=1)
    text = "budget { device = ^8 gpus }\nt = finetune a on notes"
    lab.refuses(text, "E0813", "has 1 gpu")
