"""Scoring and greedy decoding with a model in memory.

Example:
    >>> Model(decoder).decode([[1, 5]], max_tokens=3, stop=frozenset({2}))  # doctest: +SKIP
    [[7, 7, 9]]
"""

# torch does not annotate these of its functions:
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recipelang import memory
from recipelang.data.batch import Batch
from recipelang_torch import models, shard
from recipelang_torch.arrays import to_numpy
from recipelang_torch.models import Decoder

__all__ = ["Model", "score"]

_PROMPTS = 16
"""Prompts decoded together: reading the weights is what a token costs, whatever their number."""


@torch.no_grad()
def score(model: Decoder, batch: Batch) -> NDArray[np.float64]:
    """(rows, length): the log-probability of each supervised token given those before it, 0.0
    elsewhere."""
    out = np.zeros(batch.tokens.shape, np.float64)
    size = shard.rows_at_once(model, batch.tokens.shape[1], backward=False)
    for start in range(0, batch.rows, size):
        part = batch.take(start, start + size)
        rows, columns = np.nonzero(part.supervised)
        if len(rows) == 0:
            continue
        hidden = model.hidden(models.inputs(part, model.device))
        chosen = hidden[torch.from_numpy(rows), torch.from_numpy(columns - 1)]
        targets = torch.from_numpy(part.tokens[rows, columns].astype(np.int64)).to(model.device)
        found = [
            -torch.nn.functional.cross_entropy(model.logits(h), t, reduction="none")
            for h, t in zip(
                *(x.split(shard.positions_at_once(model)) for x in (chosen, targets)), strict=True
            )
        ]
        out[rows + start, columns] = to_numpy(torch.cat(found))
    return out


@dataclass(eq=False)
class Model:
    """A :class:`recipelang.backend.LoadedModel`. ``together``: prompts of different lengths may
    share a batch, because masked padding before them changes nothing in this architecture."""

    decoder: Decoder
    together: bool = True

    @torch.no_grad()
    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """(rows, length, vocabulary), float32 (float64 at F64)."""
        hidden = self.decoder.hidden(models.inputs(batch, self.decoder.device))
        return np.stack([to_numpy(self.decoder.logits(row)) for row in hidden])

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """(rows, length) natural logs, 0.0 where nothing is supervised."""
        return score(self.decoder, batch)

    def decode(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """The greedy continuation of each prompt, without the prompt and the stop token."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        size = _PROMPTS if self.together else 1
        out: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(order), size):
            group = order[start : start + size]
            for i, tokens in zip(
                group, self._group([prompts[i] for i in group], max_tokens, stop), strict=True
            ):
                out[i] = tokens
        return out

    @torch.no_grad()
    def _group(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """Decode some prompts in step, padded at the front to one length."""
        device, longest = self.decoder.device, max(len(prompt) for prompt in prompts)
        tokens = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
        seen = torch.tensor(
            [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device
        )
        out: list[list[int]] = [[] for _ in prompts]
        live, cache = [True] * len(prompts), None
        for _ in range(max_tokens):
            positions = (seen.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            answer = self.decoder.module(
                input_ids=tokens, attention_mask=seen, position_ids=positions,
                past_key_values=cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
            cache, tokens = answer.past_key_values, answer.logits[:, -1].argmax(-1, keepdim=True)
            seen = torch.cat([seen, torch.ones_like(tokens)], dim=1)
            for i, token in enumerate(tokens[:, 0].tolist()):
                live[i] = live[i] and token not in stop
                if live[i]:
                    out[i].append(token)
            if not any(live):
                break
        return out

    def close(self) -> None:
        """Free the device's memory."""
        del self.decoder
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        memory.give_back()
