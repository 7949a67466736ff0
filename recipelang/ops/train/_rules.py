"""What can be known to be wrong with a training step before anything is computed.

Every check needs names, shapes, columns and tokenizers only; what is not known yet is not
complained about. See the pages of the codes for examples.
"""

from __future__ import annotations

from collections.abc import Mapping

from recipelang.ops.spec import Fault, Typed
from recipelang.ops.train._select import adapted, linear_weights, trained, unmatched
from recipelang.types import DatasetType, ModelType, TensorInfo
from recipelang.values import Attr, Form, Quantity

__all__ = ["check_tokenizer", "check_training", "supervised_by"]

FORMATS = {
    "text": ("all",),
    "prompt-completion": ("completion", "all"),
    "chat": ("assistant", "completion", "all"),
}
"""The formats that can be trained on, each with what can be supervised in it, the default first."""


def supervised_by(format: str, field: object) -> str:
    """What is supervised: the field, or the default of the format."""
    return field if isinstance(field, str) else FORMATS[format][0]


def check_training(step: Typed, model: str, data: str = "data", over: str = "over") -> None:
    """Raise the first :class:`Fault` of a training step; the arguments name the roles."""
    fields = step.fields
    if fields.get("steps") is not None and fields.get("epochs") is not None:
        raise Fault(
            "E0561",
            "`steps` and `epochs` both say how long to train",
            at="epochs",
            label="a second length",
            help="keep one of the two",
        )
    if fields.get("every") is not None and not step.types.get(over):
        raise Fault(
            "E0565",
            "`every` asks for evaluations, but there is nothing to evaluate on",
            at="every",
            help="name the data: `over notes.holdout`",
        )
    _check_schedule(step)
    _check_choice(step)
    student = step.one(model)
    if isinstance(student, ModelType):
        check_tokenizer(student, model)
    if isinstance(student, ModelType) and student.tensors is not None:
        _check_trained(step, student.tensors)
    for role in (data, over):
        found = step.one(role)
        if isinstance(found, DatasetType):
            _check_data(step, found, role, student if isinstance(student, ModelType) else None)


def check_tokenizer(model: ModelType, at: str) -> None:
    """Fault E0734 for a model whose folder is here and has no tokenizer: it cannot read text."""
    if model.tensors is not None and model.tokenizer is None:
        raise Fault(
            "E0734",
            "this model has no tokenizer, so it cannot read text",
            at=at,
            help="put the `tokenizer.json` that it was trained with into its folder",
        )


def _check_schedule(step: Typed) -> None:
    """A warm-up (and a decay) in steps must fit into `steps`."""
    schedule, steps = step.fields.get("schedule"), step.fields.get("steps")
    if not isinstance(schedule, Form):
        return
    total = 0.0
    for name in ("warmup", "decay"):
        value = schedule.get(name)
        if not isinstance(value, Quantity):
            continue
        if value.unit == "fraction":
            if not 0 <= value.value <= 1:
                raise Fault(
                    "E0564",
                    f"`{name}` is a share of the steps, found {value.value:g}",
                    at="schedule",
                    help=f"write `{name} = 3%` or `{name} = 100 steps`",
                )
            continue
        total += value.value
    if isinstance(steps, int) and total > steps:
        raise Fault(
            "E0564",
            f"the schedule takes {total:g} steps, the training has {steps}",
            at="schedule",
            help="shorten the warm-up, or write it as a share: `warmup = 3%`",
        )


def _texts(value: Attr) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, tuple) else ()


def _check_choice(step: Typed) -> None:
    """Whole tensors are not chosen beside an adapter."""
    train, freeze = _texts(step.fields.get("train", ("all",))), _texts(step.fields.get("freeze"))
    if isinstance(step.fields.get("adapter"), Form) and (train != ("all",) or freeze):
        at = "freeze" if freeze else "train"
        raise Fault(
            "E0566",
            f"`{at}` chooses whole tensors, but an adapter is trained",
            at=at,
            help='choose with the adapter: `lora(targets = ["q_proj"])`',
        )


def _check_trained(step: Typed, tensors: Mapping[str, TensorInfo]) -> None:
    """Patterns must match something, and something must be left to train."""
    adapter = step.fields.get("adapter")
    if isinstance(adapter, Form):
        for target in _texts(adapter.get("targets", ("all-linear",))):
            if not adapted(tensors, (target,)):
                raise Fault(
                    "E0562",
                    f"no linear layer of the model matches `{target}`",
                    at="adapter",
                    label="matches nothing",
                    help=f"the model has {_examples(tensors)}",
                )
        return
    train, freeze = _texts(step.fields.get("train", ("all",))), _texts(step.fields.get("freeze"))
    for at, patterns in (("train", train), ("freeze", freeze)):
        for pattern in unmatched(tensors, patterns):
            raise Fault(
                "E0563",
                f"no tensor of the model matches `{pattern}`",
                at=at,
                label="matches nothing",
                help=f"the model has {_examples(tensors)}",
            )
    if not trained(tensors, train, freeze):
        at = "freeze" if freeze else "train"
        raise Fault("E0563", "nothing is left to train", at=at, help="freeze less")


def _examples(tensors: Mapping[str, TensorInfo]) -> str:
    """The kinds of linear layers a model has, for a message."""
    kinds = dict.fromkeys(n.split(".")[-2] for n in linear_weights(tensors))
    return ", ".join(f"`{kind}`" for kind in list(kinds)[:8]) or "no linear layers"


def _check_data(step: Typed, data: DatasetType, role: str, model: ModelType | None) -> None:
    """The format must be trainable, supervision must select something, chats need a template."""
    if data.rows == 0:
        raise Fault("E0774", "the dataset has no rows", at=role, help="add rows, or `take` more")
    if data.format is None:
        return
    if data.format not in FORMATS:
        raise Fault(
            "E0776",
            f"this trains on text, prompt-completion or chat, found {data.format}",
            at=role,
            help='name the columns: `prompt = "question", completion = "answer"`',
        )
    supervise = step.fields.get("supervise")
    if isinstance(supervise, str) and supervise not in FORMATS[data.format]:
        raise Fault(
            "E0778",
            f"`supervise = {supervise}` selects nothing in a dataset of format {data.format}",
            at="supervise",
            label="selects nothing",
            help="choose one of " + ", ".join(f"`{s}`" for s in FORMATS[data.format]),
        )
    known = model is not None and model.config is not None
    if data.format == "chat" and known and model and not model.chat_template and not data.template:
        raise Fault(
            "E0779",
            "the data are chats, but the model has no chat template",
            at=role,
            help='give one: `dataset "…" { template = "chatml.jinja" }`',
        )
