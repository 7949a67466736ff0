"""Files of a program: what each declares, in what order names are worked out, and what ``use``
brings in.

Example: ``use "lib/evals.recipe" as evals`` makes the templates and constants of that file members
of ``evals``; its gates, publishes, budget and defaults are ignored with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

from recipelang.diagnostics import Label, Source
from recipelang.language import syntax
from recipelang.language.parser import parse
from recipelang.language.reading import read_source
from recipelang.language.scope import Declaration, FileContext, Scope, Session
from recipelang.language.templates import check_shape
from recipelang.language.values import POISON

__all__ = ["Files", "declare_names", "mentioned", "order"]


class Files:
    """The files of one program, each read once. ``stack`` are those being read."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.scopes: dict[str, Scope | None] = {}
        self.stack: list[str] = []
        self.sources: list[Source] = []

    def use(self, statement: syntax.Use, scope: Scope) -> Scope | None:
        """The scope of the used file; None (and a fault) when it cannot be had."""
        path = os.path.join(scope.file.folder, statement.path.value)
        key = os.path.realpath(path)
        sink, span = self.session.sink, statement.path.span
        if key in self.stack:
            sink.error(
                "E0207",
                "files use each other in a circle",
                span,
                help="move what both need into a third file",
            )
            return None
        if key in self.scopes:
            return self.scopes[key]
        shown = os.path.relpath(path) if not os.path.isabs(statement.path.value) else path
        if not os.path.isfile(path):
            sink.error(
                "E0206",
                f"there is no file `{statement.path.value}`",
                span,
                help="the path is relative to the file that holds the `use`",
            )
            self.scopes[key] = None
            return None
        source = read_source(shown, sink)
        if source is None:
            self.scopes[key] = None
            return None
        self.sources.append(source)
        self.stack.append(key)
        tree = parse(source, sink)
        context = FileContext(tree.source, os.path.dirname(os.path.abspath(path)), root=False)
        used = Scope(self.session, context)
        declare_names(tree, used)
        for name in order(used.declared):
            if isinstance(used.declared[name], syntax.Use):
                used.own(name)
        self._ignored(tree, statement)
        self.stack.pop()
        self.scopes[key] = used
        return used

    def _ignored(self, tree: syntax.File, statement: syntax.Use) -> None:
        """Warn of statements that have no effect in a used file."""
        for other in tree.statements:
            if isinstance(other, syntax.Gate | syntax.Publish | syntax.Setting):
                word = other.keyword.text if not isinstance(other, syntax.Publish) else "publish"
                self.session.sink.warning(
                    "W0202",
                    f"this `{word}` is ignored: the file is used by another",
                    other.span,
                    secondary=(Label(statement.span, "used here"),),
                    help="a used file exports templates and constants",
                )


def declare_names(tree: syntax.File, scope: Scope) -> None:
    """Enter the file's names into its scope; a name stands once, a faulty statement's is unknown
    in silence."""
    for statement in tree.statements:
        if not isinstance(statement, syntax.Binding | syntax.Param | syntax.Template | syntax.Use):
            continue
        if isinstance(statement, syntax.Template):
            check_shape(statement, scope)
        name = statement.name.text
        known: Declaration | None = scope.declared.get(name)
        if known is not None:
            scope.sink.error(
                "E0203",
                f"`{name}` is bound twice",
                statement.name.span,
                secondary=(Label(known.name.span, "first here"),),
                help="a name is bound once; call one of them something else",
            )
        else:
            scope.declared[name] = statement
    for name in tree.broken:
        if name not in scope.declared:
            scope.values[name] = POISON


def order(declared: dict[str, Declaration]) -> list[str]:
    """The names, those that a name mentions before it: so that no chain of names is worked out by a
    deep recursion. Circles are left for the lookup to find."""
    done: dict[str, bool] = {}
    out: list[str] = []
    for start in declared:
        stack = [(start, False)]
        while stack:
            name, ready = stack.pop()
            if ready:
                if not done[name]:
                    done[name] = True
                    out.append(name)
            elif name not in done:
                done[name] = False
                stack.append((name, True))
                inner = dict.fromkeys(mentioned(declared[name]))
                stack += [(n, False) for n in reversed(inner) if n in declared and n not in done]
    return out


def mentioned(tree: object) -> Iterator[str]:
    """The first parts of all names in a syntax tree, also those that turn out to be verbs or
    members."""
    stack: list[object] = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, syntax.Ref):
            yield item.parts[0].text
        elif isinstance(item, tuple):
            stack.extend(reversed(cast("tuple[object, ...]", item)))
        else:
            stack.extend(getattr(item, name) for name in _CHILDREN.get(type(item), ()))


def _children(kind: type) -> tuple[str, ...]:
    """The fields of a kind of syntax node that may hold names, last first."""
    names = cast("tuple[str, ...]", getattr(kind, "__slots__", ()))
    return tuple(n for n in reversed(names) if n not in ("span", "op", "op_span", "preposition"))


_LEAVES = (syntax.Number, syntax.Text, syntax.Name)
_CHILDREN = {
    kind: _children(kind)
    for kind in vars(syntax).values()
    if isinstance(kind, type) and kind.__module__ == syntax.__name__ and kind not in _LEAVES
}
