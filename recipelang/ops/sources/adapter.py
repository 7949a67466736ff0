"""adapter: a low-rank adapter in PEFT's layout."""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import AT, FROM, LOCATION, SECRET, SUBJECT, Model, Typed, operation
from recipelang.types import AdapterType
from recipelang.weights.adapter import adapter_type, check_fits
from recipelang.weights.compatibility import model_of


def adapter_result(typed: Typed) -> AdapterType:
    """From its header; a base that is named must have the tensors it changes (E0610)."""
    revision = typed.fields.get("revision")
    found = adapter_type(str(typed.fields["uri"]), revision if isinstance(revision, str) else None)
    base = typed.one("base")
    if base is None:
        return found
    check_fits(found, model_of(base), at="base")
    return AdapterType(found.config, found.tensors, model_of(base))


@operation(kind="source", result="Adapter", origin="base", result_type=adapter_result)
def adapter(
    uri: Annotated[str, SUBJECT, LOCATION, "a folder with adapter_config.json, or `hf:org/name`"],
    revision: Annotated[str | None, AT, LOCATION, "the commit of an `hf:` source"] = None,
    base: Annotated[Model | None, FROM, "the model it was trained on"] = None,
    token: Annotated[str | None, SECRET, LOCATION, "the hub's token, by `secret(…)`"] = None,
) -> None:
    """A LoRA adapter (Hu et al. 2021, arXiv 2106.09685) in the files that PEFT writes.

    verses = adapter "adapters/verses" from base
    other = apply verses to base
    """
