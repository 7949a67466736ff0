"""init: a new model with random weights."""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import DRAWS, SUBJECT, WITH, Fault, Range, Tokenizer, Typed, operation
from recipelang.types import ModelType, TokenizerType
from recipelang.weights.initial import ARCHITECTURES, initial_type


def init_result(typed: Typed) -> ModelType:
    """Configuration and table from the sizes. Raises Fault E0544 (sizes that do not divide),
    E0545."""
    architecture = str(typed.fields["architecture"])
    if architecture not in ARCHITECTURES:
        raise Fault(
            "E0545", f"`init` does not know the architecture `{architecture}`", at="architecture",
            help="known: " + ", ".join(ARCHITECTURES),
        )  # fmt: skip
    fields = typed.fields
    heads, kv_heads, hidden = fields["heads"], fields.get("kv_heads"), fields["hidden"]
    assert isinstance(heads, int)
    assert isinstance(hidden, int)
    if hidden % heads or hidden // heads % 2:
        raise Fault(
            "E0544",
            f"`hidden` is {hidden}, which is not an even number times {heads} heads",
            at="hidden",
            help=f"take a multiple of {2 * heads}",
        )
    if isinstance(kv_heads, int) and heads % kv_heads:
        raise Fault(
            "E0544",
            f"`heads` is {heads}, which is not a multiple of `kv_heads` {kv_heads}",
            at="kv_heads",
            help="take a number that divides `heads`",
        )
    tokenizer = typed.one("tokenizer")
    known = tokenizer if isinstance(tokenizer, TokenizerType) and tokenizer.path else None
    return initial_type(architecture, known, fields)


@operation(kind="source", result="Model", determinism="exact", result_type=init_result)
def init(
    architecture: Annotated[str, SUBJECT, "`llama`, `mistral`, `qwen2` or `qwen3`"],
    tokenizer: Annotated[Tokenizer, WITH, "its tokenizer; the vocabulary's size comes from it"],
    hidden: Annotated[int, Range(2, 1 << 20), "the width"] = 192,
    layers: Annotated[int, Range(1, 1000), "the number of blocks"] = 6,
    heads: Annotated[int, Range(1, 4096), "attention heads"] = 6,
    kv_heads: Annotated[
        int | None, Range(1, 4096), "key and value heads; as many as heads when left out"
    ] = None,
    intermediate: Annotated[
        int | None,
        Range(1, 1 << 22),
        "the width inside the MLP; 8/3 of hidden when left out, a multiple of 8",
    ] = None,
    context: Annotated[int, Range(1, 1 << 30), "the longest sequence"] = 1024,
    tied: Annotated[bool, "the output head is the embedding"] = True,
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"],
        "how it is stored",
    ] = "f32",
    seed: Annotated[int, DRAWS, "of the random draws"] = 0,
) -> None:
    """A model with random weights: every matrix from a normal distribution of standard deviation 0.02,
    norms 1, biases 0. The draws are those of Philox (Salmon et al. 2011) keyed by seed and tensor name.

        fresh = init "llama" with words { hidden = 192, layers = 6, heads = 6, kv_heads = 2 }
    """  # noqa: E501
