"""extract-adapter: what a fine-tune changed, as a low-rank adapter in PEFT's files."""

# The default of a list field is a tuple, as fields hold it.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from recipelang.ops.spec import (
    DRAWN,
    DRAWS,
    FROM,
    RESULT,
    SUBJECT,
    TENSOR,
    Cost,
    Fault,
    Model,
    Range,
    Typed,
    operation,
)  # fmt: skip
from recipelang.ops.train._select import linear_weights, matches
from recipelang.types import AdapterType, ModelType, TensorInfo
from recipelang.values import Attr
from recipelang.weights.adapter import adapter_config
from recipelang.weights.compatibility import joined_type, model_of, streaming_cost
from recipelang.weights.kernel import MatrixKernel
from recipelang.weights.kernels.factors import factors, factors_bytes, factors_flops
from recipelang.weights.metadata import FLOATS
from recipelang.weights.peft_names import (
    CONV1D,
    factor_names,
    factor_shapes,
    is_embedding,
    is_transposed,
    target_modules,
)  # fmt: skip

EXACT_UP_TO = 2048
"""A matrix whose smaller side is longer is decomposed by a random sketch, if nothing is said."""
HEAD = "lm_head.weight"


def extract_adapter_result(typed: Typed) -> AdapterType:
    """PEFT's configuration and tensors. Raises Fault E0555, E0601 to E0603."""
    model, base = model_of(typed.one("model")), model_of(typed.one("base"))
    places = [typed.places.get(role, ("",))[0] or f"the {role}" for role in ("model", "base")]
    joined_type([("model", places[0], model), ("base", places[1], base)])
    if base.tensors is None:
        return AdapterType(base=base)
    names = _selected(typed, base.tensors)
    rank, alpha = _rank(typed), typed.fields.get("alpha")
    config = _config(base, names, rank, alpha if isinstance(alpha, int | float) else rank)
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        transposed = is_transposed(name, config)
        shapes = factor_shapes(base.tensors[name].shape, rank, transposed=transposed)
        pair = zip(factor_names(name), shapes, strict=True)
        tensors |= {factor: TensorInfo("F32", shape) for factor, shape in pair}
    return AdapterType(config, dict(sorted(tensors.items())), base)


def extract_adapter_cost(typed: Typed) -> Cost:
    """A decomposition of every adapted weight."""
    base, rank = model_of(typed.one("base")), _rank(typed)
    cost = streaming_cost(typed, ModelType())
    chosen = [(base.tensors or {})[name] for name in _selected(typed, base.tensors or {})]
    flops, peak = 0.0, 0
    for info in chosen:
        sketched = _sketched(typed.fields.get("randomised"), info)
        flops += factors_flops(info, rank, randomised=sketched)
        peak = max(peak, factors_bytes(info, rank, randomised=sketched))
    return replace(cost, flops=flops, memory_bytes=max(cost.memory_bytes, peak))


