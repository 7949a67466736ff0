"""Syntax faults in words: every case of ``faults.md``, and the pages of the codes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from recipelang.language import explain
from tests.language.faulty import Case, cases, diagnose, written

CASES = cases()
PAGES = sorted(
    page.name.removesuffix(".md")
    for page in (files("recipelang.diagnostics") / "codes").iterdir()
    if page.name.startswith("E01")
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    """The text yields exactly the diagnostics that stand beside it."""
    assert written(diagnose(case.text)) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fixes_mend(case: Case) -> None:
    """Applying a diagnostic's edits removes that fault from the text."""
    for found in diagnose(case.text):
        for fix in found.fixes:
            text = case.text
            for span, new in sorted(fix.edits, key=lambda edit: -edit[0].start):
                text = text[: span.start] + new + text[span.end :]
            assert len(diagnose(text)) < len(diagnose(case.text))


def test_every_code_has_a_case_and_a_page() -> None:
    """The codes of the cases are those of the pages, but for the one of huge texts."""
    used = {found.code for case in CASES for found in diagnose(case.text)}
    assert used | {"E0118"} == set(PAGES)


def test_every_rule_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one rule of the explainer, some case would be said otherwise."""
    for rule in explain.RULES[:-1]:
        others = tuple(other for other in explain.RULES if other is not rule)
        monkeypatch.setattr(explain, "RULES", others)
        assert any(written(diagnose(case.text)) != case.expected for case in CASES), rule.__name__


@pytest.mark.parametrize("code", PAGES)
def test_page(code: str) -> None:
    """A page's bad example yields exactly its code, and its good one no syntax fault."""
    text = (files("recipelang.diagnostics") / "codes" / f"{code}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {code}: ")
    blocks = re.findall(r"```recipe\n(.*?)```", text, re.S)
    if "## When" in text:
        assert blocks == []
    else:
        assert [{d.code for d in diagnose(block)} for block in blocks] == [{code}, set()]
