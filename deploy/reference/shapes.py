"""JSON Schemas as Markdown: a table of fields, and each type in a few words."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

_LONG = re.compile(r"(\w{100})\w+=*")  # a vector in base64


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; nothing at all without rows."""
    lines = [_row(columns), "|" + "---|" * len(columns), *map(_row, rows)]
    return [*lines, ""] if len(lines) > 2 else []


def example(value: object) -> list[str]:
    """A block of JSON; what is longer than a line is cut off."""
    return ["```json", _LONG.sub(r"\1…", json.dumps(value, indent=2, ensure_ascii=False)), "```", ""]


def fields(shape: Schema) -> list[str]:
    """A table of an object's fields."""
    required = shape.get("required", ())
    return table(
        ["field", "type", "default", "meaning"],
        [
            (f"`{name}`", type_of(field), default_of(field, is_required=name in required), said(field))
            for name, field in shape.get("properties", {}).items()
        ],
    )


def type_of(schema: Schema) -> str:
    """A type in words; a model is a link to its heading on the same page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(type_of, choices)))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}" if schema.get("items") else "list"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"object of {type_of(values)}"
    return str(schema.get("format") or schema.get("type", "anything")) + _bounds(schema)


def default_of(schema: Schema, *, is_required: bool) -> str:
    """What holds where nothing is given."""
    if is_required:
        return "required"
    default = schema.get("default")
    return "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"


def said(schema: Schema) -> str:
    """The description on one line."""
    return " ".join(schema.get("description", "").replace("``", "`").split())


def anchor(heading: str) -> str:
    """A heading's anchor, as code hosts and MyST make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def paragraphs(text: str) -> list[str]:
    """A docstring as Markdown."""
    return [text.replace("``", "`"), ""] if text else []


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    if low:
        return f" from {low:g}"
    longest = schema.get("maxLength")
    return f" of at most {longest} characters" if longest else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
