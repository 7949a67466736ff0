"""Write the generated pages of the documentation: operations.md, from the operations' declarations.

python docs/generate.py           write
python docs/generate.py --check   exit 1 where a page is out of step
"""

from __future__ import annotations

import sys
from pathlib import Path

from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import REQUIRED, FieldSpec, OperandSpec, Operation
from recipelang.values import show

HERE = Path(__file__).parent
GROUPS = {
    "sources": "Sources",
    "data": "Data",
    "train": "Training",
    "distill": "Distillation",
    "merge": "Merging",
    "edit": "Editing",
    "measure": "Measuring",
}


def form(operation: Operation) -> str:
    """How a recipe writes the step: ``ties-merge A with B and C from BASE { ... }``."""
    words = [operation.verb]
    for operand in operation.operands:
        words += _phrase(operand)
    for field in operation.fields:
        for word in field.prepositions:
            words.append(f'{word} "{field.name.upper()}"'.strip())
    if any(field.block for field in operation.fields):
        words.append("{ … }")
    return " ".join(words)


def _phrase(operand: OperandSpec) -> list[str]:
    letters = operand.name.upper()
    phrase = [
        f"{word} {letters}{' and …' if operand.many and word else ''}".strip()
        for word in operand.prepositions
    ]
    if operand.optional or operand.by_origin:
        phrase = [f"[{text}]" for text in phrase]
    return phrase


def default_text(field: FieldSpec) -> str:
    """The default as the recipe would write it."""
    if field.default is REQUIRED:
        return "required"
    if field.default is None:
        return "none"
    text = show(field.default)  # type: ignore[arg-type]
    return text.strip('"') if field.kind == "choice" else text


def type_text(field: FieldSpec) -> str:
    """The type, unit, range or choices of a field."""
    kind = " \\| ".join(field.choices) if field.choices else field.kind
    if field.units:
        kind = " or ".join(field.units)
    if field.kind == "list" and field.item is not None:
        kind = f"list of {type_text(field.item)}"
    if field.range is not None:
        kind += f" in {field.range}"
    if field.per_tensor:
        kind += ", may vary by tensor"
    if field.per_input:
        kind += ", an input's own" + (" or the block's" if field.block else "")
    return kind


def section(operation: Operation) -> str:
    """The reference of one operation."""
    lines = [f"### {operation.verb}", "", f"    {form(operation)}", "", operation.doc, ""]
    if operation.operands:
        lines += ["| operand | type | meaning |", "|---|---|---|"]
        for o in operation.operands:
            where = " / ".join(f"`{p}`" if p else "subject" for p in o.prepositions)
            types = " or ".join(operation.accepted(o))
            lines.append(f"| {where} | {types}{', several' if o.many else ''} | {o.doc} |")
        lines.append("")
    if operation.fields:
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{f.name}` | {type_text(f)} | {default_text(f)} | {f.doc} |"
            for f in operation.fields
        ]
        lines.append("")
    laws = ", ".join(law.replace("_", " ") for law in operation.laws)
    result = operation.result + (", Layers of Layers" if operation.takes_layers else "")
    facts = [f"gives {result}", operation.determinism, f"version {operation.version}"]
    lines += [" · ".join(facts + ([f"laws: {laws}"] if laws else [])), ""]
    return "\n".join(lines)


def operations_page() -> str:
    """The page of all operations, by group."""
    head = (
        "# Operations\n\nGenerated from the operations' declarations by `make docs`; do not edit. "
        "The language itself is in [language.md](language.md).\n"
    )
    parts = [head]
    for group, title in GROUPS.items():
        found = [
            lookup(verb) for verb, (file, _) in sorted(verbs().items()) if file.parent.name == group
        ]
        shown = [o for o in found if o is not None and not o.internal]
        if shown:
            parts.append(f"## {title}\n\n" + "\n".join(section(o) for o in shown))
    return "\n".join(parts)


def main() -> int:
    """Write or check every generated page."""
    pages = {HERE / "operations.md": operations_page()}
    stale = [p for p, text in pages.items() if not p.exists() or p.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for page in stale:
            print(f"{page.name} is out of step: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for page in stale:
        page.write_text(pages[page], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
