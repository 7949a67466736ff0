"""The syntax tree: what the parser makes of one file, every node with its span.

The tree says what was written, not what it means: names are unresolved, quantities are still text
with a suffix and a unit. Lists of statements keep the file's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from recipelang.diagnostics import Source, Span

# ---------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class Name:
    """One name with its span."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Ref:
    """``notes`` or ``notes.train``: one or more names joined by dots."""

    parts: tuple[Name, ...]
    span: Span

    @property
    def text(self) -> str:
        """The dotted text."""
        return ".".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written: ``60%``, ``4k tokens``, ``-1e-5``. ``unit`` is the unit word, if any."""

    text: str
    unit: Name | None
    span: Span


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal; ``value`` is unescaped."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Bool:
    """``true`` or ``false``."""

    value: bool
    span: Span


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[a, b, c]``."""

    items: tuple[Value, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Each:
    """``[value for a in xs for b in ys]``."""

    value: Value
    loops: tuple[tuple[Name, Value], ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Group:
    """``(value)``."""

    value: Value
    span: Span


@dataclass(frozen=True, slots=True)
class Member:
    """``(value).name`` or ``call(...).name``; dotted plain names are one :class:`Ref`."""

    of: Value
    name: Name
    span: Span


@dataclass(frozen=True, slots=True)
class Arg:
    """An argument of a call, with or without a name."""

    name: Name | None
    value: Value
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """``lora(rank = 16)``, ``chat(weight = 0.4)``, ``specialise(start = base)``."""

    callee: Value
    args: tuple[Arg, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """``left op right`` with op one of ``+ - * /``."""

    op: str
    left: Value
    right: Value
    span: Span
    op_span: Span


@dataclass(frozen=True, slots=True)
class Clause:
    """``with a and b``: a preposition and its operands."""

    preposition: Name
    operands: tuple[Value, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Field:
    """``name = value`` in a block; the name may be a quoted pattern."""

    name: Name
    quoted: bool
    value: Value
    span: Span


@dataclass(frozen=True, slots=True)
class Block:
    """``{ field, field }``."""

    fields: tuple[Field, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Step:
    """A verb phrase: ``finetune base on notes { epochs = 3 }``.

    ``head`` is the verb (a :class:`Ref`) or, for a template, a :class:`Call`. ``subject`` is the
    operand right behind the verb. In a chain, the first step may have one, later ones get theirs
    from the left. ``per { ... }`` and ``x { ... }`` parse as a step with a block alone.
    """

    head: Ref | Call
    subject: Value | None
    clauses: tuple[Clause, ...]
    block: Block | None
    span: Span


@dataclass(frozen=True, slots=True)
class Chain:
    """``first -> step -> step``. ``tails`` has at least one element."""

    first: Value
    tails: tuple[Step, ...]
    span: Span


Value: TypeAlias = (
    "Ref | Number | Text | Bool | ListOf | Each | Group | Member | Call | Binary | Step | Chain"
)

# ---------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class TypeName:
    """``Model`` or ``List[Model]``."""

    name: Name
    args: tuple[TypeName, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Language:
    """``language 1``."""

    version: Number
    span: Span


@dataclass(frozen=True, slots=True)
class Use:
    """``use "lib/evals.recipe" as evals``."""

    path: Text
    name: Name
    span: Span


@dataclass(frozen=True, slots=True)
class Param:
    """``param rate: Float = 1e-5``, and a parameter of a template."""

    name: Name
    type: TypeName
    default: Value | None
    span: Span


@dataclass(frozen=True, slots=True)
class Setting:
    """``budget { ... }`` or ``defaults { ... }``."""

    keyword: Name
    block: Block
    span: Span


@dataclass(frozen=True, slots=True)
class Binding:
    """``name = value`` or ``name: Type = value``."""

    name: Name
    type: TypeName | None
    value: Value
    span: Span


@dataclass(frozen=True, slots=True)
class Give:
    """``give value``, the result of a template."""

    value: Value
    span: Span


@dataclass(frozen=True, slots=True)
class Gate:
    """``require left op right, "message"`` or ``expect ...``; op one of ``<= >= < > ==``."""

    keyword: Name
    left: Value
    op: str
    right: Value
    message: Text | None
    span: Span


@dataclass(frozen=True, slots=True)
class Template:
    """``recipe name(params) => Type { bindings, gates, give }``."""

    name: Name
    params: tuple[Param, ...]
    result: TypeName
    body: tuple[Binding | Gate | Give, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Publish:
    """``publish student to "out/student" { overwrite = true }``."""

    what: Value
    clause: Clause
    block: Block | None
    span: Span


Statement: TypeAlias = "Language | Use | Param | Setting | Binding | Template | Gate | Publish"


@dataclass(frozen=True, slots=True)
class File:
    """One parsed file. Statements with a syntax fault are missing here and reported in the sink.

    ``broken`` holds the names that those statements would have given, so that a use of one is not
    reported as unknown on top.
    """

    source: Source
    statements: tuple[Statement, ...]
    broken: tuple[str, ...] = ()
