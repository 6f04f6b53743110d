"""The pages about the HTTP API, from its OpenAPI document: one for each tag, and a list of all operations."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from http import HTTPStatus
from typing import Any, NamedTuple

from api.app import create_app
from api.ports import Ports
from deploy.reference import shapes
from schemas.settings import Api, Settings

_INTRODUCTION = """# HTTP API

`GET /openapi.json` describes the same to programs. Keys go in `Authorization: Bearer` or `X-API-Key`
([access](../../access.md)). An error is a problem of RFC 9457 (`application/problem+json`) with `type`, `title`,
`status`, `detail` and `request_id`; 422 lists in `errors` what is wrong with the request.
"""
_PAGES = """```{toctree}
:hidden:
:glob:

*
```
"""


class Operation(NamedTuple):
    """A method of a path."""

    name: str
    described: Mapping[str, Any]

    @property
    def tag(self) -> str:
        """What the operation belongs to."""
        return str(self.described["tags"][0])

    @property
    def summary(self) -> str:
        """Its heading."""
        return str(self.described["summary"])


class _Unasked:
    """A port that nobody asks anything: routes are only described."""

    def __getattr__(self, name: str) -> "_Unasked":
        return self


def document() -> dict[str, Any]:
    """The OpenAPI document at the settings' defaults."""
    settings = Settings.model_construct(api=Api(console=False))
    ports: Any = {field.name: _Unasked() for field in fields(Ports)}
    return create_app(settings, Ports(**ports)).openapi()


def pages(described: Mapping[str, Any]) -> dict[str, str]:
    """Every page by its file's name."""
    operations = list(_operations(described))
    made = {"index.md": _index(operations)}
    for tag in dict.fromkeys(one.tag for one in operations):
        made[_file(tag)] = _page(tag, [one for one in operations if one.tag == tag], described["components"]["schemas"])
    return made


def _operations(described: Mapping[str, Any]) -> Iterator[Operation]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield Operation(f"{method.upper()} {path}", operation)


def _index(operations: list[Operation]) -> str:
    lines = [_INTRODUCTION]
    for tag in dict.fromkeys(one.tag for one in operations):
        rows = [
            (f"`{one.name}`", f"[{one.summary}]({_file(tag)}#{shapes.anchor(one.name)})")
            for one in operations
            if one.tag == tag
        ]
        lines += [f"## {tag.capitalize()}", "", *shapes.table(["route", ""], rows)]
    return "\n".join([*lines, _PAGES])


def _page(tag: str, operations: list[Operation], models: Mapping[str, shapes.Schema]) -> str:
    lines = [f"# API: {tag}", ""]
    for one in operations:
        lines += _operation(one, models)
    used = sorted(_models_in([one.described for one in operations], models, set()))
    lines += ["## Models", ""] if used else []
    for name in used:
        lines += [f"### {name}", "", *shapes.paragraphs(models[name].get("description", ""))]
        lines += shapes.fields(models[name])
    return "\n".join(lines).rstrip() + "\n"


def _operation(one: Operation, models: Mapping[str, shapes.Schema]) -> list[str]:
    about = f"**{one.summary}.** {one.described.get('description', '')}".strip()
    lines = [f"## `{one.name}`", "", *shapes.paragraphs(about)]
    lines += shapes.table(
        ["parameter", "in", "type", "default", "meaning"],
        [
            (
                f"`{parameter['name']}`",
                parameter["in"],
                shapes.type_of(parameter["schema"]),
                shapes.default_of(parameter["schema"], is_required=parameter.get("required", False)),
                shapes.said(parameter),
            )
            for parameter in one.described.get("parameters", ())
        ],
    )
    for media_type, body in one.described.get("requestBody", {}).get("content", {}).items():
        lines += [f"Body, `{media_type}`: {_named(body)}", "", *_inline(body), *_examples(body, models)]
    for status, answer in one.described["responses"].items():
        if status.isdecimal():
            lines += _answer(status, answer, models)
    return lines


def _answer(status: str, answer: Mapping[str, Any], models: Mapping[str, shapes.Schema]) -> list[str]:
    lines = []
    for media_type, body in answer.get("content", {}).items():
        title = f"{status} {HTTPStatus(int(status)).phrase}"
        lines += [f"Answer {title}, `{media_type}`{': ' * bool(_named(body))}{_named(body)}", ""]
        lines += _examples(body, models)
    return lines


def _named(body: Mapping[str, Any]) -> str:
    return shapes.type_of(body["schema"]) if body.get("schema") else ""


def _inline(body: Mapping[str, Any]) -> list[str]:
    """The fields of a body that has no model."""
    return shapes.fields(body.get("schema", {}))


def _examples(body: Mapping[str, Any], models: Mapping[str, shapes.Schema]) -> list[str]:
    """The body's example, or its model's."""
    schema = body.get("schema", {})
    item = schema.get("items", schema)
    model = models[item["$ref"].rpartition("/")[2]] if "$ref" in item else item
    found = [one["example"] for one in (body, model) if "example" in one] + list(model.get("examples", ()))
    return shapes.example([found[0]] if item is not schema else found[0]) if found else []


def _models_in(node: Any, models: Mapping[str, shapes.Schema], seen: set[str]) -> set[str]:
    """Names of all models that a description leads to."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        name = value.rpartition("/")[2] if key == "$ref" else ""
        if name in models and name not in seen:
            seen.add(name)
            _models_in(models[name], models, seen)
        elif isinstance(value, dict | list):
            _models_in(value, models, seen)
    return seen


def _file(tag: str) -> str:
    return f"{tag.replace(' ', '-')}.md"
