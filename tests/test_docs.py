"""The documentation says what is true: what it names exists, its examples work, and nothing is documented nowhere."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client.metrics
import pytest
import typer
from aiokafka.partitioner import murmur2
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

import api.metrics
import deploy.model_metrics
import streams.metrics
from api.app import create_app
from deploy import docs
from deploy.cli import app
from schemas.records import STAGES, DocumentRecord
from schemas.settings import Kafka, Settings, variable_names
from schemas.topics import ALL, RESOLUTIONS, SOURCES, TARGETS
from streams.chunking import decode_document
from streams.kafka import read_all
from streams.record import Record
from streams.topics import create_topics
from tests.answer_shelf import shelved
from tests.api_server import Stack, serving

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
REFERENCE = "\n".join(page.read_text() for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))])
EXAMPLES = sorted(ROOT.glob("schemas/examples/*.json"))
METRICS = (streams.metrics, api.metrics, deploy.model_metrics)
STORES = {"index-vectors": "vector store", "index-graph": "graph store"}

_CODE_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_DOTTED = re.compile(r"`((?:schemas|processors|streams|api|deploy)(?:\.\w+)+)")
_PATH = re.compile(r"`((?:schemas|processors|streams|api|deploy|tests|docs)/[\w./-]*)`")
_NODE = re.compile(r"(\w+)[\[(]+/?\"([^\"]+)\"")


@pytest.fixture(autouse=True)
def _default_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is generated shows the defaults, whatever this machine has set."""
    for name in [name for name in os.environ if name.startswith("AEGIS_") and name != "AEGIS_DATA"]:
        monkeypatch.delenv(name)


def blocks(page: Path, language: str) -> list[str]:
    return [code for of, code in _CODE_BLOCK.findall(page.read_text()) if of == language]


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the command line that does something, with its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_setting_has_a_heading() -> None:
    headings = _HEADING.findall((ROOT / "docs/configuration.md").read_text())
    assert [f"`{name}`" for name in variable_names()] == headings[1:]


