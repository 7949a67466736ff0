"""AdamW on float32 masters, as :class:`recipelang.backend.OptimizerPlan` states it.

Example:
    >>> weight = torch.ones(2, requires_grad=True)
    >>> optimizer = AdamW({"w": weight}, OptimizerPlan(clip=None))
    >>> weight.grad = torch.tensor([1.0, -1.0])
    >>> round(optimizer.step(lr=0.5, divisor=1.0), 4), [round(x, 4) for x in weight.tolist()]
    (1.4142, [0.5, 1.5])
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from recipelang.backend import OptimizerPlan

__all__ = ["AdamW"]

_BLOCK = 1 << 17
"""Elements updated at a time on a CPU: four float32 blocks of this size stay in the cache."""

_JOINED = 1 << 20
"""Masters of at most so many elements lie together: an adapter has hundreds of small ones, and
what calling an operation costs would exceed what it computes, on a GPU above all."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Masters that are updated together. ``value``, ``first`` and ``second`` are flat; the masters
    are views of ``value``, one after the other."""

    masters: Mapping[str, torch.Tensor]
    decayed: bool
    value: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of a flat tensor, each in its master's shape."""
        parts = flat.split([master.numel() for master in self.masters.values()])
        named = zip(self.masters.items(), parts, strict=True)
        return {name: part.view_as(master) for (name, master), part in named}

    def gradient(self) -> torch.Tensor:
        """The masters' gradients, flat; zeros where there is none."""
        masters = self.masters.values()
        found = [torch.zeros_like(m) if m.grad is None else m.grad for m in masters]
        flat = [gradient.reshape(-1) for gradient in found]
        return flat[0] if len(flat) == 1 else torch.cat(flat)


def _group(masters: Mapping[str, torch.Tensor], decayed: bool) -> _Group:
    """Bring the masters into one piece of memory; they stay the objects that they are."""
    flat = [master.detach().reshape(-1) for master in masters.values()]
    value = flat[0] if len(flat) == 1 else torch.cat(flat)
    group = _Group(masters, decayed, value, torch.zeros_like(value), torch.zeros_like(value))
    for name, part in group.split(value).items():
        masters[name].data = part
    return group


class AdamW:
    """Masters by name, their moments, and the number of updates done.

    ``masters`` are float32 or float64 tensors, all of one kind and on one device, whose ``grad``
    the loop fills. Those of two dimensions or more decay.
    """

    def __init__(self, masters: Mapping[str, torch.Tensor], plan: OptimizerPlan) -> None:
        self.masters, self.plan, self.updates = dict(masters), plan, 0
        self._groups: list[_Group] = []
        for decayed in (False, True):
            alike = {n: m for n, m in self.masters.items() if (m.ndim >= 2) == decayed}
            small = {n: m for n, m in alike.items() if m.numel() <= _JOINED}
            self._groups += [_group({n: alike[n]}, decayed) for n in alike if n not in small]
            if small:
                self._groups.append(_group(small, decayed))

    @torch.no_grad()
    def step(self, lr: float, divisor: float) -> float:
        """Divide the gradients, clip, update, clear; gives the norm of the divided gradient before
        clipping."""
        gradients = [group.gradient() for group in self._groups]
        norm, factor = self._scale(gradients, divisor)
        self.updates += 1
        for group, gradient in zip(self._groups, gradients, strict=True):
            decay = self.plan.weight_decay if group.decayed else 0.0
            size = _BLOCK if gradient.device.type == "cpu" else max(1, len(gradient))
            parts = (group.value, gradient, group.first, group.second)
            for blocks in zip(*(part.split(size) for part in parts), strict=True):
                self._update(*blocks, lr=lr, factor=factor, decay=decay)
        for master in self.masters.values():
            master.grad = None
        return norm

    def _scale(self, gradients: list[torch.Tensor], divisor: float) -> tuple[float, float]:
        """The gradient's norm once divided, and what to multiply the raw gradient by."""
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        raw = float(torch.linalg.vector_norm(torch.stack(norms).double())) if norms else 0.0
        norm, factor = raw / divisor, 1.0 / divisor
        if self.plan.clip is not None:
            factor *= min(1.0, self.plan.clip / (norm + 1e-6))
        return norm, factor

    def _update(
        self, w: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor,
        *, lr: float, factor: float, decay: float,
    ) -> None:  # fmt: skip
        plan = self.plan
        g.mul_(factor)
        m.lerp_(g, 1.0 - plan.beta1)
        v.mul_(plan.beta2).addcmul_(g, g, value=1.0 - plan.beta2)
        root = math.sqrt(1.0 - plan.beta2**self.updates)
        denominator = v.sqrt().div_(root).add_(plan.eps)
        if decay:
            w.mul_(1.0 - lr * decay)
        w.addcdiv_(m, denominator, value=-lr / (1.0 - plan.beta1**self.updates))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything a resumed run needs but :attr:`updates`."""
        found: dict[str, torch.Tensor] = {}
        for group in self._groups:
            kinds = {"master": group.value, "first": group.first, "second": group.second}
            for kind, flat in kinds.items():
                found |= {f"{kind}/{name}": t.detach() for name, t in group.split(flat).items()}
        return found

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Take over what :meth:`tensors` gave."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        self.updates = updates
