"""Plans of the toy operations: a store of what was run before, a machine, and an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recipelang.diagnostics import Source, Span
from recipelang.ir.graph import Node
from recipelang.plan.cost import Speed
from recipelang.plan.limits import Machine
from recipelang.plan.make import key_of, make_plan
from recipelang.plan.schedule import Plan
from recipelang.program import Budget, GateRoot, Program, PublishRoot
from tests.toys import Maker, content, lookup, program

HERE = Span(Source("toy.recipe", "x = 1\n"), 0, 1)


@dataclass(frozen=True)
class Stored:
    """A record of the store."""

    artifact: str
    backend: str = ""
    present: bool = True
    seconds: float = 0.0


@dataclass
class Store:
    """A store in memory. `missing` are the places of sources that are not on this machine."""

    root: Path = Path("/")
    records: dict[str, Stored] = field(default_factory=dict[str, Stored])
    documents: dict[str, Mapping[str, object]] = field(
        default_factory=dict[str, Mapping[str, object]]
    )
    missing: frozenset[str] = frozenset()

    def hash_sources(self, nodes: Iterable[Node]) -> None:
        """Nothing is read here."""

    def content(self, node: Node) -> str | None:
        """Toy content, unless it is missing."""
        return None if node.attr("uri") in self.missing else content(node)

    def lookup(self, key: str, backend: str | None) -> Stored | None:
        """The record of the key, if this backend may use it."""
        found = self.records.get(key)
        fits = found is not None and (backend is None or found.backend in ("", backend))
        return found if fits else None

    def previous(self, place: str) -> Mapping[str, object] | None:
        """What the lock has for a place."""
        return self.documents.get(place)

    def finish(self, plan: Plan, backend: str = "", seconds: float = 0.0) -> None:
        """Run the plan: a result's content is a hash of its key, as far as keys become known."""
        contents: dict[Node, str] = {}
        for step in plan.steps:
            key = step.key or key_of(plan.state, step.node, contents)
            contents[step.node] = step.artifact or (f"of {key.digest}" if key else "")
            if step.action == "run":
                assert key is not None
                made = Stored(contents[step.node], backend, True, seconds)
                self.records[key.digest] = made
                self.documents[step.place] = key.document


MACHINE = Machine("torch", "cpu", "a toy", 8 << 30, others=("jax",))


def planned(made: Program, store: Store, *targets: str, **options: object) -> Plan:
    """The plan on a machine of known speed."""
    options = {"speed": Speed(1e12, 1e9), "machine": lambda name: MACHINE, **options}
    return make_plan(made, targets, store, lookup=lookup, **options)  # type: ignore[arg-type]


def example(**changes: object) -> Program:
    """A training, a chain of two merges of it, a gate and a publish, and one step nobody needs."""
    make = Maker()
    base, text = make("source", uri="m"), make("notes", uri="d")
    teacher = make("train", base, make("halve", text), steps=changes.get("steps", 90))
    floored = make("floor", teacher)
    student = make("mean", [floored, base], weight=(changes.get("weight", 1), 0.5))
    spare = make("train", base, text)
    score = make("score", student, text)
    gate = GateRoot(True, score, "<=", 2, "", "require score of student <= 2", HERE)
    shown = PublishRoot(student, "out/student", ".", False, None, HERE)
    bindings = {
        "base": base, "notes": text, "teacher": teacher, "floored": floored, "student": student,
        "spare": spare, "scored": score,
    }  # fmt: skip
    budget = changes.get("budget", Budget())
    return program(
        make.graph, bindings, gates=(gate,), publishes=(shown,), budget=budget,
        inferred={student: base},
    )  # fmt: skip


def actions(plan: Plan) -> dict[str, str]:
    """The action of each named step."""
    return {step.place: step.action for step in plan.steps if step.place}


def codes(plan: Plan) -> list[str]:
    """The codes of the plan's diagnostics."""
    return [d.code for d in plan.diagnostics]
