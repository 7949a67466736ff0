"""The reports of a run's merges, and what speaks for garbage in them.

A merge that went wrong still writes a model, whose tensors load and whose text is nonsense. Five
signs of that are looked for, chosen so that sound merges show none (docs/merge-report.md):
infinities or NaN (W0650), a layer whose norm is far from its inputs' (W0651), a layer that points
elsewhere than each of them (W0652), a base that is changed far more than the inputs change it
(W0653), and a result that is one of its inputs, number by number (W0654).

Example: ``warnings("both", report, span)`` is empty for a sound merge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from recipelang.diagnostics import Diagnostic, Label, Span
from recipelang.ir.graph import Node
from recipelang.run.session import Session, place_of
from recipelang.weights.figures import LayerFigures, MergeReport, Origin, merge_report, read_report

if TYPE_CHECKING:
    from recipelang.weights.report import Watcher

__all__ = ["keep_report", "layers_text", "merge_reports", "merge_warnings", "warnings"]

LEAST_NORM, MOST_NORM = 0.5, 2.0
"""Of a layer to the mean of its inputs'. The mean of unrelated inputs falls below it from five on:
n orthogonal vectors have a mean of 1 / sqrt(n) times their norm."""
LEAST_COSINE = 0.5
"""Of a layer to the input that it is most like."""
MOST_NAMED = 4
MOST_CHANGE = 10.0
"""||R - B|| to the mean ||D_i||: the sum of ten equal task vectors, or of one whose entries were
dropped to one in a hundred and rescaled (DARE), stays at it."""


def keep_report(session: Session, made: tuple[Node, str], merge: Node, watcher: Watcher) -> None:
    """Store what was seen of a result (its step and artifact); ``merge`` is the step that was
    watched, whose inputs it names as the recipe does."""
    from recipelang.weights.report import compared

    inputs, base = compared(watcher.step)
    origins = [_origin(session, merge.role(role)[i]) for role, i in inputs]
    names = [origin.name for origin in origins]
    for i, (role, at) in enumerate(inputs):
        if names.count(names[i]) > 1:  # two parts of one model
            place = session.plan.state.place(merge.role(role)[at])
            origins[i] = replace(origins[i], name=place or names[i])
    report = merge_report(
        merge.op, origins, None if base is None else _origin(session, merge.role(base[0])[base[1]]),
        watcher.sums.values(), len(watcher.step.tensors),
    )  # fmt: skip
    node, artifact = made
    session.store.put_report(artifact, session.keys[node].digest, report.to_json())


def _origin(session: Session, node: Node) -> Origin:
    """A binding by its name and content id; a step inside one by the only thing that it changes (an
    adapter that is applied, a model of which layers are taken), else by its place."""
    state = session.plan.state
    place, operation = state.place(node) or node.op, state.lookup(node.op)
    if place in state.program.bindings:
        return Origin(place, session.ids.get(node, ""))
    if operation is None or operation.kind != "weights" or operation.operands[0].many:
        return Origin(place)
    changed = node.one(operation.operands[0].name)
    return Origin(place if changed is None else _origin(session, changed).name)


def merge_reports(session: Session) -> dict[str, MergeReport]:
    """By place, of the merges that this run computed or took from the store. Inputs have the names
    that they have now."""
    names: dict[str, str] = {}
    for node, artifact in session.ids.items():
        names.setdefault(artifact, place_of(session.step(node)))
    found: dict[str, MergeReport] = {}
    for step in session.plan.steps:
        node = step.node
        if step.action not in ("run", "cached") or node not in session.keys:
            continue
        artifact = session.ids.get(node, "")
        report = read_report(session.store.report(artifact, session.keys[node].digest))
        if report is not None:
            found[place_of(step)] = report.renamed(names)
    return found


def merge_warnings(session: Session, reports: Mapping[str, MergeReport]) -> tuple[Diagnostic, ...]:
    """What the reports of a run warn of, each at its step in the recipe."""
    spans = session.plan.state.program.spans
    lowered = {place_of(step): step.lowered for step in session.plan.steps}
    return tuple(
        diagnostic
        for place, report in reports.items()
        for diagnostic in warnings(place, report, spans.get(lowered[place]))
    )


def warnings(place: str, report: MergeReport, span: Span | None = None) -> Iterator[Diagnostic]:
    """What speaks for garbage in one merge; ``span`` is its step's."""
    label = Label(span, f"`{place}` was merged here") if span else None
    for code, message, help in (
        *_nonfinite(place, report),
        *_norm(place, report),
        *_cosine(place, report),
        *_change(place, report),
        *_equal(place, report),
    ):
        yield Diagnostic(code, "warning", message, label, help=help)


