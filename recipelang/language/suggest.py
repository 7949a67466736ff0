"""The nearest legal name for one that is not: by spelling, and by what other tools call it.

Example:
    >>> nearest("perplexty", ["perplexity", "loss"])
    'perplexity'
    >>> nearest("learning_rate", ["lr", "length"])
    'lr'
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "listed", "nearest"]

ALIASES = {
    "train": ("finetune", "pretrain"), "sft": ("finetune",), "fine_tune": ("finetune",),
    "fine-tune": ("finetune",), "tune": ("finetune",), "lora": ("adapter", "finetune"),
    "peft": ("adapter",), "merge": ("linear-merge", "ties-merge"), "average": ("linear-merge",),
    "soup": ("linear-merge",), "linear": ("linear-merge", "linear"), "ties": ("ties-merge",),
    "slerp": ("slerp-merge",), "task-arithmetic": ("task-arithmetic-merge",), "prune": ("shrink",),
    "load": ("model", "dataset"), "load_dataset": ("dataset",), "data": ("dataset",),
    "checkpoint": ("model", "checkpoint"), "dpo": ("align",), "bake": ("apply",),
    "convert": ("cast",), "ppl": ("perplexity",), "bpb": ("bits-per-byte",),
    "concat": ("mix",), "concatenate": ("mix",), "exact_match": ("accuracy",),
    "learning_rate": ("lr",), "learning-rate": ("lr",), "rate": ("lr",), "step_size": ("lr",),
    "wd": ("weight_decay",), "decay": ("weight_decay",), "batch_size": ("batch",), "bs": ("batch",),
    "num_epochs": ("epochs",), "num_train_epochs": ("epochs",), "max_steps": ("steps",),
    "iterations": ("steps",), "seq_len": ("length",), "max_length": ("length",),
    "max_seq_length": ("length",), "context": ("length",), "sequence_length": ("length",),
    "gradient_clip": ("clip",), "max_grad_norm": ("clip",), "grad_clip": ("clip",),
    "temp": ("temperature",), "t": ("temperature", "t"), "loss": ("objective", "loss"),
    "weights": ("weight",), "optim": ("optimizer",), "optimiser": ("optimizer",),
    "scheduler": ("schedule",), "lr_scheduler": ("schedule",), "warmup": ("schedule", "warmup"),
    "warmup_steps": ("schedule",), "r": ("rank",), "lora_r": ("rank",), "lora_alpha": ("alpha",),
    "beta_1": ("beta1",), "beta_2": ("beta2",), "epsilon": ("eps", "epsilon"),
    "kl": ("forward_kl", "kl"), "kld": ("forward_kl",), "ce": ("cross_entropy",),
    "nll": ("cross_entropy", "loss"), "adam": ("adamw",), "target_modules": ("targets",),
    "random_seed": ("seed",), "test": ("holdout",), "validation": ("holdout",),
    "eval": ("holdout",),
    "test_size": ("holdout",), "bfloat": ("bf16",), "half": ("f16",), "float": ("f32", "Float"),
    "fp16": ("f16",), "fp32": ("f32",), "fp64": ("f64",), "double": ("f64",),
    "int": ("Int",), "str": ("Text",), "string": ("Text",), "String": ("Text",), "bool": ("Bool",),
    "Boolean": ("Bool",), "Number": ("Float",), "Percent": ("Fraction",), "list": ("List",),
    "time": ("wall",), "gpu": ("device",), "vram": ("memory",), "ram": ("memory",),
    "gpus": ("device",), "walltime": ("wall",),
}  # fmt: skip
"""What other tools and habits call things, and our names for them."""


def nearest(name: str, legal: Iterable[str]) -> str | None:
    """The legal name that was probably meant, or None."""
    names = sorted(set(legal))
    for alias in ALIASES.get(name, ALIASES.get(name.lower(), ())):
        if alias in names:
            return alias
    folded = {n.replace("-", "_").lower(): n for n in names}
    flat = name.replace("-", "_").lower()
    if flat in folded:
        return folded[flat]
    import difflib

    found = difflib.get_close_matches(flat, list(folded), 1, 0.6)
    return folded[found[0]] if found else None


def listed(names: Iterable[str], last: str = "or", limit: int = 12) -> str:
    """The names in backticks, in order, joined for a sentence: ``a``, ``b`` or ``c``."""
    quoted = [f"`{name}`" for name in names]
    if len(quoted) > limit:
        return ", ".join(quoted[:limit]) + ", ..."
    if len(quoted) < 2:
        return "".join(quoted)
    return ", ".join(quoted[:-1]) + f" {last} {quoted[-1]}"


def did_you_mean(name: str, legal: Iterable[str], otherwise: str = "") -> str:
    """A help text: the nearest name, or else the legal ones in order."""
    names = list(legal)
    found = nearest(name, names)
    if found:
        return f"did you mean `{found}`?"
    return otherwise or (f"one of {listed(names)}" if names else "")
