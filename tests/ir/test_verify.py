"""The verifier: it accepts what the operations declare, and names what they do not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from recipelang.diagnostics import RecipeError
from recipelang.ir.text import parse
from recipelang.ir.verify import verify
from recipelang.program import Program
from recipelang.values import Form
from tests.toys import Maker, lookup, programs

BASE = """
%0 = source@1 {dtype = none, uri = "a"} : Model
%9 = notes@1 {take = none, uri = "b"} : Dataset
"""
TRAIN = "{late = false, lr = 0.1, seed = 0, steps = 3} hints {micro_batch = none}"


def faults(line: str) -> list[str]:
    """The messages for a graph of this last line."""
    with pytest.raises(RecipeError) as caught:
        verify(parse(f"{BASE}{line}\ngive %1"), lookup=lookup)
    assert {d.code for d in caught.value.diagnostics} == {"E0901"}
    return [d.message for d in caught.value.diagnostics]


@settings(max_examples=40, deadline=None)
@given(programs())
def test_what_is_built_is_sound(program: Program) -> None:
    """Graphs that are made from the declarations pass."""
    verify(program.roots(), program.places, lookup=lookup)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%1 = nothing@1 : Model", "there is no operation `nothing`"),
        (f"%1 = train@2 model(%0) data(%9) {TRAIN}", "is version 2, the operation is version 1"),
        (f"%1 = train@1 model(%0) {TRAIN}", "lacks its operand `data`"),
        (f"%1 = train@1 data(%9) model(%0) {TRAIN}", "has its operands in the order data, model"),
        (f"%1 = train@1 model(%0) data(%9) more(%9) {TRAIN}", "has no operand `more`"),
        (f"%1 = train@1 model(%0, %0) data(%9) {TRAIN}", "takes one `model`, found 2"),
        (f"%1 = train@1 model(%9) data(%9) {TRAIN}", "takes a Model as `model`, found a Dataset"),
        (f"%1 = train@1 model(%0) data(%9) {TRAIN} : Dataset", "gives Model, but is typed Dataset"),
        ("%1 = floor@1 model(%0)", "lacks the attribute `digits`"),
        ("%1 = floor@1 model(%0) {digits = 0.5}", "`digits` is a int, found `0.5`"),
        ("%1 = floor@1 model(%0) {digits = true}", "`digits` is a int, found `true`"),
        ("%1 = floor@1 model(%0) {digits = none}", "`digits` has no value"),
        ("%1 = floor@1 model(%0) {digits = 0, speed = 1}", "has no attribute `speed`"),
        ("%1 = floor@1 model(%0) {digits = 0} hints {speed = 1}", "has no hint `speed`"),
        ('%1 = mean@1 inputs(%0) {density = [0.5], how = "odd", weight = [1]}',
         '`how` is one of plain, fancy, found `"odd"`'),
        ('%1 = mean@1 inputs(%0) {density = [2], how = "plain", weight = [1]}',
         "`density` is in (0, 1], found `2`"),
        ('%1 = mean@1 inputs(%0) {density = [0.5], how = "plain", weight = [1, 2]}',
         "`weight` has 2 values for 1 inputs"),
        ('%1 = mean@1 inputs(%0) {density = [0.5], how = "plain", weight = 1}',
         "`weight` is one value, not one for each input"),
        ('%1 = mean@1 inputs(%0) {density = [gradient(0.5, 2)], how = "plain", weight = [1]}',
         "`density` is in (0, 1], found `2`"),
    ],
)  # fmt: skip
def test_each_fault_is_named(line: str, message: str) -> None:
    """A node that departs from its declaration is E0901 with what is wrong."""
    assert [text for text in faults(line) if text.endswith(f": {message}")]


def test_a_hint_is_no_attribute() -> None:
    """A field that never changes the result must not be among the attributes that identify it."""
    attrs = TRAIN.partition(" hints")[0].replace("lr", "micro_batch = 2, lr")
    line = f"%1 = train@1 model(%0) data(%9) {attrs}"
    assert faults(line) == ["train (2): has the hint `micro_batch` among its attributes"]


def test_the_fault_names_step_and_pass() -> None:
    """The message has the place and the pass that ran last, and the node's line as a note."""
    make = Maker()
    node = make("mean", [make("source", uri="a")], weight=(Form("gradient", (("0", True),)),))
    with pytest.raises(RecipeError) as caught:
        verify([node], {node: "student"}, lookup=lookup, after="canonicalise")
    (one,) = caught.value.diagnostics
    assert one.message == "mean (student) after canonicalise: `weight` is a float, found `true`"
    assert one.notes[0].startswith("%student = mean@1 inputs(%0) {")
