"""The page about topics: what each holds, who writes and who reads it, and the records."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.reference import shapes
from schemas.records import STAGES, StageName
from schemas.settings import Kafka
from schemas.topics import (
    EXTRACTIONS,
    RESOLUTIONS,
    RETRY_DELAYS,
    SOURCES,
    STATUS,
    TARGETS,
    Topic,
    dead_letter_topic,
    group_of,
    retry_group_of,
    retry_topic,
)

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
_INTRODUCTION = f"""# Topics

`aegis topics create` (and `aegis up`) creates them, with `AEGIS_KAFKA__PARTITIONS` partitions
({Kafka().partitions} by default) and `AEGIS_KAFKA__REPLICATION_FACTOR` replicas; `aegis topics verify` compares. Values
are JSON in UTF-8. The same as a program reads it: [AsyncAPI document](../asyncapi.json).
"""
_KEYS = {STATUS.name: "`<stage>/<document_id>`", EXTRACTIONS.name: "`document_id`; of a decision, the pair of entities"}
_FAILURES = """## Retries and dead letters

A record that fails goes, with key and value as they were, through the retry topics of its stage and then to its
dead-letter topic. Headers say why: `__connect.errors.topic`, `.partition`, `.offset`, `.stage`,
`.exception.class.name`, `.exception.message` and `.exception.stacktrace`, as Kafka Connect names them.
"""


def page(records: Mapping[str, tuple[Topic, Any]], schemas: Mapping[str, shapes.Schema]) -> str:
    """The page, of the records by name with their topics and JSON Schemas."""
    lines = [_INTRODUCTION, *_overview(records)]
    for name, (topic, _) in records.items():
        lines += _topic(topic, name, schemas[name])
    return "\n".join([*lines, _FAILURES, *_failures(), *_resolutions(), *_models(schemas)]).rstrip() + "\n"


def _overview(records: Mapping[str, tuple[Topic, Any]]) -> list[str]:
    return shapes.table(
        ["topic", "record", "written by", "read by"],
        [
            (f"[{topic.name}](#{topic.name.replace('.', '')})", name, _writers(topic), ", ".join(_readers(topic)))
            for name, (topic, _) in records.items()
        ],
    )


def _topic(topic: Topic, record: str, schema: shapes.Schema) -> list[str]:
    groups = ", ".join(f"`{group_of(stage)}`" for stage in STAGES if SOURCES[stage] == topic)
    kinds = [ref["$ref"].rpartition("/")[2] for ref in schema.get("oneOf", ())]
    return [
        f"## `{topic.name}`",
        "",
        topic.description,
        "",
        *shapes.table(
            ["", ""],
            [
                ("key", _KEYS.get(topic.name, "`document_id`")),
                ("value", f"{' or '.join(f'[{kind}](#{kind.lower()})' for kind in kinds) or 'below'}"),
                ("schema", f"[schemas/{record}.json](../schemas/{record}.json)"),
                *_kept(topic),
                ("written by", _writers(topic)),
                ("read by", ", ".join(_readers(topic))),
                *([("consumer groups", groups)] if groups else []),
            ],
        ),
        *shapes.fields(schema),
        *(line for path in sorted(EXAMPLES.glob(f"{record}-*.json")) for line in _example(path)),
    ]


def _example(path: Path) -> list[str]:
    return [f"`schemas/examples/{path.name}`:", "", *shapes.example(json.loads(path.read_text(encoding="utf-8")))]


def _kept(topic: Topic) -> list[tuple[str, str]]:
    config = topic.config
    largest = int(config["max.message.bytes"]) >> 20 if "max.message.bytes" in config else None
    compacted = config.get("cleanup.policy") == "compact"
    kept = "compacted: the last record of each key stays" if compacted else "for ever (`retention.ms` is -1)"
    return [("kept", kept), ("largest record", f"{largest} MiB" if largest else "the broker's default")]


def _writers(topic: Topic) -> str:
    if topic == STATUS:
        return "every stage"
    return ", ".join(f"`{stage}`" for stage, target in TARGETS.items() if target == topic) or "producers, the API"


def _readers(topic: Topic) -> list[str]:
    stages = [f"`{stage}`" for stage in STAGES if SOURCES[stage] == topic]
    return stages or ["the API", "`chunk`", "commands that wait"]


def _failures() -> list[str]:
    return shapes.table(
        ["stage", "retry topics", "moved back by", "dead-letter topic"],
        [(f"`{stage}`", _retries(stage), f"`{retry_group_of(stage)}`", _letters(stage)) for stage in STAGES],
    )


def _retries(stage: StageName) -> str:
    return ", ".join(f"`{retry_topic(stage, delay).name}`" for delay in RETRY_DELAYS)


def _letters(stage: StageName) -> str:
    return f"`{dead_letter_topic(stage).name}`"


def _resolutions() -> list[str]:
    return [f"`{RESOLUTIONS.name}` (compacted) is for `aegis dlq` alone: {RESOLUTIONS.description}", ""]


def _models(schemas: Mapping[str, shapes.Schema]) -> list[str]:
    """The models that records are made of, each once."""
    models = {name: model for schema in schemas.values() for name, model in schema.get("$defs", {}).items()}
    lines = ["## Models", ""]
    for name, model in sorted(models.items()):
        lines += [f"### {name}", "", *shapes.paragraphs(model.get("description", "")), *shapes.fields(model)]
    return lines
