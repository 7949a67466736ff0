"""AdamW on float32 masters, as :class:`recipelang.backend.OptimizerPlan` states it.

Example:
    >>> weight = torch.ones(2, requires_grad=True)
    >>> optimizer = AdamW({"w": weight}, OptimizerPlan(clip=None))
    >>> weight.grad = torch.tensor([1.0, -1.0])
    >>> optimizer.step(lr=0.5, divisor=1.0), weight.tolist()
    (1.4142135381698608, [0.5, 1.5])
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from recipelang.backend import OptimizerPlan

__all__ = ["AdamW"]

_BLOCK = 1 << 17
"""Elements updated at a time on a CPU: four float32 blocks of this size stay in the cache."""


class AdamW:
    """Masters by name, their moments, and the number of updates done.

    ``masters`` are float32 or float64 tensors whose ``grad`` the loop fills.
    """

    def __init__(self, masters: Mapping[str, torch.Tensor], plan: OptimizerPlan) -> None:
        self.masters, self.plan, self.updates = dict(masters), plan, 0
        self.first = {name: torch.zeros_like(w, requires_grad=False) for name, w in masters.items()}
        self.second = {
            name: torch.zeros_like(w, requires_grad=False) for name, w in masters.items()
        }

    @torch.no_grad()
    def step(self, lr: float, divisor: float) -> float:
        """Divide the gradients, clip, update, clear; gives the norm of the divided gradient before
        clipping."""
        norm, factor = self._scale(divisor)
        self.updates += 1
        for name, master in self.masters.items():
            gradient = master.grad
            if gradient is None:
                gradient = torch.zeros_like(master)
            decay = self.plan.weight_decay if master.ndim >= 2 else 0.0
            parts = [
                x.view(-1)
                for x in (master, gradient.contiguous(), self.first[name], self.second[name])
            ]
            size = _BLOCK if master.device.type == "cpu" else max(1, master.numel())
            for blocks in zip(*(part.split(size) for part in parts), strict=True):
                self._update(*blocks, lr=lr, factor=factor, decay=decay)
            master.grad = None
        return norm

    def _scale(self, divisor: float) -> tuple[float, float]:
        """The gradient's norm once divided, and what to multiply the raw gradient by."""
        norms = [
            torch.linalg.vector_norm(w.grad) for w in self.masters.values() if w.grad is not None
        ]
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
        kinds = {"master": self.masters, "first": self.first, "second": self.second}
        return {
            f"{kind}/{name}": t.detach()
            for kind, named in kinds.items()
            for name, t in named.items()
        }

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Take over what :meth:`tensors` gave."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        self.updates = updates
