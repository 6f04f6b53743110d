"""Every body that is sent or answered as JSON has an example, and every example fits its schema."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from api.examples import EXAMPLES
from schemas.settings import Settings
from tests.api_server import Stack

EXEMPT = {
    "get /api/v1/formats",  # a plain map
    "get /metrics",  # text
}
JSON = "application/json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(), Stack().ports()).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            if f"{verb} {path}" not in EXEMPT:
                yield f"{verb} {path}", operation


def examples_of(document: dict[str, Any], body: dict[str, Any]) -> list[Any]:
    """A body's own examples, or those of its model, or of the models that it lists."""
    schema = body["schema"]
    item = schema.get("items", schema)
    model = document["components"]["schemas"][item["$ref"].rpartition("/")[2]] if "$ref" in item else item
    found = [one[name] for one in (body, model) for name in ("example",) if name in one] + model.get("examples", [])
    return [[one] for one in found] if item is not schema else found


def check(document: dict[str, Any], name: str, body: dict[str, Any]) -> None:
    examples = examples_of(document, body)
    assert examples, f"{name} has no example"
    for example in examples:
        schema = body["schema"] | {"components": document["components"]}
        errors = [error.message for error in Draft202012Validator(schema).iter_errors(example)]
        assert errors == [], name


def test_every_request_has_an_example_that_fits(document: dict[str, Any]) -> None:
    bodies = [
        (f"{name} {media_type}", body)
        for name, operation in operations(document)
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items()
    ]
    assert len(bodies) > 7
    for name, body in bodies:
        check(document, name, body)


def test_every_answer_in_json_has_an_example_that_fits(document: dict[str, Any]) -> None:
    bodies = [
        (name, answer["content"][JSON])
        for name, operation in operations(document)
        for status, answer in operation["responses"].items()
        if status.startswith("2") and answer.get("content", {}).get(JSON, {}).get("schema")
    ]
    assert len(bodies) > 15
    for name, body in bodies:
        check(document, name, body)


def test_no_example_is_of_a_model_that_is_gone(document: dict[str, Any]) -> None:
    assert EXAMPLES.keys() <= document["components"]["schemas"].keys()
