"""The text of `recipe plan`.

    plan: recipes/medic.recipe  (backend: torch, cpu)

      + finetune    teacher   llama 134.5M, lora(rank = 16)   1.4 min   1.2 GiB   new
      = shrink      small                                                         cached
      ? require     both(student) <= both(other) - 0.05
      > publish     out/student

    1 to run, 1 cached, 0 not needed. estimate 1.4 min, peak 1.2 GiB, writes 20 MiB (85 GiB free)

``+`` runs, ``=`` is cached, ``?`` is a gate, ``>`` is written outside the store, ``!`` speaks
against the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from recipelang.diagnostics.json import diagnostic_json
from recipelang.diagnostics.terminal import escape
from recipelang.ir.type_text import show_type
from recipelang.passes.state import Change
from recipelang.plan.schedule import Plan, PlanStep
from recipelang.plan.units import bytes_text, seconds_text
from recipelang.types import LayersType, ModelType
from recipelang.values import Form, show

__all__ = ["render", "render_passes", "to_json"]

COLOURS = {"+": "32", "=": "2", "?": "36", ">": "35", "!": "31"}
SCHEMA = "recipelang/plan/1"

Row = tuple[str, ...]


def render(plan: Plan, *, colour: bool = False, passes: bool = False) -> str:
    """The plan as text, with what the passes changed where ``passes``; ends with a line break."""
    rows = [*_step_rows(plan), *_root_rows(plan), *_warning_rows(plan)]
    parts = [_title(plan), "", *_table(rows, _painter(colour)), "", _summary(plan)]
    if passes:
        parts += ["", *render_passes(plan.state.changes)]
    return "\n".join(part.rstrip() for part in parts) + "\n"


def _painter(colour: bool) -> Callable[[str, str], str]:
    def paint(sign: str, line: str) -> str:
        return f"\x1b[{COLOURS[sign]}m{line}\x1b[0m" if colour else line

    return paint


def _title(plan: Plan) -> str:
    machine = ", ".join(part for part in (plan.device,) if part)
    where = (
        f"  (backend: {plan.backend}{f', {machine}' if machine else ''})" if plan.backend else ""
    )
    return f"plan: {escape(plan.state.program.source.path)}{where}"


def _step_rows(plan: Plan) -> list[Row]:
    """A row for each step that runs or is cached: sign, verb, place, what, time, memory, note."""
    rows: list[Row] = []
    for step in plan.steps:
        name, what = step.place or "-", _what(step)
        if step.action == "cached":
            rows.append(("=", step.node.op, name, what, "", "", "cached"))
        elif step.action == "run":
            one = step.estimate
            time = seconds_text(one.seconds) if one.seconds else ""
            memory = bytes_text(one.memory_bytes) if one.memory_bytes else ""
            rows.append(("+", step.node.op, name, what, time, memory, _note(plan, step)))
    return rows


def _what(step: PlanStep) -> str:
    """The size of the result and the setting that matters most."""
    words: list[str] = []
    if isinstance(step.node.type, ModelType | LayersType):
        words.append(show_type(step.node.type).partition("<")[2].removesuffix(">"))
    adapter = step.node.attr("adapter")
    if isinstance(adapter, Form):
        words.append(f"{adapter.name} r={show(adapter.get('rank', 0))}")
    return ", ".join(word for word in words if word)


def _note(plan: Plan, step: PlanStep) -> str:
    """Why it runs, the base that was found by origin, and the pass that it is part of."""
    notes = [step.reason]
    base = _origin(plan, step)
    if base:
        notes.append(f"from {base} by origin")
    if step.region is not None:
        region = plan.state.regions[step.region]
        running = [n for n in region.nodes if plan.by_node[n].action == "run"]
        if not step.stored:
            notes.append(f"inside {plan.state.place(running[-1]) or running[-1].op}, not written")
        elif len(running) > 1:
            notes.append(f"{len(running)} in one pass")
    return "; ".join(note for note in notes if note)


def _origin(plan: Plan, step: PlanStep) -> str | None:
    """The name of the base that was found by origin, None where it was written or there is none."""
    base = plan.state.program.inferred.get(step.lowered)
    if base is None:
        return None
    return plan.state.place(plan.state.current.get(base, base)) or base.op


def _root_rows(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for gate in plan.gates:
        text = gate.text.removeprefix("require ").removeprefix("expect ")
        rows.append(("?", "require" if gate.hard else "expect", text))
    rows += [(">", "publish", root.uri) for root in plan.publishes]
    return rows


def _warning_rows(plan: Plan) -> list[Row]:
    return [("!", f"{d.code}", d.message) for d in plan.diagnostics]


def _table(rows: list[Row], paint: Callable[[str, str], str]) -> list[str]:
    """Rows in columns: those of steps aligned, those of gates and publishes after their verb."""
    full = [row for row in rows if len(row) == 7]
    verbs = max((len(row[1]) for row in rows), default=0)
    widths = [max((len(escape(row[i])) for row in full), default=0) for i in range(7)]
    lines: list[str] = []
    for row in rows:
        sign, verb, *rest = row
        if len(row) == 7:
            cells = [escape(text).ljust(widths[i + 2]) for i, text in enumerate(rest)]
            cells[2], cells[3] = rest[2].rjust(widths[4]), rest[3].rjust(widths[5])
            shown = [cell for cell, width in zip(cells, widths[2:], strict=True) if width]
            text = "  ".join(shown)
        else:
            text = escape(rest[0])
        lines.append(paint(sign, f"  {sign} {verb.ljust(verbs)}  {text}".rstrip()))
    return lines


def _summary(plan: Plan) -> str:
    count = {action: 0 for action in ("run", "cached", "skip")}
    for step in plan.steps:
        if step.action in count and step.kind not in ("source", "data"):
            count[step.action] += 1
    text = f"{count['run']} to run, {count['cached']} cached"
    if count["skip"]:
        text += f", {count['skip']} not needed"
    if not count["run"]:
        return text + ". nothing to compute"
    parts: list[str] = []
    budget = plan.state.program.budget
    if plan.seconds:
        parts.append(f"estimate {seconds_text(plan.seconds)}{_of(budget.wall, seconds_text)}")
    parts.append(f"peak {bytes_text(plan.memory_bytes)}{_of(budget.memory, bytes_text)}")
    free = f"{bytes_text(plan.disk_free)} free"
    parts.append(f"writes {bytes_text(plan.disk_bytes)}{_of(budget.disk, bytes_text)} ({free})")
    return f"{text}. {', '.join(parts)}"


def _of(limit: float | None, text: Callable[[float], str]) -> str:
    return "" if limit is None else f" of {text(limit)}"


def render_passes(changes: Iterable[Change]) -> list[str]:
    """What each pass changed, a line a change; a pass that changed nothing says so."""
    from recipelang.passes import PIPELINE

    kept = list(changes)
    lines = ["passes:"]
    for step in PIPELINE:
        mine = [change.text for change in kept if change.name == step.name]
        lines.append(f"  {step.name} ({step.exactness})" + ("" if mine else ": nothing to do"))
        lines += [f"    {escape(text)}" for text in mine]
    return lines


def to_json(plan: Plan) -> dict[str, object]:
    """The plan as one JSON object, of schema ``recipelang/plan/1``; bytes and seconds are
    numbers."""
    return {
        "schema": SCHEMA,
        "recipe": plan.state.program.source.path,
        "backend": plan.backend,
        "device": plan.device,
        "steps": [_step_json(plan, step) for step in plan.steps],
        "gates": [{"hard": gate.hard, "text": gate.text} for gate in plan.gates],
        "publishes": [root.uri for root in plan.publishes],
        "seconds": round(plan.seconds, 3),
        "memory_bytes": plan.memory_bytes,
        "disk_bytes": plan.disk_bytes,
        "disk_free": plan.disk_free,
        "regions": [
            [plan.state.place(node) or node.op for node in region.nodes]
            for region in plan.state.regions
            if len(region.nodes) > 1
        ],
        "token_sets": [
            {
                "key": one.key,
                "dataset": plan.state.place(one.dataset),
                "users": [plan.state.place(node) or node.op for node in one.users],
            }
            for one in plan.state.token_sets
        ],
        "passes": [{"pass": change.name, "change": change.text} for change in plan.state.changes],
        "diagnostics": [diagnostic_json(d) for d in plan.diagnostics],
    }


def _step_json(plan: Plan, step: PlanStep) -> dict[str, object]:
    return {
        "place": step.place,
        "op": step.node.op,
        "version": step.node.version,
        "action": step.action,
        "reason": step.reason,
        "step_id": step.step_id,
        "key": step.key.digest if step.key else None,
        "artifact": step.artifact,
        "region": step.region,
        "stored": step.stored,
        "type": show_type(step.node.type),
        "base_by_origin": _origin(plan, step),
        "inputs": [plan.state.place(node) or node.op for node in step.node.inputs],
        "seconds": round(step.estimate.seconds, 3),
        "memory_bytes": step.estimate.memory_bytes,
        "disk_bytes": step.estimate.disk_bytes,
    }
