"""dataset: rows of text, prompts with completions, or chats, from a file.

Example:
    >>> dataset.result
    'Dataset'
"""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.diagnostics import RecipeError
from recipelang.ops.spec import (
    DRAWS,
    LOCATION,
    SUBJECT,
    Examples,
    Fault,
    Range,
    Tokens,
    Typed,
    operation,
    units,
)
from recipelang.types import DatasetType
from recipelang.values import Quantity

__all__ = ["dataset"]


def _type(step: Typed) -> DatasetType:
    from recipelang.data.source import inspect

    take = step.fields.get("take")
    if isinstance(take, Quantity) and take.value < 1:
        raise Fault(
            "E0572", "`take` takes nothing", at="take", help="write a number of examples or tokens"
        )
    try:
        return inspect(step.fields)
    except RecipeError as error:
        found = error.diagnostics[0]
        at = "template" if found.code == "E0779" else "uri"
        raise Fault(found.code, found.message, at=at, help=found.help, notes=found.notes) from None


@operation(kind="data", result="Dataset", result_type=_type)
def dataset(
    uri: Annotated[str, SUBJECT, LOCATION, "a .jsonl, .csv or .txt file"],
    format: Annotated[
        Literal["text", "prompt-completion", "chat"] | None, "what a row is [from the columns]"
    ] = None,
    text: Annotated[str | None, "the column of texts [text]"] = None,
    prompt: Annotated[str | None, "the column of prompts [prompt]"] = None,
    completion: Annotated[str | None, "the column of completions [completion]"] = None,
    messages: Annotated[str | None, "the column of chats [messages]"] = None,
    length: Annotated[
        Tokens | None, Range(2), "tokens of a row or window, where a step names none"
    ] = None,
    take: Annotated[
        Quantity | None, units("examples", "tokens"), "only so much of it, from the start"
    ] = None,
    shuffle: Annotated[bool, "put the rows in a drawn order before `take`"] = False,
    join: Annotated[Examples | None, Range(1), "lines of text that make one document"] = None,
    template: Annotated[
        str | None, LOCATION, "the path of a chat template in Jinja [the model's]"
    ] = None,
    seed: Annotated[int, DRAWS, "keys `shuffle`"] = 0,
) -> None:
    """Read rows from a file.

    A row of a `.jsonl` file is an object, of a `.csv` file a line under a line of column names, of
    a `.txt` file a line that is not empty. A row has `text`, or `prompt` and `completion`, or
    `messages` (objects with `role` and `content`); other names are given by fields.

        notes = dataset "data/notes.jsonl" { text = "body", length = 4k tokens }
    """
