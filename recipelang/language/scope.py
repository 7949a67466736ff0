"""Where names live while a program is elaborated: files, templates and comprehensions, each in its
parent.

Names are looked up on demand, so the order of statements has no meaning; a name that is needed
while it is being worked out is defined in terms of itself.

Example: inside the template ``specialise`` of ``medic.recipe`` the chain of scopes is the
template's parameters and bindings, then the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from recipelang.diagnostics import Label, Sink, Source, Span
from recipelang.ir.build import Builder
from recipelang.language import syntax
from recipelang.language.values import POISON, Elaborated
from recipelang.program import GateRoot

__all__ = ["BUILTINS", "Declaration", "FileContext", "Scope", "Session"]

BUILTINS = ("range", "secret", "seeds")

Declaration: TypeAlias = "syntax.Binding | syntax.Param | syntax.Template | syntax.Use"


@dataclass(eq=False)
class FileContext:
    """One file of the program. ``read`` are the defaults that some operation read, ``legal`` the
    fields that they could have been."""

    source: Source
    folder: str
    root: bool
    defaults: dict[str, syntax.Field] = field(default_factory=dict[str, syntax.Field])
    read: set[str] = field(default_factory=set[str])
    legal: set[str] = field(default_factory=set[str])


@dataclass(eq=False)
class Session:
    """What the whole elaboration shares. ``evaluate`` and ``declare`` close the circle between the
    modules that give meaning to expressions, phrases, fields and templates."""

    sink: Sink
    builder: Builder
    evaluate: Callable[[syntax.Value, Scope, str], Elaborated]
    declare: Callable[[Declaration, Scope], Elaborated]
    variants: int = 1000
    gates: list[GateRoot] = field(default_factory=list[GateRoot])
    called: set[syntax.Template] = field(default_factory=set[syntax.Template])
    calling: list[syntax.Template] = field(default_factory=list[syntax.Template])
    results: dict[object, Elaborated] = field(default_factory=dict[object, Elaborated])
    calls: int = 0


@dataclass(eq=False)
class Scope:
    """Names with their declarations or values. ``prefix`` starts the places of steps bound here."""

    session: Session
    file: FileContext
    parent: Scope | None = None
    prefix: str = ""
    declared: dict[str, Declaration] = field(default_factory=dict[str, Declaration])
    values: dict[str, Elaborated] = field(default_factory=dict[str, Elaborated])
    active: set[str] = field(default_factory=set[str])

    @property
    def sink(self) -> Sink:
        """Where faults go."""
        return self.session.sink

    @property
    def builder(self) -> Builder:
        """Where steps are made."""
        return self.session.builder

    def evaluate(self, value: syntax.Value, place: str = "") -> Elaborated:
        """What the expression stands for, in this scope."""
        return self.session.evaluate(value, self, place)

    def child(self, values: dict[str, Elaborated], prefix: str | None = None) -> Scope:
        """A scope inside this one."""
        return Scope(
            self.session, self.file, self, self.prefix if prefix is None else prefix, {}, values
        )

    def holder(self, name: str) -> Scope | None:
        """The nearest scope that has the name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values or name in scope.declared:
                return scope
            scope = scope.parent
        return None

    def known(self) -> Iterator[str]:
        """Every name that can be seen from here."""
        scope: Scope | None = self
        while scope is not None:
            yield from scope.values
            yield from scope.declared
            scope = scope.parent

    def own(self, name: str, span: Span | None = None) -> Elaborated:
        """The value of a name of this very scope; a fault when it is being worked out already."""
        if name in self.values:
            return self.values[name]
        declaration = self.declared[name]
        if name in self.active:
            where = declaration.name.span
            self.sink.error(
                "E0204",
                f"`{name}` is defined in terms of itself",
                where,
                secondary=(Label(span, "and is needed here"),) if span and span != where else (),
                help="a name is bound once, from names that do not need it",
            )
            self.values[name] = POISON
            return POISON
        self.active.add(name)
        value = self.session.declare(declaration, self)
        self.active.discard(name)
        return self.values.setdefault(name, value)

    def look_up(self, name: syntax.Name) -> Elaborated | None:
        """The value of a name as seen from here, or None when nothing has it."""
        holder = self.holder(name.text)
        if holder is None:
            return None
        declaration = holder.declared.get(name.text)
        if (
            isinstance(declaration, syntax.Binding)
            and self.prefix == "" == holder.prefix
            and holder.parent is None
            and declaration.span.start > name.span.start
            and declaration.span.source is name.span.source
        ):
            self._warn_early_use(name, declaration)
        return holder.own(name.text, name.span)

    def _warn_early_use(self, name: syntax.Name, declaration: syntax.Binding) -> None:
        self.sink.warning(
            "W0201",
            f"`{name.text}` is used before its definition",
            name.span,
            secondary=(Label(declaration.name.span, "defined here"),),
            help="move the definition up; the order has no meaning, but a reader starts at the top",
        )
