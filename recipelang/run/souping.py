"""Carries out `greedy-soup`: measures means of candidates that are never written, and stores the
one that is accepted.

A mean is `linear-merge` over all candidates, those that are left out at weight zero, so that dtype,
configuration and tokenizer are the first candidate's whatever is accepted. The backend scores it
while it is computed tensor by tensor on the host.

Example: ``make_soup(session, node)`` gives the artifact's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recipelang.ir.graph import Node
from recipelang.ir.score import scores
from recipelang.lineage.keys import digest
from recipelang.ops.registry import lookup
from recipelang.plan.limits import uses_backend
from recipelang.run.events import Note, StepProgress
from recipelang.run.greedy import Search, greedy_search
from recipelang.run.measuring import measure
from recipelang.run.merging import store_checkpoint
from recipelang.run.opening import open_value
from recipelang.run.session import Session, place_of
from recipelang.run.soup_reports import SoupReport, soup_line
from recipelang.run.values import Measurement, ModelValue, RuntimeValue
from recipelang.weights.computed import Computed
from recipelang.weights.region import Step, make_step

__all__ = ["make_soup"]


def make_soup(session: Session, node: Node) -> str:
    """Search, store the result with its report, and tell what was accepted; returns the artifact.

    Raises RecipeError: E0620 for infinities and NaN in what was accepted, E0851, E0852 and what
    measuring raises.
    """
    soup = _Soup(session, node, tuple(_model(session, n) for n in node.role("inputs")))
    search = soup.search()
    step = soup.mean(search.accepted)
    winner = soup.candidates[search.best]
    if len(search.accepted) == 1 and winner.checkpoint.tensors == step.tensors:
        artifact = winner.artifact
    else:
        identity = soup.identity(search.accepted)
        artifact = store_checkpoint(session, node, step, identity)
    place = place_of(session.step(node))
    names = tuple(
        session.plan.state.place(n) or f"number {i + 1}" for i, n in enumerate(node.role("inputs"))
    )
    report = SoupReport(names, tuple(c.artifact for c in soup.candidates), search)
    session.store.put_report(artifact, session.keys[node].digest, report.to_json())
    session.details[node] = soup_line(report)
    session.listener(Note(f"{place:<12} is {soup_line(report)}"))
    return artifact


def _model(session: Session, node: Node) -> ModelValue:
    value = open_value(session, node)
    assert isinstance(value, ModelValue)
    return value


@dataclass(frozen=True, eq=False)
class _Soup:
    """The step, and its candidates opened."""

    session: Session
    node: Node
    candidates: tuple[ModelValue, ...]

    def search(self) -> Search:
        """The search over what was measured of the candidates; each trial is told of."""
        place, done = place_of(self.session.step(self.node)), 0
        of = len(self.candidates) - 1

        def trial(chosen: tuple[int, ...]) -> float:
            nonlocal done
            found = self._value_of(chosen)
            done += 1
            self.session.listener(StepProgress(place, done, of))
            return found

        direction = str(self.node.attr("direction"))
        measured = [self._stored(n) for n in self.node.role("by")]
        return greedy_search(self._scores(measured), direction, trial)

    def mean(self, chosen: Sequence[int]) -> Step:
        """The step that gives the mean of some candidates. They are added up in the order of a
        `linear-merge` of them, whose inputs behind the first are sorted by step id."""
        linear = lookup("linear-merge")
        assert linear is not None
        ids = [self.session.plan.state.step_id(n) for n in self.node.role("inputs")]
        order = sorted(range(len(ids)), key=lambda i: (i != 0, i != chosen[0], ids[i]))
        weights = tuple(float(i in chosen) for i in order)
        fields = {name: self.node.attr(name) for name in ("dtype", "nonfinite")}
        operands = {"inputs": [self.candidates[i].checkpoint for i in order]}
        return make_step(linear, operands, {**fields, "weight": weights})

    def identity(self, chosen: Sequence[int]) -> str:
        """What names the mean of some candidates before its bits are known."""
        accepted = [self.candidates[i].artifact for i in chosen]
        key = self.session.keys[self.node].digest
        return digest("recipelang/soup/1", {"key": key, "mean of": accepted})

    def _value_of(self, chosen: tuple[int, ...]) -> float:
        """What the mean of these candidates measures."""
        mean = ModelValue(Computed(self.mean(chosen)), self.identity(chosen))
        by = self.node.role("by")
        width = len(by) // len(self.candidates)
        measured = [
            self._measured(by[k], mean) if self._is_of_candidates(k, width) else self._stored(by[k])
            for k in range(width)
        ]
        return self._scores(measured)[0]

    def _scores(self, measured: Sequence[float]) -> list[float]:
        """A value a candidate, from the measures of all of them side by side."""
        score = self.node.attr("score")
        return list(measured) if score is None else scores(score, measured)

    def _is_of_candidates(self, place: int, width: int) -> bool:
        """Whether the metric's measure at this place is one of the candidate, or a constant."""
        measures = self.node.role("by")[place::width]
        candidates = self.node.role("inputs")
        return all(m.one("model") is c for m, c in zip(measures, candidates, strict=True))

    def _stored(self, measure_: Node) -> float:
        value = open_value(self.session, measure_)
        assert isinstance(value, Measurement)
        return value.value

    def _measured(self, like: Node, model: ModelValue) -> float:
        """The measure of a model that another one of the same kind took of a candidate."""
        session = self.session
        inputs: dict[str, tuple[RuntimeValue, ...]] = {
            role: (model,) if role == "model" else tuple(open_value(session, n) for n in nodes)
            for role, nodes in like.operands
        }
        backend = session.backend if uses_backend(like, lookup(like.op)) else None
        found = measure(
            like, inputs, draws=session.step(like).draws, backend=backend, scores=session.scores
        )
        assert isinstance(found, Measurement)
        return found.value
