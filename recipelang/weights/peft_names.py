"""The names that PEFT's files give adapted weights, and the shapes of their two factors.

A linear layer has ``lora_A.weight`` (rank, in) and ``lora_B.weight`` (out, rank); an embedding of
(tokens, width) has ``lora_embedding_A`` (rank, tokens) and ``lora_embedding_B`` (width, rank). The
change of a weight that is stored (out, in) is B A times the scale. One that is stored the other way
round, an embedding or a GPT-2 ``Conv1D``, is changed by the transpose.

Example:
    >>> factor_names("model.layers.0.mlp.up_proj.weight")[0]
    'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight'
    >>> weight_of("base_model.model.model.embed_tokens.lora_embedding_B")
    'model.embed_tokens.weight'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recipelang.weights.layers import layer_of

__all__ = [
    "CONV1D", "PREFIX", "factor_names", "factor_shapes", "is_embedding", "is_transposed",
    "target_modules", "weight_of",
]  # fmt: skip

PREFIX = "base_model.model."
CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""The model types of `transformers` whose layers keep their weights as (in, out)."""
EMBEDDINGS = (
    "embed_tokens", "tok_embeddings", "word_embeddings", "embed_in", "wte", "wpe",
    "embed_positions", "position_embeddings", "token_type_embeddings",
)  # fmt: skip


def is_embedding(weight: str) -> bool:
    """Whether the weight is a table with a row a token (or position)."""
    return weight.removesuffix(".weight").rpartition(".")[2] in EMBEDDINGS


def is_transposed(weight: str, config: Mapping[str, object]) -> bool:
    """Whether the weight is changed by the transpose of B A; ``config`` is the adapter's."""
    in_layer = layer_of(weight) is not None
    return is_embedding(weight) or (config.get("fan_in_fan_out") is True and in_layer)


def factor_names(weight: str) -> tuple[str, str]:
    """The names of A and B."""
    module = PREFIX + weight.removesuffix(".weight")
    if is_embedding(weight):
        return f"{module}.lora_embedding_A", f"{module}.lora_embedding_B"
    return f"{module}.lora_A.weight", f"{module}.lora_B.weight"


def factor_shapes(
    shape: tuple[int, ...], rank: int, *, transposed: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of A and B for a weight of ``shape``.

    >>> factor_shapes((6, 4), 2, transposed=False)
    ((2, 4), (6, 2))
    """
    out, into = reversed(shape) if transposed else shape
    return (rank, into), (out, rank)


def weight_of(factor: str) -> str:
    """The weight that a factor belongs to."""
    return factor.removeprefix(PREFIX).rpartition(".lora_")[0] + ".weight"


def target_modules(adapted: Iterable[str], weights: Iterable[str]) -> list[str]:
    """The adapted modules as ``target_modules`` has them, so that PEFT finds these and no others of
    the model's ``weights``: by the last part of their names where all of that name are adapted,
    else by whole names.

    >>> target_modules(["a.0.up.weight", "a.1.up.weight"], ["a.0.up.weight", "a.1.up.weight"])
    ['up']
    >>> target_modules(["a.0.up.weight"], ["a.0.up.weight", "a.1.up.weight"])
    ['a.0.up']
    """
    names = sorted(set(adapted))
    others = {_module(name) for name in weights if name not in names}
    short = {_module(name) for name in names} - others
    whole = [name.removesuffix(".weight") for name in names if _module(name) in others]
    return sorted(short) + whole


def _module(weight: str) -> str:
    return weight.removesuffix(".weight").rpartition(".")[2]
