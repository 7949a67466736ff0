"""Chats: rendered by the model's template in a sandbox, and what of the text the assistant says.

Supervised is exactly what the model has to write: from the end of the prompt that the template
makes of the messages before (with its generation prompt) to the end of the turn's terminator. That
follows from differences of renderings alone, so templates need no ``{% generation %}`` marks, and
no token's identity decides anything: a pad token that is also the end token is supervised where it
ends a turn.

Where a template writes an earlier turn otherwise once others follow (it drops a thought, say), that
turn gets a document of its own that ends with it: the model is trained on what it will have seen.

Example:
    >>> render = compile_template(
    ...     "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    ...     "{% if add_generation_prompt %}<assistant>{% endif %}"
    ... )
    >>> talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    >>> conversations(render, talk, specials=("</>",))
    [Conversation(text='<user>hi</><assistant>ho</>', spans=((22, 27),))]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from recipelang.diagnostics.diagnostic import fault

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.parser import Parser
    from jinja2.runtime import Context

__all__ = ["Conversation", "Render", "compile_template", "conversations"]

MAX_TEMPLATE = 1024 * 1024
"""Characters of the longest template."""
MAX_TEXT = 16 * 1024 * 1024
"""Characters of the longest rendering."""
MAX_RANGE = 1_000_000
"""Items of all ``range`` s of one rendering together."""
UNSAFE_FILTERS = ("center", "format", "indent", "slice", "batch", "wordwrap", "lipsum", "pprint")
UNSAFE_METHODS = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"}
)

Message: TypeAlias = Mapping[str, object]
Render: TypeAlias = Callable[[Sequence[Message], bool], str]
"""``render(messages, add_generation_prompt)``; raises RecipeError E0779."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A rendered chat; ``spans`` are the half-open ranges of characters the assistant writes."""

    text: str
    spans: tuple[tuple[int, int], ...]


def conversations(
    render: Render, messages: Sequence[Message], specials: Iterable[str], *, last_only: bool = False
) -> list[Conversation]:
    """The documents of a chat: one, unless the template rewrites earlier turns.

    ``specials`` are the texts of the tokenizer's special tokens: where a turn ends in one, that is
    its terminator, and white space after it is the template's. With ``last_only`` only the last
    turn of the assistant counts. A chat without a turn of the assistant gives one document without
    spans.
    """
    known = tuple(s for s in specials if s)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    text = render(messages, False)
    spans: list[tuple[int, int]] = []
    found: list[Conversation] = []
    for turn in reversed(turns[-1:] if last_only else turns):
        start, cut = _turn(render, messages, turn, known)
        if not text.startswith(cut):
            if spans:
                found.append(Conversation(text, tuple(reversed(spans))))
            text, spans = cut, []
        spans.append((start, len(cut)))
    found.append(Conversation(text, tuple(reversed(spans))))
    return found[::-1]


def _turn(
    render: Render, messages: Sequence[Message], turn: int, specials: tuple[str, ...]
) -> tuple[int, str]:
    """Where the turn's text starts, and the rendering up to the end of its terminator."""
    after = render(messages[: turn + 1], False)
    prompt = render(messages[:turn], True)
    content = str(messages[turn]["content"]).strip()
    start = len(prompt)
    if not after.startswith(prompt):
        start = next(
            (i for i, (a, b) in enumerate(zip(prompt, after, strict=False)) if a != b),
            min(len(prompt), len(after)),
        )
        if start < len(render(messages[:turn], False)) or content not in after[start:]:
            raise fault(
                "E0779",
                "the chat template does not go on from its own generation prompt",
                notes=(f"prompt ends in {prompt[-40:]!r}", f"turn reads {after[start:][:40]!r}"),
            )
    trimmed = after.rstrip()
    ended = trimmed != after and len(trimmed) > start and trimmed.endswith(specials)
    return start, trimmed if ended else after


@lru_cache(maxsize=8)
def compile_template(template: str, *, bos: str = "", eos: str = "") -> Render:
    """A template as a function. It can reach nothing but its messages, and no clock.

    Raises RecipeError E0779 for a template that is no Jinja or is too long.
    """
    from jinja2 import TemplateError

    if len(template) > MAX_TEMPLATE:
        raise fault("E0779", "the chat template is longer than 1 MiB")
    try:
        compiled = _environment().from_string(template)
    except (TemplateError, RecursionError, SyntaxError) as error:
        raise fault("E0779", f"the chat template is not valid Jinja: {_said(error)}") from None

    def render(messages: Sequence[Message], add_generation_prompt: bool) -> str:
        parts: list[str] = []
        size = 0
        try:
            for part in compiled.generate(
                messages=[dict(m) for m in messages],
                add_generation_prompt=add_generation_prompt,
                bos_token=bos,
                eos_token=eos,
                tools=None,
                documents=None,
                range=_bounded_range(),
            ):
                size += len(part)
                if size > MAX_TEXT:
                    raise ValueError("it writes more than 16 MiB")
                parts.append(part)
        except Exception as error:  # whatever a template does wrong, the template is at fault
            raise fault(
                "E0779",
                f"the chat template refuses the messages: {_said(error)}",
                help="change the messages, or name another template",
            ) from None
        return "".join(parts)

    return render


def _said(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return text[:1].lower() + text[1:200]


def _bounded_range() -> Callable[..., range]:
    left = MAX_RANGE

    def bounded(*bounds: int) -> range:
        nonlocal left
        found = range(*bounds)
        left -= len(found)
        if left < 0:
            raise ValueError(f"it counts further than {MAX_RANGE}")
        return found

    return bounded


def _environment() -> Environment:
    """What the field's templates expect: trimmed blocks, loop controls, ``raise_exception``."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks are allowed and mean nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    class Bounded(ImmutableSandboxedEnvironment):
        """The sandbox, without what makes huge values of small ones."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            if not numbers or (operator == "**" and abs(right) > 64):
                raise SecurityError(f"`{operator}` is for small numbers")
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if isinstance(obj, str) and attr in UNSAFE_METHODS:
                return False
            return super().is_safe_attribute(obj, attr, value)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, indent: int | None = None, **_: object) -> str:
        return json.dumps(
            value, ensure_ascii=False, indent=None if indent is None else min(indent, 8)
        )

    environment = Bounded(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    for name in UNSAFE_FILTERS:
        environment.filters.pop(name, None)
    environment.filters["tojson"] = tojson
    names: dict[str, Any] = environment.globals
    names.pop("lipsum", None)
    names["raise_exception"] = raise_exception
    return environment
