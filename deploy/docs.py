"""What is generated: JSON Schemas, the AsyncAPI document, the reference pages, dashboards. `make docs` writes it."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from deploy import dashboards
from deploy.reference import alerts, metrics, openapi, topics
from schemas import headers
from schemas.records import (
    STAGES,
    ChunkRecord,
    DocumentRecord,
    EmbeddingRecord,
    ExtractionRecord,
    StatusRecord,
)
from schemas.settings import FLAGS, Settings, value_of, variable_names
from schemas.topics import (
    CHUNKS,
    DOCUMENTS,
    EMBEDDINGS,
    EXTRACTIONS,
    RETRY_DELAYS,
    SOURCES,
    STATUS,
    TARGETS,
    Topic,
    dead_letter_topic,
    group_of,
    retry_topic,
)

DOCS = Path(__file__).parents[1] / "docs"
RECORDS: dict[str, tuple[Topic, Any]] = {
    "document": (DOCUMENTS, DocumentRecord),
    "chunk": (CHUNKS, ChunkRecord),
    "embedding": (EMBEDDINGS, EmbeddingRecord),
    "extraction": (EXTRACTIONS, ExtractionRecord),
    "status": (STATUS, StatusRecord),
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each record's value."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | TypeAdapter(model).json_schema() for name, (_, model) in RECORDS.items()}


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0 document of every topic: https://www.asyncapi.com/docs/reference/specification/v3.0.0."""
    names = {topic.name: name for name, (topic, _) in RECORDS.items()}
    channels = {topic.name: _channel(topic, names[topic.name]) for topic, _ in RECORDS.values()}
    for stage in STAGES:
        name = names[SOURCES[stage].name]
        for topic in [*(retry_topic(stage, delay) for delay in RETRY_DELAYS), dead_letter_topic(stage)]:
            channels[topic.name] = _channel(topic, name)
    keyed, definitions = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(model)) for name, (_, model) in RECORDS.items()],
        ref_template="#/components/schemas/{model}",
    )
    schemas = {name: keyed[name, "validation"] for name in RECORDS}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Aegis Streams", "version": "1", "description": "Every topic, keyed by document id."},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(),
        "components": {
            "messages": {name: _message(name, schema) for name, schema in schemas.items()},
            "schemas": definitions["$defs"],
        },
    }


def configuration() -> str:
    """Every setting as Markdown."""
    lines = ["# Configuration", "", "Read once at start; an unknown `AEGIS_*` variable is an error.", ""]
    short = {name: flag for flag, name in FLAGS.items()}
    for name, field in variable_names(Settings).items():
        default = value_of(Settings.model_construct(), name)
        described = [field.description, ""] if field.description else []
        described += [f"Also read from `{short[name]}`, which this name overrides.", ""] if name in short else []
        lines += [f"## `{name}`", "", *described, "Default: empty" if default == "" else f"Default: `{default}`", ""]
    return "\n".join(lines)


def reference() -> dict[str, str]:
    """Every reference page by its path: what the code itself says of topics, routes, metrics and alerts."""
    routes = {f"api/{name}": page for name, page in openapi.pages(openapi.document()).items()}
    return {
        "topics.md": topics.page(RECORDS, json_schemas()),
        "metrics.md": metrics.page(alerts.rules()),
        "alerts.md": alerts.page(),
        **routes,
    }


@cache
def files() -> dict[Path, str]:
    """Every generated file with its content."""
    made = {DOCS / "schemas" / f"{name}.json": _json(schema) for name, schema in json_schemas().items()}
    made[DOCS / "asyncapi.json"] = _json(asyncapi())
    made[DOCS / "configuration.md"] = configuration()
    made |= {DOCS / "reference" / name: page for name, page in reference().items()}
    made |= {dashboards.FOLDER / f"{name}.json": _json(dashboards.dashboard(name)) for name in dashboards.DASHBOARDS}
    return made


def _channel(topic: Topic, record: str) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {record: {"$ref": f"#/components/messages/{record}"}},
        "bindings": {"kafka": {"topicConfiguration": _configuration_of(topic), "bindingVersion": "0.5.0"}},
    }


def _configuration_of(topic: Topic) -> dict[str, Any]:
    """The binding knows numbers and the list of clean-up policies."""
    known: dict[str, Callable[[str], Any]] = {
        "retention.ms": int,
        "max.message.bytes": int,
        "cleanup.policy": lambda value: [value],
    }
    return {key: known[key](value) for key, value in topic.config.items() if key in known}


def _operations() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for stage in STAGES:
        reads = {"action": "receive", "channel": {"$ref": _reference(SOURCES[stage])}}
        reads["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": [group_of(stage)]}}}
        made[f"{stage}-reads"] = reads
        if stage in TARGETS:
            made[f"{stage}-writes"] = {"action": "send", "channel": {"$ref": _reference(TARGETS[stage])}}
    return made


def _reference(topic: Topic) -> str:
    return f"#/channels/{topic.name}"


def _message(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    key = "stage/document_id" if name == "status" else "document_id"
    return {
        "name": name,
        "contentType": "application/json",
        "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": schema},
        "headers": {
            "type": "object",
            "properties": {one: {"type": "string"} for one in (headers.CORRELATION_ID, headers.TRACEPARENT, "ce_id")},
        },
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}},
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write the files."""
    for path, content in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