def _nonfinite(place: str, report: MergeReport) -> Iterator[tuple[str, str, str]]:
    if report.nonfinite:
        yield (
            "W0650",
            f"`{place}` holds {report.whole.nonfinite:,} infinities or NaN, the first in "
            f"`{report.nonfinite[0][0]}`",
            "such a model answers with NaN: find the input that has them, or, where numbers grew "
            "too large for f16, write `dtype = bf16`",
        )


def _norm(place: str, report: MergeReport) -> Iterator[tuple[str, str, str]]:
    ratios = {r.label: r.norm_ratio for r in report.layers if r.norm_ratio is not None}
    far = {name: r for name, r in ratios.items() if not LEAST_NORM <= r <= MOST_NORM}
    if far:
        worst = max(far.values(), key=lambda ratio: max(ratio, 1 / ratio if ratio else inf))
        rows = [row for row in report.layers if row.label in far]
        yield (
            "W0651",
            f"`{place}` has {worst:.3g} times the norm of its inputs in {layers_text(rows)}",
            "look at `scale` and the weights; inputs that do not share an origin average out",
        )


def _cosine(place: str, report: MergeReport) -> Iterator[tuple[str, str, str]]:
    best = {
        row.label: max(known)
        for row in report.layers
        if (known := [i.cosine for i in row.inputs if i.cosine is not None])
    }
    far = [row for row in report.layers if best.get(row.label, 1.0) < LEAST_COSINE]
    if far:
        worst = min(best[row.label] for row in far)
        yield (
            "W0652",
            f"`{place}` is unlike each of its inputs in {layers_text(far)}: "
            f"the cosine to the nearest is {worst:.2f}",
            "merge models that were tuned from one base, and look at `scale` and the weights",
        )


def _change(place: str, report: MergeReport) -> Iterator[tuple[str, str, str]]:
    change = report.whole.change_ratio
    if change is not None and change > MOST_CHANGE and report.base is not None:
        yield (
            "W0653",
            f"`{place}` is {change:.3g} times as far from `{report.base.name}` as its inputs are",
            "look at `scale` and the sum of the weights; 1 is usual for both",
        )


def _equal(place: str, report: MergeReport) -> Iterator[tuple[str, str, str]]:
    if report.equal_to is not None:
        yield (
            "W0654",
            f"`{place}` is `{report.origins[report.equal_to].name}` in each of "
            f"{report.whole.sampled:,} numbers that were compared, though another input differs",
            "what the others add is lost in rounding, or its weight, density or `scale` is zero",
        )


def layers_text(rows: Sequence[LayerFigures]) -> str:
    """Rows in a few words.

    >>> row = LayerFigures("3", 1, 1, 1, 0, None, None, None, ())
    >>> from dataclasses import replace
    >>> layers_text([replace(row, label=label) for label in ("before", "0", "1", "2", "5")])
    'layers 0 to 2 and 5 and the tensors before the layers'
    """
    labels = [row.label for row in rows]
    numbers = [label for label in labels if label.isdecimal()]
    runs: list[list[str]] = []
    for label in numbers:
        if runs and int(label) == int(runs[-1][-1]) + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    texts = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    if texts:
        texts[0] = f"layer{'s' if len(numbers) > 1 else ''} {texts[0]}"
    for label in labels:
        if not label.isdecimal():
            outside = label in ("before", "after")
            texts.append(f"the tensors {label} the layers" if outside else f"layer `{label}`")
    return " and ".join(texts[:MOST_NAMED]) + (" and more" if len(texts) > MOST_NAMED else "")
