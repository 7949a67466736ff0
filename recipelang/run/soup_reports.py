"""The reports of greedy soups: what every candidate and every trial measured, and what was
accepted.

Example:
    >>> search = Search("min", (2.0, 1.0), 1, (Trial(0, 1.5, False),))
    >>> soup_line(SoupReport(("a", "b"), ("", ""), search))
    'b alone, of 2 candidates, at 1'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from recipelang.run.greedy import Search, Trial
from recipelang.run.measured import json_number
from recipelang.run.session import Session, place_of

__all__ = ["SoupReport", "read_soup", "soup_line", "soup_reports", "soup_rows"]

SCHEMA = "recipelang/soup-report/1"


@dataclass(frozen=True, slots=True)
class SoupReport:
    """A search with its candidates' names in the recipe and their content ids."""

    names: tuple[str, ...]
    artifacts: tuple[str, ...]
    search: Search

    def renamed(self, names: Mapping[str, str]) -> SoupReport:
        """The report with the names that content ids have now."""
        now = zip(self.artifacts, self.names, strict=True)
        return replace(self, names=tuple(names.get(id_, name) for id_, name in now))

    def to_json(self) -> dict[str, object]:
        """As the store and ``results.json`` hold it; numbers that are not finite are texts."""
        search = self.search
        return {
            "schema": SCHEMA,
            "direction": search.direction,
            "candidates": [
                {"name": name, "artifact": artifact, "value": json_number(value)}
                for name, artifact, value in zip(
                    self.names, self.artifacts, search.values, strict=True
                )
            ],
            "best": search.best,
            "trials": [{**asdict(t), "value": json_number(t.value)} for t in search.trials],
            "accepted": list(search.accepted),
            "value": json_number(search.value),
        }


def read_soup(document: object) -> SoupReport | None:
    """What :meth:`SoupReport.to_json` gave; None for anything else."""
    try:
        body: Any = dict(document)  # type: ignore[call-overload]
        if body["schema"] != SCHEMA:
            return None
        rows = body["candidates"]
        search = Search(
            body["direction"], tuple(float(row["value"]) for row in rows), body["best"],
            tuple(Trial(t["candidate"], float(t["value"]), t["accepted"]) for t in body["trials"]),
        )  # fmt: skip
        names, artifacts = (tuple(row[key] for row in rows) for key in ("name", "artifact"))
        return SoupReport(names, artifacts, search)
    except (KeyError, TypeError, ValueError):
        return None


def soup_reports(session: Session) -> dict[str, SoupReport]:
    """By place, of the soups that this run computed or took from the store."""
    names: dict[str, str] = {}
    for node, artifact in session.ids.items():
        if session.step(node).kind != "search":
            names.setdefault(artifact, place_of(session.step(node)))
    found: dict[str, SoupReport] = {}
    for step in session.plan.steps:
        if step.kind != "search" or step.node not in session.ids or step.node not in session.keys:
            continue
        artifact, key = session.ids[step.node], session.keys[step.node].digest
        report = read_soup(session.store.report(artifact, key))
        if report is not None:
            found[place_of(step)] = report.renamed(names)
    return found


def soup_line(report: SoupReport) -> str:
    """``the mean of a and c, of 3 candidates, at 1.4121``: what was accepted, and what it
    measures."""
    search = report.search
    *names, last = (report.names[i] for i in search.accepted)
    listed = f"the mean of {', '.join(names)} and {last}" if names else f"{last} alone"
    of = "of 1 candidate" if len(report.names) == 1 else f"of {len(report.names)} candidates"
    return f"{listed}, {of}, at {_shown(search.value)}"


def soup_rows(report: SoupReport) -> Sequence[Sequence[str]]:
    """A header, and a row a candidate in the order in which they were tried."""
    search = report.search
    rows = [["candidate", "alone", "mean with it", ""]]
    rows.append([report.names[search.best], _shown(search.values[search.best]), "-", "accepted"])
    for trial in search.trials:
        alone = _shown(search.values[trial.candidate])
        verdict = "accepted" if trial.accepted else "worse"
        rows.append([report.names[trial.candidate], alone, _shown(trial.value), verdict])
    return rows


def _shown(value: float) -> str:
    """Five digits: what a trial changes may be small."""
    return f"{value:.5g}"