@operation(
    kind="weights",
    result="Adapter",
    origin="base",
    determinism="repeatable",
    result_type=extract_adapter_result,
    cost=extract_adapter_cost,
)
def extract_adapter(
    model: Annotated[Model, SUBJECT, "the fine-tuned model"],
    base: Annotated[Model, FROM, "what it was tuned from, and what the adapter is for"],
    tensor: Annotated[str, TENSOR],
    draws: Annotated[tuple[str, ...], DRAWN],
    result: Annotated[AdapterType, RESULT],
    rank: Annotated[int, Range(1, 65_536), "rank of the factors"],
    alpha: Annotated[
        float | None, Range(0, open_low=True), "PEFT scales B A by alpha / rank [rank]"
    ] = None,
    targets: Annotated[
        list[str | Literal["all-linear"]],  # noqa: PYI051
        "the adapted weights: names or globs; all-linear is all matrices but embeddings and head",
    ] = ("all-linear",),
    exclude: Annotated[list[str], "weights that are left out, as names or globs"] = (),
    randomised: Annotated[
        bool | None, "decompose by a random sketch [where the smaller side is over 2048]"
    ] = None,
    seed: Annotated[int, DRAWS, "keys the random sketches"] = 0,
) -> MatrixKernel:
    """With M - B = U S V^T of an adapted weight, and s = alpha / rank: A = (S_r / s)^(1/2) V_r^T and
    B = U_r (S_r / s)^(1/2) from the leading `rank` triplets, so that s B A is the closest matrix of
    that rank (Eckart and Young 1936). Both are float32; `apply` gives M back up to what was cut off.

    Embeddings and the head are adapted where `targets` names them. Other tensors (norms, biases) are
    not in the adapter, and the run warns where they were changed (W0655). A random sketch (Halko,
    Martinsson and Tropp 2011, arXiv 0909.4061: oversampling 8, two power iterations) comes close to
    it in a fraction of the time; the run tells how much of the change's energy is kept.

        slim = extract-adapter tuned from base { rank = 16 }
        publish slim to "out/adapter"
    """  # noqa: E501
    info: Any = base
    config = result.config or {}
    scale = 1.0 if alpha is None else alpha / rank
    sketch = (draws[0], tensor) if _sketched(randomised, info) else None
    return factors(info, rank, scale, transposed=is_transposed(tensor, config), sketch=sketch)


def _rank(typed: Typed) -> int:
    rank = typed.fields["rank"]
    assert isinstance(rank, int)
    return rank


def _sketched(randomised: Attr, info: TensorInfo) -> bool:
    return randomised if isinstance(randomised, bool) else min(info.shape) > EXACT_UP_TO


def _texts(value: Attr) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


def _selected(typed: Typed, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The adapted weights, in name order. Raises Fault E0555."""
    known = [n for n, i in sorted(tensors.items()) if _is_adaptable(n, i)]
    chosen: set[str] = set()
    for target in _texts(typed.fields.get("targets", ("all-linear",))):
        found = linear_weights(tensors) if target == "all-linear" else _named(known, target)
        if tensors and not found:
            raise _nothing(target, "targets", known)
        chosen.update(found)
    for pattern in _texts(typed.fields.get("exclude")):
        found = _named(known, pattern)
        if tensors and not found:
            raise _nothing(pattern, "exclude", known)
        chosen.difference_update(found)
    if tensors and not chosen:
        raise Fault("E0555", "no weight is left to adapt", at="exclude", help="exclude fewer")
    return tuple(sorted(chosen.intersection(known)))


def _is_adaptable(name: str, info: TensorInfo) -> bool:
    matrix = len(info.shape) == 2 and info.elements > 0 and info.dtype in FLOATS
    return matrix and name.endswith(".weight")


def _named(known: Sequence[str], pattern: str) -> list[str]:
    return [n for n in known if matches(n, pattern) or matches(n, f"{pattern}.weight")]


def _nothing(pattern: str, at: str, known: Sequence[str]) -> Fault:
    kinds = list(dict.fromkeys(name.split(".")[-2] for name in known if name.count(".")))
    shown = ", ".join(f"`{kind}`" for kind in kinds[:8])
    return Fault(
        "E0555", f"no weight matrix of the model matches `{pattern}`", at=at,
        label="matches nothing", help=f"the model has {shown}" if shown else "it has no matrices",
    )  # fmt: skip


def _config(base: ModelType, names: Sequence[str], rank: int, alpha: float) -> dict[str, object]:
    """adapter_config.json, with what PEFT has to know of the base's layout."""
    tensors, model = base.tensors or {}, base.config or {}
    whole = int(alpha) if alpha == int(alpha) else alpha
    config: dict[str, object] = json.loads(adapter_config(rank=rank, alpha=whole, targets=names))
    config["target_modules"] = target_modules(names, [n for n in tensors if n.endswith(".weight")])
    config["fan_in_fan_out"] = model.get("model_type") in CONV1D
    tied = HEAD not in tensors and model.get("tie_word_embeddings") is not False
    if tied and any(is_embedding(name) for name in names):
        config["ensure_weight_tying"] = True
    return config
