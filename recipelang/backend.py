"""What a backend implements, and how one is found.

A backend holds no recipe semantics: no defaults, no data handling, no objective. It gets models as
:class:`~recipelang.weights.checkpoint.Checkpoint`, data as :class:`~recipelang.data.batch.Batch`,
and objectives as array code over its own namespace.

A backend package (``recipelang_torch``, ``recipelang_jax``) exports ``backend() -> Backend``; it is
found through the entry-point group ``recipelang.backends``, in a bare checkout by name.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from recipelang.data.batch import Batch
from recipelang.types import TensorInfo
from recipelang.values import Form
from recipelang.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recipelang.weights.arrays import Arrays

__all__ = [
    "AdapterPlan",
    "Backend",
    "Device",
    "LoadedModel",
    "OptimizerPlan",
    "Progress",
    "Trained",
    "TrainingJob",
    "available",
    "find",
]

KNOWN = {"torch": "recipelang_torch", "jax": "recipelang_jax"}
REQUIRES = {"torch": ("torch", "transformers"), "jax": ("jax",)}

Precision = Literal["F64", "F32", "BF16", "F16"]


@dataclass(frozen=True, slots=True)
class Device:
    """``kind`` is ``cpu gpu tpu``; ``memory_bytes`` is what the device holds in all."""

    kind: str
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class AdapterPlan:
    """LoRA on some weights (Hu et al. 2021, arXiv 2106.09685): ``y = W x + scale * B (A drop(x))``.

    ``initial`` maps each adapted tensor's name (``model.layers.0.self_attn.q_proj.weight``) to its
    initial A (rank, in) and B (out, rank), float32, drawn on the host. The base weights are frozen
    and kept in the stored dtype; A and B are trained in float32 (float64 at precision F64), and
    rounded to the compute dtype where they enter a matrix product. ``dropout`` in [0, 1).
    """

    initial: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    scale: float
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101): m and v in float32,
    ``w -= lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * w)``; decay on tensors of two or more
    dimensions of the checkpoint only (never on norms and biases, also where a backend stacks
    layers). ``clip``: the divided gradient is scaled by ``min(1, clip / (norm + 1e-6))``, with its
    global L2 norm; None is no clipping."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One optimiser step is done: ``step`` of ``steps`` (from 1). ``tokens`` so far; ``loss`` is
    the step's objective (sum over terms of weight * numerator / count), ``grad_norm`` before
    clipping."""

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """Everything a training loop needs; a pure description.

    ``batch(step)`` gives the whole batch of an optimiser step (0-based), the same for every backend
    and every micro-batch: data order is a pure function of seed, epoch and step. ``lr[step]`` is
    the learning rate. ``objective`` is the field's value: a form such as ``cross_entropy``,
    ``forward_kl``, or ``sum`` of weighted terms (see :mod:`recipelang.objectives`). ``teachers``
    are frozen models whose logits the objective gets. ``trainable`` are the names of the trained
    tensors (ignored with an adapter). ``precision`` is what is computed in; masters, moments,
    norms, softmax, losses and reductions are float32 (float64 at F64). ``micro_batch`` rows at a
    time; any value gives the same gradient beyond rounding. ``checkpoint`` is a folder that belongs
    to this job: the loop writes its state there every ``checkpoint_seconds``; when the folder holds
    a state, the loop goes on from it with the bits of an undisturbed run. ``evaluate(step, score)``
    is called after the steps in ``evaluate_at`` with a function that scores batches with the
    current weights. ``draws`` keys what is random inside the loop (dropout), see
    :mod:`recipelang.data.draws`.
    """

    model: Checkpoint
    objective: Form
    batch: Callable[[int], Batch]
    steps: int
    lr: Sequence[float]
    optimizer: OptimizerPlan
    precision: Precision
    trainable: frozenset[str]
    adapter: AdapterPlan | None = None
    teachers: tuple[Checkpoint, ...] = ()
    micro_batch: int | None = None
    recompute: bool | None = None
    checkpoint: Path | None = None
    checkpoint_seconds: float = 600.0
    evaluate: Callable[[int, Callable[[Batch], NDArray[np.float32]]], None] | None = None
    evaluate_at: frozenset[int] = frozenset()
    draws: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, eq=False)
