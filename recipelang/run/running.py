"""A whole run: check, plan, execute, judge the gates, publish, report.

Example: ``run_recipe(Path("medic.recipe"), RunOptions(targets=("student",))).exit_code`` is 0 when
the student is in the store and every gate that needs it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from recipelang.diagnostics import Diagnostic, Label, RecipeError, Sink
from recipelang.ir.graph import Node
from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.program import GateRoot, Program, nodes_of
from recipelang.run.distrust import device_warnings
from recipelang.run.events import Event, Listener, Note
from recipelang.run.executor import execute
from recipelang.run.extraction_reports import extraction_warnings
from recipelang.run.gates import GateResult, evaluate_gate
from recipelang.run.inputs import inspect_inputs, missing_sources, occupied_places
from recipelang.run.keeping import Keeper, LockedChange, locked_fault
from recipelang.run.locking import changed_places
from recipelang.run.merge_reports import merge_reports, merge_warnings
from recipelang.run.opening import open_value
from recipelang.run.publish import (
    Publication,
    is_published,
    publish_all,
    resolve,
)
from recipelang.run.record import new_run, run_folder, write_run
from recipelang.run.results import Outcome, file_name, markdown, results_json
from recipelang.run.session import Session
from recipelang.run.soup_reports import soup_reports
from recipelang.run.summary import number_text
from recipelang.run.values import AdapterValue, Measurement, ModelValue, Table
from recipelang.store import Store
from recipelang.store.files import ensure_folder
from recipelang.store.locks import collection_lock
from recipelang.store.view import View

__all__ = ["RunOptions", "check_targets", "run_program", "run_recipe"]


def _silent(event: Event) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says: see ``recipe run --help``. ``settings`` are those of ``--set``;
    ``write_lock`` is ``--lock``."""

    targets: tuple[str, ...] = ()
    backend: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    write_lock: bool = False
    locked: bool = False
    offline: bool = False


