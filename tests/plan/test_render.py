"""Plans: what is printed of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recipelang.diagnostics import Diagnostic
from recipelang.plan.render import render, to_json
from recipelang.plan.schedule import Plan
from recipelang.program import Budget
from tests.plan.toy import Store, example, planned
from tests.toys import Maker, program

GOLDEN = Path(__file__).parent


def fixed(plan: Plan) -> Plan:
    """The plan with a free space that does not depend on the machine."""
    return replace(plan, disk_free=100 << 30)


def scenes() -> dict[str, str]:
    """The texts of the golden file by title."""
    store = Store()
    first = planned(example(budget=Budget(wall=7200.0)), store)
    store.finish(first)
    over = planned(example(weight=2, budget=Budget(memory=1)), store)
    return {
        "first": render(fixed(first), passes=True),
        "changed": render(fixed(over)),
        "cached": render(fixed(planned(example(), store))),
    }


def test_the_text_of_a_plan() -> None:
    """`plan.txt` holds a first plan with its passes, one after a change, and one where all is
    cached."""
    text = "".join(f"---- {title}\n{scene}" for title, scene in scenes().items())
    assert text == (GOLDEN / "plan.txt").read_text(encoding="utf-8")


def test_colour_is_only_added() -> None:
    """The coloured text is the plain one with colour codes around lines."""
    import re

    plan = fixed(planned(example(budget=Budget(wall=1)), Store()))
    coloured = render(plan, colour=True)
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == render(plan)


def test_the_json_of_a_plan() -> None:
    """The object has the schema and, for each step, what a program needs to know."""
    import json

    made = to_json(planned(example(budget=Budget(wall=1)), Store()))
    again = json.loads(json.dumps(made))
    assert again["schema"] == "recipelang/plan/1"
    student = next(s for s in again["steps"] if s["place"] == "student")
    assert (student["action"], student["stored"], student["inputs"]) == (
        "run",
        True,
        ["floored", "base"],
    )
    assert again["regions"] == [["floored", "student"]]
    assert [d["code"] for d in again["diagnostics"]] == ["E0810"]


def test_names_cannot_steer_the_terminal() -> None:
    """Control characters in a place or a gate are shown, not sent."""
    make = Maker()
    node = make("floor", make("source", uri="a"))
    made = program(make.graph, {"x\x1b[2J": node}, evaluations=(node,))
    assert "\x1b" not in render(planned(made, Store()))


def test_diagnostics_stand_in_the_plan() -> None:
    """What speaks against the run is a line of its own."""
    plan = planned(example(), Store())
    wrong = replace(plan, diagnostics=(Diagnostic("E0811", "error", "no room"),))
    assert "  ! E0811" in render(wrong)
