"""An example for every model that a route answers, shown in the OpenAPI document."""

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI

EXAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))


def show(app: FastAPI) -> None:
    """Put the examples at their models."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        for name, model in document["components"]["schemas"].items():
            if name in EXAMPLES:
                model["examples"] = [EXAMPLES[name]]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does it