def run_recipe(
    path: Path, options: RunOptions, listener: Listener = _silent,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:  # fmt: skip
    """Run the recipe in a file. Faults are in the outcome; an interrupt is raised, with everything
    that was finished kept. ``stopped`` tells of a signal that some library may have swallowed."""
    from recipelang.checking import check

    checked = check(path, dict(options.settings))
    if checked.program is not None and not options.offline:
        from recipelang.run.fetching import fetch_missing

        try:
            if fetch_missing(checked.program, path.parent, listener):
                checked = check(path, dict(options.settings))
        except RecipeError as error:
            return _refused(error.diagnostics, checked.sink)
    if checked.program is None or checked.sink.has_errors:
        return _refused((), checked.sink)
    try:
        outcome = run_program(checked.program, path, options, listener, stopped)
    except RecipeError as error:
        return _refused(error.diagnostics, checked.sink)
    return replace(outcome, diagnostics=(*checked.sink, *outcome.diagnostics))


def _refused(diagnostics: tuple[Diagnostic, ...], sink: Sink) -> Outcome:
    """A run that was not started."""
    sink.extend(diagnostics)
    if any(d.code == "E0854" for d in diagnostics):
        return Outcome(3, tuple(sink))
    return Outcome(sink.exit_code, tuple(sink))


def run_program(
    program: Program, path: Path, options: RunOptions, listener: Listener = _silent,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:  # fmt: skip
    """Run a checked program. Raises RecipeError for what speaks against the run before it
    starts.
    """
    from recipelang.plan.make import make_plan

    check_targets(program, options.targets)
    store = Store.open_for(path)
    before = read_lock(lock_path(path))
    if store.writable:
        store.prepare()  # before the inputs are hashed, so that their digests are kept
    folder = path.absolute().parent
    view = View(store, before, folder, tell=lambda text: listener(Note(text)))
    plan = make_plan(
        program, options.targets, view, backend=options.backend, preferred=before.backend
    )
    errors = [d for d in plan.diagnostics if d.severity == "error"]
    if errors:
        raise RecipeError(*plan.diagnostics)
    inspected = inspect_inputs(plan, tokenise_all=True)
    wrong = (*occupied_places(plan), *missing_sources(plan), *inspected.diagnostics)
    if wrong:
        raise RecipeError(*wrong)
    if plan.to_run:
        store.prepare()
    record = new_run(
        path, command=_command(path, options), targets=options.targets,
        params=dict(options.settings),
    )  # fmt: skip
    session = Session(
        plan, store, view, listener, record.id, wanted=options.backend,
        named=options.backend or plan.backend or before.backend, stopped=stopped,
    )  # fmt: skip
    session.values.update(inspected.values)
    writes = not options.locked and (not options.settings or options.write_lock)
    params = dict(options.settings) if options.write_lock else {}
    keeper = Keeper(session, record, path, before, writes, options.locked, params=params)
    return _carry_out(session, keeper)


def _command(path: Path, options: RunOptions) -> tuple[str, ...]:
    """The command line that does the same, a word an item."""
    backend = ("--backend", options.backend) if options.backend else ()
    settings = (w for item in options.settings.items() for w in ("--set", "=".join(item)))
    switches = {
        "--lock": options.write_lock, "--locked": options.locked, "--offline": options.offline,
    }  # fmt: skip
    given = (word for word, wanted in switches.items() if wanted)
    return ("recipe", "run", str(path), *options.targets, *backend, *settings, *given)


def check_targets(program: Program, targets: tuple[str, ...]) -> None:
    """Raises RecipeError E0857 for a name that the recipe does not bind to something to build."""
    from difflib import get_close_matches

    from recipelang.diagnostics import fault

    for name in targets:
        if name not in program.bindings:
            near = get_close_matches(name, program.bindings, 1)
            hint = f"did you mean `{near[0]}`?" if near else "name a binding of the recipe"
            raise fault("E0857", f"the recipe has no binding `{name}`", help=hint)
        if not nodes_of(program.bindings[name]):
            hint = "name a model, a measure or a table"
            raise fault("E0857", f"`{name}` is a constant, nothing is built for it", help=hint)


def _carry_out(session: Session, keeper: Keeper) -> Outcome:
    """Steps, gates, publishes, report."""
    store = session.store
    guard = collection_lock(store.root) if (store.root / "lock").is_dir() else nullcontext()
    try:
        with guard:
            keeper.check_locked()
            wrong = execute(session, keeper)
            outcome = _judge(session, keeper, wrong)
    except LockedChange as change:
        outcome = Outcome(3, locked_fault((change.place,)).diagnostics)
        return _finish(session, keeper, outcome, "locked")
    except KeyboardInterrupt:
        keeper.close("interrupted")
        raise
    except RecipeError as error:  # the store itself failed: nothing more can be kept
        return _finish(session, keeper, Outcome(4, error.diagnostics), "failed")
    ending = {0: "done", 3: "gate", 4: "failed"}[outcome.exit_code]
    return _finish(session, keeper, outcome, ending)


def _judge(session: Session, keeper: Keeper, wrong: tuple[Diagnostic, ...]) -> Outcome:
    """Gates after all steps; publishes after all gates."""
    plan = session.plan
    measured = _measured(session)
    tables = _tables(session)
    places = plan.state.program.places
    names = {node: places.get(node) or _describe(node, places) for node in measured}
    gates = tuple(
        evaluate_gate(gate, measured, names)
        for gate in plan.gates
        if all(node in measured for node in (*nodes_of(gate.left), *nodes_of(gate.right)))
    )  # fmt: skip
    named = {names[node]: found for node, found in measured.items()}
    outcome = Outcome(0, wrong, tables=tables, measured=named, gates=gates, built=_built(session))
    if wrong:
        return replace(outcome, exit_code=4)
    failed = [
        (root, gate)
        for root, gate in zip(plan.gates, gates, strict=True)
        if gate.hard and not gate.passed
    ]
    if failed:
        found = tuple(_gate_fault(root, gate) for root, gate in failed)
        return replace(outcome, exit_code=3, diagnostics=(*wrong, *found))
    keeper.save()
    try:
        published = _publish(session, keeper)
    except RecipeError as error:
        return replace(outcome, exit_code=4, diagnostics=(*wrong, *error.diagnostics))
    return replace(outcome, published=published)


def _gate_fault(root: GateRoot, gate: GateResult) -> Diagnostic:
    left, right = number_text(gate.left), number_text(gate.right)
    message = f"the gate does not hold: {left} {gate.op} {right}"
    notes = tuple(
        f"{name}: {number_text(m.value)} [{number_text(m.low)}, {number_text(m.high)}]"
        for name, m in gate.measured
    )
    return Diagnostic(
        "E0858", "error", message, Label(root.span, gate.message), (), notes,
        help="nothing was published; everything that was built is in the store",
    )  # fmt: skip


def _describe(node: Node, places: Mapping[Node, str]) -> str:
    """A measure without a name: ``perplexity of student on dev``."""
    model, data = node.one("model"), node.one("data")
    text = f"{node.op} of {places.get(model, 'a model') if model else 'a model'}"
    return f"{text} on {places.get(data, 'data')}" if data else text


def _measured(session: Session) -> dict[Node, Measurement]:
    """The measures of gates and of targets, by lowered node, where they could be taken."""
    plan = session.plan
    nodes = [n for gate in plan.gates for n in (*nodes_of(gate.left), *nodes_of(gate.right))]
    nodes += [s.lowered for s in plan.steps if s.kind == "measure" and s.node in plan.state.targets]
    found: dict[Node, Measurement] = {}
    for lowered in dict.fromkeys(nodes):
        node = plan.step(lowered).node
        if node in session.ids and node not in session.failed:
            value = open_value(session, node)
            assert isinstance(value, Measurement)
            found[lowered] = value
    return found


def _tables(session: Session) -> dict[str, Table]:
    plan = session.plan
    found: dict[str, Table] = {}
    for step in plan.steps:
        if step.kind == "evaluate" and step.node in plan.state.targets and step.node in session.ids:
            value = open_value(session, step.node)
            assert isinstance(value, Table)
            found[step.place or "evaluate"] = value
    return found


def _built(session: Session) -> dict[str, str]:
    """The artifacts of the targets that are models and adapters, by place."""
    state = session.plan.state
    return {
        state.place(node) or node.op: session.ids[node]
        for node in state.targets
        if node in session.ids and session.store.manifest(session.ids[node]) is not None
        and session.step(node).kind in ("train", "weights", "choose", "search", "source")
    }  # fmt: skip


def _publish(session: Session, keeper: Keeper) -> tuple[Path, ...]:
    publications: list[Publication] = []
    for root in session.plan.publishes:
        step = session.plan.step(root.what)
        target = resolve(root.uri, root.folder)
        if not is_published(target, session.ids[step.node]):
            session.store.ensure_sound(session.ids[step.node])
        value = open_value(session, step.node)
        assert isinstance(value, ModelValue | AdapterValue)
        publications.append(
            Publication(value, target, root.overwrite, step.place, keeper.recipe.name)
        )
    return publish_all(publications)


# ---------------------------------------------------------------- the end


def _finish(session: Session, keeper: Keeper, outcome: Outcome, ending: str) -> Outcome:
    """Close the record, write the lock for the last time, and the run's report."""
    changed = changed_places(keeper.before, keeper.lock()) if keeper.writes_lock else ()
    try:
        if keeper.writes_lock:
            keeper.save()
    except RecipeError as error:
        outcome = replace(
            outcome, exit_code=4, diagnostics=(*outcome.diagnostics, *error.diagnostics)
        )
    keeper.close(ending)
    merges = merge_reports(session)
    warned = (
        *merge_warnings(session, merges), *extraction_warnings(session), *device_warnings(session)
    )  # fmt: skip
    found = (*outcome.diagnostics, *warned)
    outcome = replace(
        outcome, record=keeper.record, changed=changed, merges=merges, diagnostics=found,
        soups=soup_reports(session),
    )  # fmt: skip
    if not session.store.writable:
        return outcome
    try:
        return _write_report(session, outcome)
    except (OSError, RecipeError):
        note = "the run's report could not be written"
        return replace(outcome, notes=(*outcome.notes, note))


def _write_report(session: Session, outcome: Outcome) -> Outcome:
    from recipelang.run.merge_plot import merge_svg
    from recipelang.run.plotting import plot_losses

    record = outcome.record
    assert record is not None
    folder = run_folder(session.store, record.id)
    ensure_folder(folder)
    plot, notes = False, list(outcome.notes)
    for place, summary in session.summaries.items():
        path = folder / f"losses-{file_name(place)}.jsonl"
        path.write_text(summary.to_jsonl(), encoding="utf-8")
    for place, report in outcome.merges.items():
        path = folder / f"merge-{file_name(place)}.json"
        path.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
        path.with_suffix(".svg").write_text(merge_svg(place, report), encoding="utf-8")
    if session.summaries:
        histories = {place: summary.history for place, summary in session.summaries.items()}
        plot = plot_losses(histories, folder / "losses.png")
        if not plot:
            notes.append(
                "no loss plot: matplotlib is not installed (`pip install 'recipelang[plot]'`)"
            )
    outcome = replace(outcome, folder=folder, notes=tuple(notes))
    (folder / "report.md").write_text(markdown(outcome, plot), encoding="utf-8")
    text = json.dumps(results_json(outcome), indent=1, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    write_run(session.store, record)
    return outcome
