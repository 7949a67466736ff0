"""adapter: a low-rank adapter in PEFT's layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from recipelang.ops.spec import AT, FROM, LOCATION, SECRET, SUBJECT, Model, Typed, operation
from recipelang.types import AdapterType
from recipelang.weights.adapter import adapter_type
from recipelang.weights.adapting import adapted_type
from recipelang.weights.compatibility import model_of


def adapter_result(typed: Typed) -> AdapterType:
    """From its headers, which say whether it can be read (E0733); a base that is named must have
    the tensors that it changes (E0610, E0614)."""
    revision = typed.fields.get("revision")
    found = adapter_type(str(typed.fields["uri"]), revision if isinstance(revision, str) else None)
    base = typed.one("base")
    if base is None:
        return found
    adapted_type(found, model_of(base), at="base")
    return replace(found, base=model_of(base))


@operation(kind="source", result="Adapter", origin="base", result_type=adapter_result)
def adapter(
    uri: Annotated[str, SUBJECT, LOCATION, "a folder with adapter_config.json, or `hf:org/name`"],
    revision: Annotated[str | None, AT, LOCATION, "the commit of an `hf:` source"] = None,
    base: Annotated[Model | None, FROM, "the model it was trained on"] = None,
    token: Annotated[str | None, SECRET, LOCATION, "the hub's token, by `secret(…)`"] = None,
) -> None:
    """A LoRA adapter (Hu et al. 2021, arXiv 2106.09685) in the files that PEFT writes: LoRA,
    rsLoRA, DoRA, on linear layers and embeddings, with `modules_to_save` and biases. `apply` puts
    it into a model; among the inputs of a merge it stands for its base with it in it.

        verses = adapter "adapters/verses" from base
        other = apply verses to base
        both = linear-merge verses with other
    """
