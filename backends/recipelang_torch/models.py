"""Models on torch: transformers' classes, built from a configuration and filled from a checkpoint.

Nothing is fetched and no code of a repository is run. Documents of a packed row are told apart by
their positions, which restart at 0: transformers builds the masks from them, with whatever sliding
windows or chunks the architecture has, and :func:`isolates` tries whether they hold.

Example:
    >>> model = load(checkpoint, "BF16", place())          # doctest: +SKIP
    >>> model.logits(model.hidden(inputs(batch, model.device))).dtype  # doctest: +SKIP
    torch.float32
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from logging import CRITICAL
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import logging

from recipelang.backend import Precision
from recipelang.data.batch import Batch
from recipelang.diagnostics import RecipeError, fault
from recipelang.processors import processors
from recipelang.types import TensorInfo
from recipelang.weights.checkpoint import Checkpoint
from recipelang_torch import exact, products
from recipelang_torch.arrays import DTYPES, from_numpy, wide

__all__ = ["Decoder", "Inputs", "Unsupported", "inputs", "isolates", "load", "trial"]


class Unsupported(Exception):
    """transformers has no class for the model, or its class and the checkpoint differ; the text
    says where."""


class Inputs(NamedTuple):
    """What a forward pass takes, (rows, length) int64 on the device."""

    tokens: torch.Tensor
    positions: torch.Tensor


def inputs(batch: Batch, device: torch.device) -> Inputs:
    """The batch on the device. Padding goes on counting after the last document: it stands behind
    everything, so nothing attends to it, and a row with one document needs no mask at all."""
    length = batch.tokens.shape[1]
    counted = np.where(batch.segments > 0, np.arange(length), -1)
    last = counted.max(axis=1, initial=0, keepdims=True)
    after = np.arange(length) - last + np.take_along_axis(batch.positions, last, axis=1)
    positions = np.where(batch.segments > 0, batch.positions, after)
    return Inputs(
        torch.from_numpy(batch.tokens.astype(np.int64)).to(device),
        torch.from_numpy(positions.astype(np.int64)).to(device),
    )


@dataclass(eq=False)
class Decoder:
    """A causal language model whose output matrix can be applied to chosen positions only."""

    module: Any
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        """Make the body answer with given hidden states when :meth:`logits` asks it to."""
        self._given: torch.Tensor | None = None
        body = self.module.base_model
        forward = body.forward

        def either(*args: Any, **kwargs: Any) -> Any:
            if self._given is not None:
                return BaseModelOutputWithPast(last_hidden_state=self._given)
            return forward(*args, **kwargs)

        body.forward = either

    def hidden(self, given: Inputs) -> torch.Tensor:
        """The last hidden states, (rows, length, hidden)."""
        output = self.module.base_model(
            input_ids=given.tokens, position_ids=given.positions, use_cache=False
        )
        states: torch.Tensor = output.last_hidden_state
        return states

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, vocabulary) of hidden states (n, hidden), float32 or wider, with what the model's own
        forward pass does around its output matrix (scaling, soft caps)."""
        self._given = hidden[None]
        try:
            output = self.module(inputs_embeds=self._given, use_cache=False)
        finally:
            self._given = None
        logits: torch.Tensor = output.logits.squeeze(0)  # whose gradient is a view
        return logits.to(wide(logits.dtype))

    def named_weights(self) -> dict[str, nn.Parameter]:
        """Checkpoint name -> parameter; tied names share one."""
        named = self.module.named_parameters(remove_duplicate=False)
        return {name: weight for name, weight in named}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars and reports of transformers: what is wrong becomes a diagnostic."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _classes(config: Mapping[str, object]) -> tuple[Any, Any]:
    """The parsed configuration and the causal language model's class. Raises Unsupported."""
    kind = config.get("model_type")
    known = transformers.CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in known:
        raise Unsupported(f"the model type `{kind}`")
    for key in ("quantization_config", "auto_map"):
        if config.get(key) is not None:
            raise Unsupported(f"`{key}` in the configuration")
    plain = {key: copy.deepcopy(value) for key, value in config.items() if key != "model_type"}
    for key in plain:  # a recipe says what is random, not a configuration
        if "dropout" in key or "pdrop" in key:
            plain[key] = 0.0
    try:
        parsed = known[kind].from_dict(plain)
    except (
        Exception
    ) as reason:  # whatever a class's own checks raise says what is wrong with the file
        raise Unsupported(f"this configuration of `{kind}`: {_line(reason)}") from reason
    table = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(parsed) not in table:
        raise Unsupported(f"`{kind}` as a causal language model")
    return parsed, table[type(parsed)]


def _line(reason: Exception) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0][:200]


