"""What the configuration and the tensor names of an adapter in PEFT's files mean.

PEFT's names start with ``base_model.model.`` and the module's name. For a module there are two
low-rank factors, ``lora_A.weight`` of shape (rank, in) and ``lora_B.weight`` (out, rank), or for an
embedding of (tokens, width) ``lora_embedding_A`` (rank, tokens) and ``lora_embedding_B``
(width, rank); with DoRA a ``lora_magnitude_vector`` (out,), with ``lora_bias`` a ``lora_B.bias``
(out,). Every other tensor stands whole in place of the model's: those of ``modules_to_save``, the
biases that ``bias`` trained, and beside factors the ``base_layer`` that they were trained on.

Example:
    >>> config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    >>> shapes = {"A": (2, 8), "B": (6, 2)}
    >>> tensors = {f"base_model.model.model.up_proj.lora_{half}.weight": TensorInfo("F32", shape)
    ...            for half, shape in shapes.items()}
    >>> contents(config, tensors).factors["model.up_proj"].scale
    2.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

from recipelang.diagnostics import RecipeError, fault
from recipelang.types import TensorInfo
from recipelang.weights.metadata import FLOATS
from recipelang.weights.peft_names import PREFIX
from recipelang.weights.strict_json import as_list, as_object, readable

__all__ = ["Contents", "Factors", "contents"]

MAX_RANK = 65_536
UNREAD = (
    "use_qalora", "target_parameters", "trainable_token_indices", "layer_replication",
    "alora_invocation_tokens", "arrow_config", "use_bdlora", "kasa_config", "velora_config",
    "monteclora_config",
)  # fmt: skip
"""Settings that make the weights something else than this module says."""
CHANGES_BASE = re.compile(r"(pissa|corda|olora|loftq|lora_ga)")
"""Initialisations that take the first factors out of the base, which is then another model."""
PART = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.default)?(?P<leaf>\.weight|\.bias)?"
)
SIDES: Mapping[tuple[str, str], str] = {
    ("A", ".weight"): "lora_A", ("B", ".weight"): "lora_B", ("B", ".bias"): "lora_B.bias",
    ("embedding_A", ""): "lora_embedding_A", ("embedding_B", ""): "lora_embedding_B",
    ("magnitude_vector", ""): "lora_magnitude_vector",
    ("magnitude_vector", ".weight"): "lora_magnitude_vector",
}  # fmt: skip
AGAIN = "get the adapter again from where it was published"
BAKED = "apply it with PEFT, and name the folder that this gives as a model"
WRAPPERS = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank change of one module, by tensor names: ``scale * B A``, A (rank, in) and B
    (out, rank). Of an ``embedding`` the change is its transpose, A having a column a token.
    ``magnitude`` (out,) is DoRA's; ``bias`` (out,) times the scale is added to the module's bias.
    """

    a: str
    b: str
    scale: float
    embedding: bool = False
    magnitude: str = ""
    bias: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """``factors`` by module, ``whole`` by the name of the model's tensor that it stands for."""

    factors: Mapping[str, Factors]
    whole: Mapping[str, str]


def contents(
    config: Mapping[str, object], tensors: Mapping[str, TensorInfo], where: str = "the adapter"
) -> Contents:
    """What an adapter holds. The scale of its factors is alpha / r, or alpha / sqrt(r) with
    ``use_rslora`` (Kalajdzievski 2023, arXiv 2312.03732); ``rank_pattern`` and ``alpha_pattern``
    give other values by name.

    Raises RecipeError E0733 for a kind of adapter that is not read, and for one whose parts do not
    belong together.
    """
    _check_kind(config, where)
    sides: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for name, info in tensors.items():
        place = _place(name)
        if place is None:
            raise _refused(where, f"the tensor `{readable(name)}` is not of a LoRA")
        if info.dtype not in FLOATS:
            raise _refused(where, f"`{readable(name)}` is {info.dtype}, which is no weight")
        module, key = place
        found = sides.setdefault(module, {}) if module else whole
        if key in found:
            raise _refused(where, f"`{readable(name)}` stands twice, also as `{found[key]}`")
        if key:
            found[key] = name
    if not sides and not whole:
        raise _refused(where, "it holds no tensor")
    _check_saved(config, whole, where)
    modules = {m: _factors(config, m, sides[m], tensors, where) for m in sorted(sides)}
    return Contents(modules, dict(sorted(whole.items())))


def _refused(where: str, why: str, help: str = AGAIN) -> RecipeError:
    return fault("E0733", f"{where} cannot be read: {why}", help=help)


def _place(name: str) -> tuple[str, str] | None:
    """Module and part of a factor; for a whole tensor no module, and the model's name of it, which
    is empty where PEFT kept the model's own. None for a name that is none of PEFT's."""
    match = PART.fullmatch(name.removeprefix(PREFIX))
    if match is not None:
        side = SIDES.get((match["part"], match["leaf"] or ""))
        return (match["module"], side) if side else None
    if not name.startswith(PREFIX) or ".lora_" in name or "token_adapter" in name:
        return None
    whole = WRAPPERS.sub("", name.removeprefix(PREFIX))
    return "", "" if ".original_module." in whole else whole


