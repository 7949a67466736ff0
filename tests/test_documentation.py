"""The generated pages are in step with the declarations they come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_generated_pages_are_in_step() -> None:
    """``make docs`` would change nothing."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_documents_link_to_files_that_exist() -> None:
    """No relative link in the documentation is broken."""
    import re

    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_complaints_name_tests_that_exist() -> None:
    """Every row of the table of complaints names tests, by name or by how it begins."""
    import re

    files = (ROOT / "tests" / "merging").glob("test_complaints_*.py")
    known = [n for file in files for n in re.findall(r"def test_(\w+)", file.read_text("utf-8"))]
    page = (ROOT / "docs" / "complaints.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+|–) \|.*\| (.*) \|$", page, re.MULTILINE)
    numbers = [number for number, _ in rows]
    assert numbers == [*(str(n) for n in range(1, 18) if n != 13), "–"]
    for number, tests in rows:
        names = [name for name in re.findall(r"`([\w…]+)`", tests) if "/" not in name]
        assert names, number
        for name in names:
            start = name.removesuffix("…")
            assert any(n == name or (start != name and n.startswith(start)) for n in known), name
