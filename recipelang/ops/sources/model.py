"""model: a checkpoint in a folder, a GGUF file, an installed package or the Hugging Face cache."""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import (
    AT,
    FROM,
    LOCATION,
    SECRET,
    SUBJECT,
    Cost,
    Fault,
    Model,
    Typed,
    operation,
)
from recipelang.sources import revision_fault
from recipelang.types import ModelType
from recipelang.weights.compatibility import check_origin, model_of
from recipelang.weights.metadata import model_type


def model_result(typed: Typed) -> ModelType:
    """From headers; a declared origin must have the same shape, and no tokens beside this model's
    (E0601 to E0603)."""
    uri, revision, dtype = (typed.fields.get(k) for k in ("uri", "revision", "dtype"))
    wrong = revision_fault(str(uri), revision) if isinstance(revision, str) else ""
    if wrong:
        help = "write a commit of the repository" if str(uri).startswith("hf:") else "leave it out"
        raise Fault("E0721", wrong, at="revision", help=help)
    found = model_type(
        str(uri), revision if isinstance(revision, str) else None,
        dtype=dtype if isinstance(dtype, str) else None,
    )  # fmt: skip
    origin = typed.one("origin")
    if origin is not None:
        name = typed.places.get("origin", ("the origin",))[0]
        try:
            check_origin("this model", found, name, model_of(origin))
        except Fault as fault:
            what = "with no tokens that it lacks" if fault.code == "E0602" else "of its shape"
            help = f"an origin is the model that this one was trained from: one {what}"
            message = fault.message.replace("`this model`", "this model")
            raise Fault(fault.code, message, at=fault.at, label=fault.label, help=help) from None
    return found


@operation(
    kind="source", result="Model", origin="origin", result_type=model_result,
    cost=lambda typed: Cost(),
)  # fmt: skip
def model(
    uri: Annotated[str, SUBJECT, LOCATION, "a path, `package:import_name/file` or `hf:org/name`"],
    revision: Annotated[str | None, AT, LOCATION, "the commit of an `hf:` source"] = None,
    origin: Annotated[Model | None, FROM, "the model that this one was fine-tuned from"] = None,
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"] | None,
        "how the weights are stored from here on; as they are when left out (GGUF: bf16)",
    ] = None,
    token: Annotated[str | None, SECRET, LOCATION, "the hub's token, by `secret(…)`"] = None,
) -> None:
    """A model that exists already.

    A folder in Hugging Face layout (safetensors) or a `.gguf` file (llama, qwen2, qwen3; every
    quantisation that the `gguf` package can undo). Pickle checkpoints are refused, and nothing that
    a model's folder names is ever run. `from` declares the origin, which merges of task vectors
    use.

        base = model "hf:Qwen/Qwen3-0.6B" at "c1899de289a04d12100db370d81485cdf75e47ca"
        tuned = model "./tuned" from base
    """