def _check_kind(config: Mapping[str, object], where: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        said = f"a `{readable(str(kind), 40)}`" if kind is not None else "of no `peft_type`"
        raise _refused(where, f"it is {said}, and only LoRA is read", BAKED)
    for key in UNREAD:
        if config.get(key) not in (None, False, [], {}):
            raise _refused(where, f"it uses `{key}`", BAKED)
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise _refused(where, f"`bias` is {readable(repr(config['bias']), 40)}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and CHANGES_BASE.match(start):
        raise _refused(
            where, f"`init_lora_weights` is `{readable(start, 40)}`, which changed the model that "
            "it was trained on",
            help="save it converted to plain LoRA (PEFT: "
            "`path_initial_model_for_weight_conversion`); if the base is the changed model, write "
            "`true` there in its `adapter_config.json`",
        )  # fmt: skip


def _check_saved(config: Mapping[str, object], whole: Mapping[str, str], where: str) -> None:
    """Every module of ``modules_to_save`` is in the file. (For classifiers PEFT lists the names
    that their heads may have.)"""
    modules = {name.rpartition(".")[0] for name in whole}
    named = as_list(config.get("modules_to_save")) or []
    for one in named if "_CLS" not in str(config.get("task_type")) else ():
        if not any(module.endswith(str(one)) for module in modules):
            raise _refused(
                where, f"its `modules_to_save` has `{readable(str(one), 60)}`, and its file no "
                "tensor of it",
            )  # fmt: skip


def _factors(
    config: Mapping[str, object], module: str, sides: Mapping[str, str],
    tensors: Mapping[str, TensorInfo], where: str,
) -> Factors:  # fmt: skip
    """The factors of one module, checked against each other and the configuration."""
    shown = f"`{readable(module)}`"
    embedding = any(side.startswith("lora_embedding") for side in sides)
    halves = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    dora, shift = config.get("use_dora") is True, config.get("lora_bias") is True
    wanted = [*halves, *(["lora_magnitude_vector"] if dora else [])]
    if shift and not embedding:
        wanted.append("lora_B.bias")
    for side in wanted:
        if side not in sides:
            raise _refused(where, f"{shown} lacks its `{side}`")
    for side in sides:
        if side not in wanted:
            raise _refused(where, f"{shown} has a `{side}`, which its configuration does not name")
    if dora and shift:
        raise _refused(where, "it uses `use_dora` and `lora_bias` together", BAKED)
    a, b = tensors[sides[halves[0]]].shape, tensors[sides[halves[1]]].shape
    rank, scale = _scale(config, module, where)
    if len(a) != 2 or len(b) != 2:
        what = "a convolution" if len(a) > 2 else "no matrix"
        raise _refused(where, f"{shown} is {what}: `{halves[0]}` is {list(a)}", BAKED)
    if a[0] != rank or b[1] != rank:
        raise _refused(
            where,
            f"the rank of {shown} is {rank}, but `{halves[0]}` is {list(a)} and `{halves[1]}` "
            f"is {list(b)}",
        )
    for side in wanted[2:]:
        if tensors[sides[side]].shape != (b[0],):
            raise _refused(
                where, f"`{side}` of {shown} is {list(tensors[sides[side]].shape)}, expected "
                f"[{b[0]}]",
            )  # fmt: skip
    return Factors(
        sides[halves[0]], sides[halves[1]], scale, embedding,
        sides.get("lora_magnitude_vector", ""), sides.get("lora_B.bias", ""),
    )  # fmt: skip


def _scale(config: Mapping[str, object], module: str, where: str) -> tuple[int, float]:
    """The rank and the scale of a module."""
    rank = _pattern(config, "rank_pattern", module, config.get("r"), where)
    alpha = _pattern(config, "alpha_pattern", module, config.get("lora_alpha"), where)
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise _refused(
            where, f"the rank `r` is {readable(repr(rank), 30)}, expected 1 to {MAX_RANK}"
        )
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not isfinite(alpha):
        raise _refused(where, f"`lora_alpha` is {readable(repr(alpha), 30)}, expected a number")
    return rank, alpha / sqrt(rank) if config.get("use_rslora") is True else alpha / rank


def _pattern(
    config: Mapping[str, object], key: str, module: str, default: object, where: str
) -> object:
    """PEFT's rule: the first regular expression that matches the end of the module's name, from a
    dot on, or all of it."""
    for pattern, value in (as_object(config.get(key)) or {}).items():
        if not _is_tame(pattern):
            raise _refused(where, f"`{key}` has the pattern `{readable(pattern)}`")
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _is_tame(pattern: str) -> bool:
    """Whether a regular expression of a file that nobody vouches for ends soon on every name: no
    repeated group, few repetitions."""
    repeats = re.findall("[*+{]", pattern)
    if len(pattern) > 500 or len(repeats) > 3 or re.search(r"\)[*+{]", pattern):
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError):
        return False
    return True