@pytest.mark.parametrize("path", docs.files(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text() == docs.files()[path], "run `make docs`"


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    document = docs.asyncapi()
    references = list(_references(document))
    assert references
    for reference in references:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def _references(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == "$ref":
            yield value
        elif key == "mapping":
            yield from value.values()
        elif isinstance(value, dict | list):
            yield from _references(value)


def test_every_topic_is_a_channel_with_the_records_it_holds() -> None:
    document = docs.asyncapi()
    channels = document["channels"]
    assert channels.keys() == {topic.name for topic in ALL} - {RESOLUTIONS.name}
    for name, channel in channels.items():
        assert channel["address"] == name
        assert channel["messages"]
    sends = {operation["channel"]["$ref"] for operation in document["operations"].values()}
    assert sends == {f"#/channels/{topic.name}" for topic in (*SOURCES.values(), *TARGETS.values())}


@pytest.mark.parametrize("record", docs.RECORDS)
def test_every_record_has_a_valid_schema_and_examples(record: str) -> None:
    Draft202012Validator.check_schema(json.loads((ROOT / f"docs/schemas/{record}.json").read_text()))
    assert [path for path in EXAMPLES if path.name.startswith(f"{record}-")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_its_schema_and_decodes(path: Path) -> None:
    record = path.stem.partition("-")[0]
    example = json.loads(path.read_text())
    validator = Draft202012Validator(docs.json_schemas()[record])
    validator.validate(example)
    assert not validator.is_valid(example | {"colour": "red"})
    decoded = TypeAdapter(docs.RECORDS[record][1]).validate_json(path.read_bytes())
    assert decoded.model_dump(mode="json").items() >= example.items()


def test_every_topic_is_documented() -> None:
    assert [topic.name for topic in ALL if f"`{topic.name}`" not in REFERENCE] == []


def test_every_command_is_documented() -> None:
    assert len(COMMANDS) > 10
    words = [" ".join(("aegis", *name)) for name in COMMANDS]
    assert [one for one in words if not re.search(rf"\b{one}\b", REFERENCE)] == []


def test_every_metric_is_documented() -> None:
    names = []
    for collector in (collector for module in METRICS for collector in vars(module).values()):
        if isinstance(collector, prometheus_client.metrics.MetricWrapperBase):
            described = next(iter(collector.describe()))
            names.append(described.name + "_total" * (described.type == "counter"))
    assert "aegis_records_total" in names
    assert [name for name in names if f"`{name}`" not in REFERENCE] == []
    page = (ROOT / "docs/reference/metrics.md").read_text()
    assert [name for name in names if f"### `{name}`" not in page] == []


def test_every_route_is_documented() -> None:
    application = create_app(Settings(), Stack().ports())
    routes = {
        f"{method.upper()} {path}" for path, methods in application.openapi()["paths"].items() for method in methods
    }
    assert len(routes) > 10
    documented = f"{application.openapi_url}` {REFERENCE}"
    assert [route for route in sorted(routes) if f"`{route}`" not in documented] == []


def test_every_documented_route_exists() -> None:
    application = create_app(Settings(), Stack().ports())
    paths = {*application.openapi()["paths"], application.openapi_url}
    documented = set(re.findall(r"`(?:GET|POST|PUT|DELETE) (/[^`?]*)", REFERENCE))
    assert documented - paths == set()


def test_command_lines_in_the_documentation_are_understood() -> None:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    ours = [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"(\.venv/bin/)?aegis ", line)]
    assert len(ours) > 10
    for words in ours:
        name = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words


def test_make_targets_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_environment_variables_in_the_documentation_exist() -> None:
    known = {*variable_names(), "AEGIS_DATA", "AEGIS_KEY", "AEGIS_TEST_KAFKA", "AEGIS_TEST_QDRANT_URL"}
    text = "\n".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"\bAEGIS_[A-Z_]+[A-Z]\b", text)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in _LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if anchor:
            assert anchor in map(_slug, _HEADING.findall(target.read_text())), f"{page.name} links to {path}#{anchor}"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    assert [path for path in _PATH.findall(text) if not (ROOT / path).exists()] == []
    assert [name for name in _DOTTED.findall(text) if not _exists(name)] == []


def _exists(name: str) -> bool:
    """Whether a dotted name leads to a module, or to what is in one."""
    parts = name.split(".")
    modules = [count for count in range(1, len(parts) + 1) if _is_module(parts[:count])]
    found: Any = importlib.import_module(".".join(parts[: max(modules)]))
    for part in parts[max(modules) :]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_the_diagram_is_the_topology() -> None:
    (diagram,) = blocks(ROOT / "docs/architecture.md", "mermaid")
    labels = dict(_NODE.findall(diagram))
    edges = {(labels.get(start, start), labels.get(end, end)) for start, end in _edges(diagram)}
    reads = {(SOURCES[stage].name, stage) for stage in STAGES}
    writes = {(stage, TARGETS[stage].name if stage in TARGETS else STORES[stage]) for stage in STAGES}
    assert {edge for edge in edges if set(edge) & set(STAGES)} == reads | writes


def _edges(diagram: str) -> Iterator[tuple[str, str]]:
    for line in diagram.splitlines():
        start, arrow, end = line.partition(" --> ")
        if arrow:
            yield re.findall(r"\w+", start)[0], re.findall(r"\w+", end)[0]


def test_the_words_that_troubleshooting_begins_with_are_the_programs_own() -> None:
    packages = ("schemas", "processors", "streams", "api", "deploy")
    code = "".join(path.read_text() for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a text over several lines
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    said = [part.strip() for row in rows for words in re.findall(r'"(.+?)"', row) for part in words.split("…")]
    assert len(said) > 20
    assert [words for words in said if words not in code] == []
    problems = [problem for row in rows for problem in re.findall(r"^(\d{3}) `([a-z-]+)`$", row)]
    assert len(problems) > 8
    assert [one for one in problems if not re.search(rf'Problem\(\s*{one[0]},\s*"{one[1]}"', code)] == []


def test_documents_in_the_documentation_decode() -> None:
    page = ROOT / "docs/producing.md"
    documents = [*blocks(page, "json"), *re.findall(r"-d '(\{.*?\})'", "".join(blocks(page, "sh")))]
    assert len(documents) > 4
    for document in documents:
        DocumentRecord.model_validate_json(document)


def test_curl_examples_of_asking_are_answered() -> None:
    examples = [block for block in blocks(ROOT / "docs/asking.md", "sh") if block.startswith("curl ")]
    assert len(examples) == 4
    with serving(change=shelved) as stack:
        for example in examples:
            address = f"http://127.0.0.1:{stack.port}"
            words = shlex.split(example.replace("\\\n", " ").replace("http://127.0.0.1:8321", address))
            done = subprocess.run([*words, "--fail"], capture_output=True, text=True, timeout=60, check=True)
            assert "30 days of leave" in done.stdout or "approves leave" in done.stdout


@pytest.mark.parametrize("snippet", blocks(ROOT / "docs/producing.md", "python"))
def test_snippets_compile(snippet: str) -> None:
    assert ast.parse(snippet).body


@pytest.mark.integration
def test_what_the_snippets_publish_is_understood_and_lies_where_the_sdk_puts_it(
    bootstrap_servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topics(bootstrap_servers, Kafka())
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    for snippet in blocks(ROOT / "docs/producing.md", "python"):
        code = snippet.replace("localhost:9092", bootstrap_servers)
        exec(compile(code, "docs/producing.md", "exec"), {"__name__": "__main__"})
    records = [
        record
        for record in read_all(bootstrap_servers, [SOURCES["chunk"].name])
        if (record.document_id or "").startswith(("handbook/", "tables/"))
    ]
    assert {record.document_id: _operation(record) for record in records} == {
        "handbook/leave": "upsert",
        "handbook/travel": "delete",
        "handbook/old": "tombstone",
        "handbook/remote": "upsert",
        "handbook/sick": "upsert",
        "tables/teams.csv": "upsert",
        "handbook/fax": "delete",
    }
    for record in records:
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % Kafka().partitions


def _operation(record: Record) -> str:
    document = decode_document(record).document
    return document.operation if document else "tombstone"
