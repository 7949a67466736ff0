"""share_tokenised_data: make the tokens of a dataset once for all that read them.

Example: a teacher and a student of one tokenizer read ``notes`` in the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipelang.ir.graph import Node
from recipelang.lineage.keys import digest
from recipelang.ops.spec import Operation
from recipelang.passes.state import GraphState, TokenSet
from recipelang.types import DatasetType, ModelType
from recipelang.values import Attr, canonical

__all__ = ["ShareTokenisedData", "token_uses"]

OPTIONS = ("length", "overflow", "packing", "supervise")
"""The fields that decide how a row becomes tokens and windows."""


@dataclass(frozen=True, slots=True)
class ShareTokenisedData:
    """Record which steps read one dataset in the same tokens: equal dataset, tokenizer, chat
    template, window and options.

    Law: tokens are a pure function of these. Nothing is rewritten: the schedule carries the sets.
    """

    name: str = "share_tokenised_data"
    exactness: str = "exact"

    def apply(self, state: GraphState) -> GraphState:
        """Collect the uses by what decides their tokens."""
        found: dict[str, TokenSet] = {}
        for node in state.nodes():
            for dataset, model in token_uses(node, state.lookup(node.op)):
                one = _token_set(state, node, dataset, model)
                if one is None:
                    continue
                known = found.get(one.key)
                users = one.users if known is None else (*known.users, node)
                found[one.key] = replace(one, users=tuple(dict.fromkeys(users)))
        shared = tuple(found.values())
        texts = [_text(state, one) for one in shared if len(one.users) > 1]
        return replace(state, token_sets=shared).note(self.name, *texts)


def token_uses(node: Node, operation: Operation | None) -> list[tuple[Node, Node]]:
    """The pairs (dataset, model) whose tokens a step reads. A step that trains reads its data in
    the tokens of the model it starts from, one that measures in those of each model."""
    if operation is None or operation.kind not in ("train", "measure", "evaluate", "choose"):
        return []
    datasets = [n for n in node.inputs if isinstance(n.type, DatasetType)]
    if operation.kind == "train":
        start = node.one(operation.origin)
        models = [start] if start is not None else []
    else:
        models = [n for n in node.inputs if isinstance(n.type, ModelType)]
    return [(dataset, model) for dataset in datasets for model in models]


def _token_set(state: GraphState, user: Node, dataset: Node, model: Node) -> TokenSet | None:
    """The set, or None while the tokenizer is not known."""
    data, of = dataset.type, model.type
    if not isinstance(data, DatasetType) or not isinstance(of, ModelType) or of.tokenizer is None:
        return None
    options: dict[str, Attr] = {name: user.attr(name) for name in OPTIONS}
    length = options["length"] = options["length"] or data.length
    document = {
        "dataset": state.step_id(dataset),
        "tokenizer": of.tokenizer.digest,
        "template": of.chat_template,
        "options": {name: canonical(value) for name, value in options.items()},
    }
    key = digest("recipelang/tokens/1", document)
    known = length if isinstance(length, int) else None
    return TokenSet(key, dataset, of.tokenizer.digest, known, (user,))


def _text(state: GraphState, one: TokenSet) -> str:
    users = [state.place(n) or n.op for n in one.users]
    window = f" in windows of {one.length} tokens" if one.length else ""
    named = ", ".join(f"`{name}`" for name in users[:4]) + (", ..." if len(users) > 4 else "")
    return f"`{state.place(one.dataset)}`{window} is tokenised once for {named}"