class Trained:
    """The result: the trained tensors, or with an adapter ``NAME.lora_A`` and ``NAME.lora_B`` for
    each adapted tensor, in float32 (float64 at F64), by checkpoint name and shape; and the
    history."""

    tensors: Mapping[str, NDArray[Any]]
    history: tuple[Progress, ...]


class LoadedModel(Protocol):
    """A model in a device's memory."""

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """(rows, length, vocabulary), float32 (float64 at F64)."""
        ...

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """(rows, length): the natural log of the probability of token t given the tokens before it
        in its document, 0.0 where ``supervised`` is false. Log-softmax in float32."""
        ...

    def decode(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """The greedy continuation of each prompt (non-empty token lists), without the prompt; it
        ends before a token of ``stop`` or after ``max_tokens``. Ties go to the lowest token id."""
        ...

    def close(self) -> None:
        """Free the device's memory."""
        ...


class Backend(Protocol):
    """One array library behind training, scoring and decoding."""

    @property
    def name(self) -> str:
        """``torch`` or ``jax``."""
        ...

    @property
    def version(self) -> str:
        """Versions of the libraries, for run records: ``torch 2.13.0, transformers 5.23.0``."""
        ...

    def devices(self) -> tuple[Device, ...]:
        """What it would run on, best first."""
        ...

    def refuse(self, config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> str | None:
        """Why this backend cannot run the model (the model type, rope type, key or tensor)."""
        ...

    def isolates_documents(self, config: Mapping[str, object]) -> bool:
        """Whether packed documents do not see each other in this architecture."""
        ...

    def load(self, model: Checkpoint, precision: Precision) -> LoadedModel:
        """Bring a model into memory for scoring and decoding."""
        ...

    def train(self, job: TrainingJob, report: Callable[[Progress], None]) -> Trained:
        """Carry the job out, from its checkpoint if there is one."""
        ...

    def arrays(self) -> Arrays:
        """What weight kernels compute with on the best device."""
        ...


def available() -> dict[str, str]:
    """Name -> import name of every backend whose libraries are installed; imports none."""
    from importlib.metadata import entry_points

    found = {point.name: point.value for point in entry_points(group="recipelang.backends")}
    for name, package in KNOWN.items():
        if name not in found and importlib.util.find_spec(package) is not None:
            found[name] = package
    usable: dict[str, str] = {}
    for name in sorted(
        found, key=lambda n: (list(KNOWN).index(n) if n in KNOWN else len(KNOWN), n)
    ):
        needs = REQUIRES.get(name, ())
        if all(importlib.util.find_spec(module) is not None for module in needs):
            usable[name] = found[name]
    return usable


def find(name: str | None = None) -> Backend:
    """The backend of that name, or the first available of torch, jax, others.

    Raises RecipeError E0801 when there is none.
    """
    from recipelang.diagnostics import fault

    usable = available()
    chosen = name or next(iter(usable), None)
    if chosen is None or chosen not in usable:
        wanted = f"the backend `{name}` is not installed" if name else "no backend is installed"
        if name and name not in KNOWN:
            known = ", ".join(f"`{one}`" for one in dict.fromkeys((*KNOWN, *usable)))
            raise fault("E0801", f"there is no backend `{name}`", help=f"one of {known}")
        extra = name if name in KNOWN else "torch"
        raise fault("E0801", wanted, help=f"install one: `pip install 'recipelang[{extra}]'`")
    made: Backend = importlib.import_module(usable[chosen]).backend()
    return made


Rows = Iterable[Batch]
Scores = Iterator["NDArray[np.float64]"]
