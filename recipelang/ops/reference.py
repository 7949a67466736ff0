"""The reference of an operation, written from its declaration: what ``recipe ops`` prints.

Example:
    >>> from recipelang.ops.registry import lookup
    >>> form(lookup("perplexity"))
    'perplexity of MODEL on DATASET { ... }'
"""

from __future__ import annotations

from recipelang.ops.spec import FieldSpec, Mark, OperandSpec, Operation, form_spec
from recipelang.values import Attr, Form, number_text, show

__all__ = ["field_default", "field_type", "form", "reference"]

_UNITS = {
    "fraction": "Fraction", "tokens": "Tokens", "steps": "Steps", "epochs": "Epochs",
    "examples": "Examples", "seconds": "Duration", "bytes": "Bytes", "gpu": "Devices",
    "tpu": "Devices", "cpu": "Devices",
}  # fmt: skip
_KINDS = {"int": "Int", "float": "Float", "text": "Text", "bool": "Bool", "secret": "Secret"}


def form(operation: Operation) -> str:
    """How a recipe writes the operation, optional parts in brackets."""
    words = [operation.verb]
    parts: list[tuple[str, str, bool]] = []
    owners: tuple[OperandSpec | FieldSpec, ...] = (*operation.operands, *operation.fields)
    for owner in owners:
        for word in owner.prepositions:
            parts.append((word, _slot(owner, word), _optional(owner, word)))
    for word, slot, optional in sorted(parts, key=lambda part: bool(part[0])):
        text = f"{word} {slot}".strip()
        words.append(f"[{text}]" if optional else text)
    if any(field.block for field in operation.fields):
        words.append("{ ... }")
    return " ".join(words)


def _slot(owner: OperandSpec | FieldSpec, word: str) -> str:
    if isinstance(owner, FieldSpec):
        return f'"{owner.name.upper()}"'
    if owner.metric:
        return "METRIC"
    name = owner.type.replace("|", "-OR-").upper()
    if owner.many and word:
        return f"{name} and ..."
    return f"LIST-OR-{name}" if owner.many and len(owner.prepositions) == 1 else name


def _optional(owner: OperandSpec | FieldSpec, word: str) -> bool:
    if isinstance(owner, FieldSpec):
        return not owner.required
    return owner.optional or owner.by_origin


def field_type(spec: FieldSpec) -> str:
    """The field's type as the reference writes it: ``Fraction in (0, 1]``, ``union | same``."""
    if spec.kind == "choice":
        text = " | ".join(spec.choices)
    elif spec.kind == "form":
        text = "setting"
    elif spec.kind == "metrics":
        text = "List of metrics"
    elif spec.kind == "list":
        text = f"List[{field_type(spec.item)}]" if spec.item else "List"
    elif spec.units:
        text = " or ".join(dict.fromkeys(_UNITS[u] for u in spec.units))
    else:
        text = _KINDS.get(spec.kind, spec.kind)
        text += "".join(f" | {c}" for c in spec.choices)
    if spec.range is not None:
        text += f" in {spec.range}"
    if spec.per_tensor:
        text += ", by tensor"
    if spec.per_input:
        text += ", on each input" + (" or in the block" if spec.block else "")
    return text


def field_default(spec: FieldSpec) -> str:
    """The field's default as a recipe would write it; ``required`` where it has none."""
    default = spec.default
    if spec.draws:
        return "the file's seed"
    if isinstance(default, Mark):
        return "required"
    if isinstance(default, Form):
        return show(default)
    text = _shown(default)
    if (
        spec.units == ("fraction",)
        and isinstance(default, int | float)
        and not isinstance(default, bool)
    ):
        return f"{number_text(round(default * 100, 10))}%"
    if spec.kind == "choice":
        return text.strip('"')
    return text


def _shown(value: Attr) -> str:
    return show(value)


def reference(operation: Operation) -> str:
    """The operation's page: its form, documentation, operands, fields and settings."""
    lines = [form(operation), "", f"gives {_gives(operation)}", "", operation.doc]
    operands = [o for o in operation.operands if o.doc]
    if operands:
        lines += ["", "operands"]
        for operand in operands:
            words = " / ".join(word or "(subject)" for word in operand.prepositions)
            types = " or ".join(operation.accepted(operand))
            lines.append(f"  {words:<20} {types}: {operand.doc}")
    fields = [f for f in operation.fields if not f.prepositions]
    if fields:
        lines += ["", "fields"]
        lines += [line for field in fields for line in _field_lines(field)]
    return "\n".join(lines)


def _gives(operation: Operation) -> str:
    if operation.result == "Measured":
        return (
            "a measured value; "
            + ("lower" if operation.direction == "min" else "higher")
            + " is better"
        )
    return operation.result + (" (Layers of Layers)" if operation.takes_layers else "")


def _field_lines(spec: FieldSpec) -> list[str]:
    lines = [f"  {spec.name:<20} {field_type(spec)} [{field_default(spec)}]"]
    if spec.doc:
        lines.append(f"  {'':<20} {spec.doc}")
    if spec.forms is not None:
        from recipelang.language.forms import form_names, schema

        for name in form_names(spec.forms):
            known = schema(spec.forms, name) or form_spec(spec.forms.functions[0])
            args = ", ".join(f"{f.name} = {field_default(f)}" for f in known.fields)
            lines.append(
                f"  {'':<20}   {name}({args}): {known.doc.partition(chr(10))[0]}".replace("()", "")
            )
    return lines
