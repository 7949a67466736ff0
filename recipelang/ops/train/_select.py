"""Which tensors a training step trains or adapts, from names and shapes alone.

Example:
    >>> matches("model.layers.0.self_attn.q_proj.weight", "q_proj")
    True
    >>> matches("model.layers.0.self_attn.q_proj.weight", "model.layers.0.*")
    True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from recipelang.types import TensorInfo

__all__ = ["adapted", "linear_weights", "matches", "trained", "unmatched"]

OUTSIDE = ("embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "embed_positions")
"""Components of names that are embeddings or heads in the checkpoints of `transformers`."""


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern holds for a tensor.

    With a ``*`` it is a glob over the full name; without, it matches whole dotted components
    (``q_proj``, ``layers.3``), as everywhere in the language.
    """
    if "*" in pattern or "?" in pattern:
        return fnmatchcase(name, pattern)
    return f".{pattern}." in f".{name}."


def linear_weights(tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The weights of linear layers: every 2-D ``*.weight`` but embeddings and the head, in name
    order.
    """
    return tuple(
        name
        for name, info in sorted(tensors.items())
        if len(info.shape) == 2
        and name.endswith(".weight")
        and not any(part in OUTSIDE for part in name.split("."))
    )


def adapted(tensors: Mapping[str, TensorInfo], targets: Sequence[str]) -> tuple[str, ...]:
    """The weights that an adapter goes on; ``targets`` as in ``lora(targets = ...)``."""
    linear = linear_weights(tensors)
    return tuple(
        name
        for name in linear
        if any(
            t == "all-linear" or matches(name, t) or matches(name, f"{t}.weight") for t in targets
        )
    )


def trained(
    tensors: Mapping[str, TensorInfo], train: Sequence[str], freeze: Sequence[str]
) -> tuple[str, ...]:
    """The tensors that full training changes, in name order."""
    return tuple(
        name
        for name in sorted(tensors)
        if any(t == "all" or matches(name, t) for t in train)
        and not any(matches(name, f) for f in freeze)
    )


def unmatched(tensors: Mapping[str, TensorInfo], patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns that no tensor's name matches."""
    return tuple(
        p for p in patterns if p != "all" and not any(matches(name, p) for name in tensors)
    )