def _fill(
    config: Mapping[str, object], tensors: dict[str, torch.Tensor], dtype: torch.dtype
) -> Any:
    """The module over these very tensors (no copy where the dtype fits). Raises Unsupported."""
    parsed, made = _classes(config)
    attention = exact.attention_for(made, parsed, dtype)
    with _silence():
        try:
            module, report = made.from_pretrained(
                None, config=parsed, state_dict=tensors, dtype=dtype, attn_implementation=attention,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as reason:
            raise Unsupported(
                f"this checkpoint of `{config.get('model_type')}`: {_line(reason)}"
            ) from reason
    for kind in ("mismatched", "missing", "unexpected"):
        found = sorted(str(x[0] if isinstance(x, tuple) else x) for x in report[f"{kind}_keys"])
        if found:
            of = {
                "mismatched": "another shape of",
                "missing": "a checkpoint without",
                "unexpected": "the tensor",
            }
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise Unsupported(f"{of[kind]} `{found[0]}`{more} in `{config.get('model_type')}`")
    return module.eval()


def trial(config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> None:
    """Build the model without memory for its weights. Raises Unsupported where it would not load.

    Experts that are stored one by one would be joined, which takes their memory: such a model is
    tried when it is loaded.
    """
    for name, info in tensors.items():
        if info.dtype not in DTYPES:
            raise Unsupported(f"the dtype `{info.dtype}` of `{name}`")
    if any(".experts.0." in name for name in tensors):
        _classes(config)
        return
    one = torch.zeros((), dtype=torch.bfloat16)  # expanded, every element is this one
    _fill(config, {name: one.expand(info.shape) for name, info in tensors.items()}, torch.bfloat16)


def load(model: Checkpoint, precision: Precision, device: torch.device) -> Decoder:
    """Bring a model to the device in the precision's dtype. Raises RecipeError E0803, E07.

    The checkpoint is read tensor by tensor, a thread each, so that the host holds one copy of the
    weights.
    """
    dtype = DTYPES[precision]
    for name, info in model.tensors.items():
        if info.dtype not in DTYPES:
            raise refused(f"the dtype `{info.dtype}` of `{name}`")

    def read(name: str) -> torch.Tensor:
        tensor = from_numpy(model.read(name).reshape(model.tensors[name].shape)).to(dtype)
        model.release(name)
        return tensor

    with ThreadPoolExecutor(processors()) as pool:
        tensors = dict(zip(model.tensors, pool.map(read, model.tensors), strict=True))
    try:
        module = _fill(model.config, tensors, dtype).to(device)
    except Unsupported as reason:
        raise refused(str(reason)) from reason
    exact.sharpen(module, dtype)
    products.prepare(module, dtype, device)
    return Decoder(module, device, dtype)


def refused(reason: str) -> RecipeError:
    """The diagnostic for a model that this backend does not run."""
    return fault("E0803", f"the torch backend does not know {reason}")


_SMALL = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 3, "n_embd": 64, "n_head": 4,
    "n_inner": 96, "ffn_dim": 96, "word_embed_proj_dim": 64, "moe_intermediate_size": 32,
    "max_position_embeddings": 64, "n_positions": 64,
    "query_pre_attn_scalar": 16, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
"""Sizes for the probe: the kind of every layer stays as it is."""


def _small(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same architecture with few and narrow layers, every kind of layer among them."""
    small = {
        key: _SMALL[key] if config[key] is not None and key in _SMALL else config[key]
        for key in config
    }
    kinds = config.get("layer_types")
    deep = config.get("num_hidden_layers") or config.get("n_layer") or 2
    keep = deep if not kinds else 1 + max(kinds.index(kind) for kind in set(kinds))
    layers = min(deep, max(2, keep if kinds else 2, int(config.get("sliding_window_pattern") or 0)))
    for key in ("num_hidden_layers", "n_layer"):
        if config.get(key):
            small[key] = layers
    if kinds:
        small["layer_types"] = kinds[:layers]
    if config.get("num_key_value_heads") == config.get("num_attention_heads"):
        small["num_key_value_heads"] = small.get("num_attention_heads")
    return small


def isolates(config: Mapping[str, object]) -> bool:
    """Whether packed documents do not see each other, tried on a small random model of the
    architecture.

    The second document's logits must not move by one bit when the first one's tokens change, nor
    the first one's when the second changes. False also where no small model can be built.
    """
    return _probe(json.dumps(_small(config), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _probe(text: str) -> bool:
    config = json.loads(text)
    try:
        parsed, made = _classes(config)
        with _silence(), torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            module = made._from_config(
                parsed, dtype=torch.float32, attn_implementation=exact.attention_for(made, parsed)
            ).eval()
            for weight in module.parameters():
                weight.add_(torch.randn_like(weight) * 0.3)
            tokens = torch.randint(3, int(config.get("vocab_size", 64)), (1, 16))
            positions = torch.cat([torch.arange(7), torch.arange(9)])[None]

            def run(changed: torch.Tensor) -> torch.Tensor:
                logits: torch.Tensor = module(
                    input_ids=changed, position_ids=positions, use_cache=False
                ).logits
                return logits

            first, second, plain = tokens.clone(), tokens.clone(), run(tokens)
            first[:, :7] = (tokens[:, :7] + 5) % 61 + 3
            second[:, 7:] = (tokens[:, 7:] + 5) % 61 + 3
            moved_first, moved_second = run(first), run(second)
            alone = module(input_ids=tokens[:, 7:], use_cache=False).logits
    except Exception:  # an architecture that cannot be tried is one that packing is not offered for
        return False
    return bool(
        torch.equal(moved_first[:, 7:], plain[:, 7:])
        and torch.equal(moved_second[:, :7], plain[:, :7])
        and not torch.equal(moved_first[:, :7], plain[:, :7])
        and torch.allclose(alone, plain[:, 7:], rtol=1e-3, atol=1e-3)
    )  # fmt: skip
