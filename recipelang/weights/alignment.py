"""Which vocabulary the result of several models has, decided from configurations, headers and
tokenizers alone.

Row n of an embedding stands for token n of the model's tokenizer. Models whose tokenizers hold the
same tokens, under whatever ids and with whatever padding behind them, fit together: rows are taken
by token, in the order of the first model. Models with different tokens fit together as the field
``vocabulary`` says (``same`` refuses them). How rows are taken: :mod:`recipelang.weights.rows`.

Example:
    >>> grown(32000, 32000, 32002), grown(32064, 32000, 32002), grown(32064, 32000, 32100)
    (32002, 32064, 32128)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recipelang.ops.spec import Fault
from recipelang.types import ModelType, TensorInfo
from recipelang.weights.config import SIZES
from recipelang.weights.embeddings import (
    set_vocabulary_size,
    take_vocabulary,
    vocabulary_rows,
    vocabulary_size,
    with_rows,
)
from recipelang.weights.vocabulary import (
    is_readable,
    only_in,
    same_ids,
    shown_token,
    table_of,
    with_added,
)

__all__ = ["Member", "check_extends", "grown", "with_vocabulary"]

MULTIPLES = (128, 64, 32, 16, 8, 4, 2, 1)
"""What a padded number of rows is kept a multiple of."""
OFFER = (
    "write which tokens the result has: `vocabulary = union` for all, `of-subject` for those of "
    "the first model, `of-base` for those of the base"
)
SAME = "take models with one tokenizer: the rows of their embeddings mean the same tokens"


@dataclass(frozen=True, slots=True)
class Member:
    """A model of an operation: ``at`` is its role there (``inputs[1]``), ``name`` what messages
    call it. One that does not ``count`` (an input of weight 0) brings no tokens and no rows."""

    at: str
    name: str
    model: ModelType
    counts: bool = True


def with_vocabulary(result: ModelType, members: Sequence[Member], policy: str | None) -> ModelType:
    """The result with the vocabulary of its members, the first of which is the subject.

    ``policy`` is the field ``vocabulary``, or None for an operation without it. Raises Fault E0602
    (different tokens), E0640 (no tensor with a row a token), E0641 (no base), E0642 (a tokenizer
    that cannot be read).
    """
    first = members[0]
    if policy == "of-base":
        donor = next((m for m in members if m.at.startswith("base")), None)
        if donor is None:
            raise Fault(
                "E0641", "`of-base` asks for the vocabulary of a base, and this has none",
                at="vocabulary", help="write `of-subject`, or `union`",
            )  # fmt: skip
    else:
        donor = first
    others = [m for m in members if _differ(donor, m)]
    if policy in ("same", None):
        _check_tokens(first, others, OFFER if policy else SAME)
    for member in (donor, *others) if others else ():
        _check_rows(member)
    if donor is not first:
        return _of(result, donor)
    if policy == "union":
        if any(m.counts and not (m.model.tensors or m.model.tokenizer) for m in members):
            return ModelType()  # one that was not fetched may bring tokens
        _check_known(members)
        return _union(result, first.model, [m.model for m in others if m.counts])
    return result


def _check_known(members: Sequence[Member]) -> None:
    """Fault E0642 for a model of a union of which nothing says what its rows stand for."""
    for member in members:
        if member.counts and member.model.tokenizer is None:
            raise Fault(
                "E0642",
                f"`{member.name}` has no tokenizer, so which tokens it brings to a union is not "
                "known",
                at=member.at,
                help="put the `tokenizer.json` that it was trained with into its folder, or leave "
                "`vocabulary = union` out",
            )


def grown(rows: int, tokens: int, needed: int) -> int:
    """The rows of an embedding of ``rows`` rows for ``tokens`` tokens that is to hold ``needed``.

    Padding is used first. An embedding that was padded stays padded, to the largest power of two
    (at most 128) that its rows were a multiple of.
    """
    if needed <= rows:
        return rows
    if rows <= tokens:
        return needed
    multiple = next(m for m in MULTIPLES if rows % m == 0)
    return -(-needed // multiple) * multiple


def _differ(a: Member, b: Member) -> bool:
    """Whether the two give another id to a token, as far as that can be known."""
    left, right = a.model.tokenizer, b.model.tokenizer
    if not left or not right or not left.digest or not right.digest or left.digest == right.digest:
        return False
    for member, tokenizer in ((a, left), (b, right)):
        if not is_readable(tokenizer):
            text = f"the tokens of `{member.name}` cannot be read"
            help = "put a `tokenizer.json` into its folder"
            raise Fault("E0642", text, at=member.at, help=help)
    return not same_ids(left, right)


def check_extends(member: Member, origin: Member) -> None:
    """Fault E0602 where a model lacks tokens of the one that it was trained from."""
    if not _differ(member, origin):
        return
    assert member.model.tokenizer is not None
    assert origin.model.tokenizer is not None
    lacking = only_in(origin.model.tokenizer, member.model.tokenizer)
    if lacking:
        raise Fault(
            "E0602",
            f"`{member.name}` and `{origin.name}` have different vocabularies: "
            + _only(origin.name, lacking),
            at=origin.at,
            help=SAME,
        )


def _check_rows(member: Member) -> None:
    """What has another vocabulary must have tensors that follow it."""
    if member.model.tensors is not None and not vocabulary_rows(member.model):
        raise Fault(
            "E0640",
            f"the tokens of `{member.name}` have other ids, and none of its tensors is known to "
            "have a row a token",
            at=member.at,
            help="merge models with one tokenizer",
        )


def _check_tokens(first: Member, others: Sequence[Member], help: str) -> None:
    """Fault E0602 for the first model whose set of tokens is another one."""
    for other in others:
        assert first.model.tokenizer is not None
        assert other.model.tokenizer is not None
        rows = [
            (other.name, only_in(other.model.tokenizer, first.model.tokenizer)),
            (first.name, only_in(first.model.tokenizer, other.model.tokenizer)),
        ]
        shown = [_only(name, tokens) for name, tokens in rows if tokens]
        if shown:
            raise Fault(
                "E0602",
                f"`{first.name}` and `{other.name}` have different vocabularies: "
                + "; ".join(shown),
                at=other.at,
                help=help,
            )


def _only(name: str, tokens: Sequence[tuple[int, str]]) -> str:
    listed = ", ".join(f"{shown_token(token)} ({i})" for i, token in tokens[:3])
    more = f" and {len(tokens) - 3} more" if len(tokens) > 3 else ""
    return f"only `{name}` has {listed}{more}"


def _of(result: ModelType, member: Member) -> ModelType:
    """The result with another model's vocabulary, padding and all; what that is made of must be
    known for the result to be."""
    donor = member.model
    if donor.tensors is None:
        return ModelType(tokenizer=donor.tokenizer, chat_template=donor.chat_template)
    if donor.tokenizer is None:
        raise Fault("E0642", f"`{member.name}` has no tokenizer", at=member.at)
    config = result.config
    if config is not None and donor.config is not None:
        config = take_vocabulary(config, donor.config)
    tensors = result.tensors
    if tensors is not None:
        rows, known = vocabulary_rows(donor), vocabulary_rows(result)
        usual = max(rows.values(), default=0)
        tensors = {
            name: with_rows(info, rows.get(name, usual)) if name in known and rows else info
            for name, info in tensors.items()
        }
    return ModelType(config, tensors, donor.tokenizer, donor.chat_template)


def _union(result: ModelType, first: ModelType, others: Sequence[ModelType]) -> ModelType:
    """The result with the first model's tokens and, behind them, those that only others have: by
    their lowest id in any of them, so that the order of the others changes nothing."""
    assert first.tokenizer is not None
    lowest: dict[str, int] = {}
    for other in others:
        assert other.tokenizer is not None
        for i, token in only_in(other.tokenizer, first.tokenizer):
            lowest[token] = min(i, lowest.get(token, i))
    new = sorted(lowest, key=lambda token: (lowest[token], token))
    if not new:
        return result
    tokens = max(table_of(first.tokenizer), default=-1) + 1
    if tokens + len(new) > SIZES["vocab_size"]:
        raise Fault("E0642", f"the union would have {tokens + len(new)} tokens", at="vocabulary")
    tokenizer = with_added(first.tokenizer, new)
    known = vocabulary_rows(result)
    size = vocabulary_size(result.config or {}) or max(known.values(), default=tokens)
    more = grown(size, tokens, tokens + len(new)) - size
    tensors: dict[str, TensorInfo] | None = None
    if result.tensors is not None:
        tensors = {
            name: with_rows(info, known[name] + more) if name in known else info
            for name, info in result.tensors.items()
        }
    config = result.config
    if config is not None:
        config = set_vocabulary_size(config, size, size + more)
    return ModelType(config, tensors, tokenizer, result.chat_template)
