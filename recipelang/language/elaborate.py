"""From syntax trees to a checked program: the meaning of a whole recipe.

Programs are total and finite, so elaboration evaluates them: names are resolved, templates
expanded, lists unrolled, and every verb phrase becomes a shared step of the graph at once.

Example:
    >>> sink = Sink()
    >>> program = elaborate(parse(Source("a.recipe", "rate = 2 * 5e-6\\n"), sink), sink)
    >>> program.bindings["rate"]
    1e-05
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from recipelang.diagnostics import Diagnostic, Label, RecipeError, Sink, Source, Span
from recipelang.ir.build import Builder
from recipelang.ir.graph import Node
from recipelang.language import syntax
from recipelang.language.annotations import conform, expected_type
from recipelang.language.expressions import evaluate
from recipelang.language.fields import Owner
from recipelang.language.files import Files, declare_names, order
from recipelang.language.parser import parse
from recipelang.language.roots import budget, constant_seed, gate, is_evaluation, published
from recipelang.language.scope import Declaration, FileContext, Scope, Session
from recipelang.language.suggest import did_you_mean, listed
from recipelang.language.templates import check_alone
from recipelang.language.values import (
    POISON,
    Attached,
    Builtin,
    Elaborated,
    Imported,
    Poison,
    TemplateValue,
    Words,
    constant,
)
from recipelang.program import Program, Value, nodes_of
from recipelang.types import ModelType
from recipelang.values import Attr

__all__ = ["elaborate"]


def elaborate(
    tree: syntax.File,
    sink: Sink,
    *,
    settings: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Program | None:
    """The program of a parsed file; None when the sink holds an error.

    ``settings`` are values for ``param`` names, as text of the language. ``folder`` is where
    relative paths start; by default the folder of the file.
    """
    path = tree.source.path
    if folder is None:
        folder = (
            os.path.dirname(os.path.abspath(path)) if os.path.sep in path or path else os.getcwd()
        )
    try:
        return _Elaboration(tree, sink, dict(settings or {}), folder).run()
    except RecipeError as error:  # of the installation: two plug-ins for one verb
        sink.extend(error.diagnostics)
        return None


class _Elaboration:
    """One run over one root file."""

    def __init__(
        self, tree: syntax.File, sink: Sink, settings: dict[str, str], folder: str
    ) -> None:
        self.tree, self.sink, self.settings = tree, sink, settings
        self.session = Session(sink, Builder(), evaluate, self.declare)
        self.files = Files(self.session)
        self.files.stack.append(os.path.realpath(tree.source.path))
        self.scope = Scope(self.session, FileContext(tree.source, folder, root=True))
        self.params: dict[str, Attr] = {}

    def run(self) -> Program | None:
        """Give every statement its meaning."""
        scope = self.scope
        declare_names(self.tree, scope)
        self._unknown_settings()
        limits = budget(self._setting("budget"), scope)
        self.session.variants = limits.variants
        self._defaults()
        for name in order(scope.declared):
            self._guarded(name)
        publishes = published(self.tree, scope)
        gates = [
            g for s in self.tree.statements if isinstance(s, syntax.Gate)
            if (g := gate(s, scope)) is not None
        ]  # fmt: skip
        self._uncalled()
        self._unread_defaults()
        if self.sink.has_errors:
            return None
        bindings = {
            s.name.text: self._bound(s.name.text)
            for s in self.tree.statements
            if isinstance(s, syntax.Binding)
        }
        program = Program(
            source=self.tree.source,
            graph=self.session.builder.graph,
            bindings=bindings,
            places={},
            spans=self.session.builder.spans,
            gates=(*self.session.gates, *gates),
            publishes=publishes,
            evaluations=tuple(
                v for v in bindings.values() if isinstance(v, Node) and is_evaluation(v)
            ),
            budget=limits,
            seed=self.session.builder.seed,
            inferred=self.session.builder.inferred,
            params=self.params,
            overridden=frozenset(self.settings),
            used=tuple(self.files.sources),
        )
        program = replace(program, places=self.session.builder.places(_all_nodes(program)))
        self._note_unknown(program)
        return program

    def _note_unknown(self, program: Program) -> None:
        """One note for all sources whose headers are not on this machine."""
        unknown = [
            node for node in program.places
            if not node.inputs and isinstance(node.type, ModelType) and node.type.tensors is None
        ]  # fmt: skip
        if unknown:
            names = listed((program.places[node] for node in unknown), "and")
            first = program.spans.get(unknown[0])
            self.sink.add(
                Diagnostic(
                    "W0704",
                    "note",
                    f"what {names} {'is' if len(unknown) == 1 else 'are'} like is not known here",
                    Label(first) if first else None,
                    (),
                    ("shapes, tokenizers and layers of what is made of them were not checked",),
                    "`recipe fetch FILE --metadata` gets headers and tokenizers only",
                )
            )

    def _bound(self, name: str) -> Value:
        return constant(self.scope.values[name])

    def _guarded(self, name: str) -> None:
        """Work a name out; expressions that nest too deeply for that are a fault, not a crash."""
        try:
            self.scope.own(name)
        except RecursionError:
            self.scope.values[name] = POISON
            self.sink.error(
                "E0215",
                f"`{name}` nests too deeply",
                self.scope.declared[name].name.span,
                help="bind parts of it to names",
            )

    # ------------------------------------------------------------ declarations

    def declare(self, declaration: Declaration, scope: Scope) -> Elaborated:
        """The value of a declared name."""
        match declaration:
            case syntax.Binding(name=name, type=written, value=value):
                if not scope.prefix and not scope.file.root:
                    return scope.evaluate(value)
                found = scope.evaluate(value, f"{scope.prefix}{name.text}")
                if isinstance(found, Builtin):
                    return POISON
                if isinstance(found, Attached):
                    self.sink.error(
                        "E0510",
                        "parameters stand on an input of a verb",
                        value.span,
                        help=f"write them where `{name.text}` goes in: `{name.text}(weight = 1)`",
                    )
                    return POISON
                if written is None:
                    return found
                owner = Owner(name.text, name.span)
                wanted = expected_type(written, scope.sink)
                return conform(found, wanted, name.text, value.span, scope, owner)
            case syntax.Param():
                return self._param(declaration, scope)
            case syntax.Template():
                return TemplateValue(declaration, scope)
            case syntax.Use(name=name):
                used = self.files.use(declaration, scope)
                return Imported(used, name.span) if used is not None else POISON

    def _param(self, param: syntax.Param, scope: Scope) -> Elaborated:
        """A parameter of the file: from ``--set``, else its default."""
        name = param.name.text
        wanted = expected_type(param.type, self.sink)
        owner = Owner(name, param.name.span)
        if scope.file.root and name in self.settings:
            found, span = self._setting_value(name, param.type.name.text == "Text")
        elif param.default is not None:
            found, span = scope.evaluate(param.default), param.default.span
        else:
            self.sink.error(
                "E0208",
                f"the parameter `{name}` has no value",
                param.name.span,
                help=f"give it a default, or run with `--set {name}=...`",
            )
            return POISON
        value = conform(found, wanted, name, span, scope, owner)
        if scope.file.root and not isinstance(value, Poison):
            kept = constant(value)
            if not isinstance(kept, Node):
                self.params[name] = kept  # type: ignore[assignment]
        return value

    def _setting_value(self, name: str, is_text: bool) -> tuple[Elaborated, Span]:
        """A value of ``--set``: an expression of the language; a bare text where a text is
        wanted."""
        text = self.settings[name]
        source = Source("--set", f"{name} = {text}\n")
        span = Span(source, len(name) + 3, len(name) + 3 + len(text))
        if is_text and not text.startswith('"'):
            return Words(text, os.getcwd()), span
        tree = parse(source, self.sink)
        context = FileContext(tree.source, os.getcwd(), root=False)
        statement = tree.statements[0] if tree.statements else None
        if not isinstance(statement, syntax.Binding):
            return POISON, span
        return Scope(self.session, context).evaluate(statement.value), span

    def _unknown_settings(self) -> None:
        params = [n for n, d in self.scope.declared.items() if isinstance(d, syntax.Param)]
        for name, text in self.settings.items():
            if name not in params:
                source = Source("--set", f"{name}={text}\n")
                self.sink.error(
                    "E0208",
                    f"the recipe has no parameter `{name}`",
                    Span(source, 0, len(name)),
                    help=did_you_mean(name, params, "it declares none"),
                )

    # ------------------------------------------------------------ settings

    def _setting(self, keyword: str) -> syntax.Setting | None:
        """The file's block of that name, which stands once."""
        found = [
            s for s in self.tree.statements
            if isinstance(s, syntax.Setting) and s.keyword.text == keyword
        ]  # fmt: skip
        for extra in found[1:]:
            first = Label(found[0].keyword.span, "first here")
            self.sink.error(
                "E0212",
                f"`{keyword}` stands twice",
                extra.keyword.span,
                secondary=(first,),
                help="write all of it in one block",
            )
        return found[0] if found else None

    def _defaults(self) -> None:
        statement = self._setting("defaults")
        rows = self.scope.file.defaults
        for row in statement.block.fields if statement else ():
            name = row.name.text
            if name in rows:
                first = Label(rows[name].name.span, "here first")
                self.sink.error(
                    "E0507",
                    f"`{name}` is given twice",
                    row.name.span,
                    secondary=(first,),
                    help="keep one of the two",
                )
            else:
                rows[name] = row
        self.session.builder.seed = constant_seed(rows.get("seed"), self.scope)
        self.scope.file.read.add("seed")

    def _unread_defaults(self) -> None:
        context = self.scope.file
        if self.sink.has_errors:
            return
        for name, row in context.defaults.items():
            if name not in context.read:
                self.sink.error(
                    "E0214",
                    f"no operation of this file reads the default `{name}`",
                    row.name.span,
                    help=did_you_mean(name, context.legal - context.read, "remove it"),
                )

    def _uncalled(self) -> None:
        """Check templates that nothing calls, of this file and of used ones."""
        scopes = [self.scope, *(s for s in self.files.scopes.values() if s is not None)]
        for scope in scopes:
            for name, declaration in scope.declared.items():
                if (
                    isinstance(declaration, syntax.Template)
                    and declaration not in self.session.called
                ):
                    value = scope.own(name)
                    if isinstance(value, TemplateValue):
                        check_alone(value)


def _all_nodes(program: Program) -> list[Node]:
    """The nodes of every binding, gate and publish, in the file's order."""
    found = [n for value in program.bindings.values() for n in nodes_of(value)]
    for root in program.gates:
        found += [*nodes_of(root.left), *nodes_of(root.right)]
    return [*found, *(p.what for p in program.publishes)]
