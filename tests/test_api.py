"""Every route over a real HTTP server (uvicorn, httpx); see test_api_limits.py for what is refused."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator

from tests.api_server import Stack, serving

if TYPE_CHECKING:  # read by mypy: what deploy will hand in fits the ports
    from api.access.access import Access
    from api.ports import Ports
    from api.retrievers.edge import EdgeRetriever
    from api.retrievers.graph import LadybugGraph
    from api.retrievers.neo4j import Neo4jGraph
    from api.retrievers.qdrant import QdrantRetriever
    from processors.bm25 import Bm25Encoder
    from processors.embed import Embedder
    from streams.consistency import Consistency
    from streams.dead_letters import DeadLetters
    from streams.health import StageHealth
    from streams.lag import LagMeter
    from streams.publisher import Publisher
    from streams.status import StatusView

    def ports_of_the_real_ones(
        *,
        publisher: Publisher,
        status: StatusView,
        lag: LagMeter,
        retriever: EdgeRetriever | QdrantRetriever,
        graph: Neo4jGraph | LadybugGraph,
        embedder: Embedder,
        sparse: Bm25Encoder,
        health: StageHealth,
        dead_letters: DeadLetters,
        consistency: Consistency,
        access: Access,
    ) -> Ports:
        return Ports(
            publisher=publisher,
            status=status,
            extractions=status.extractions,
            lag=lag,
            dead_letters=dead_letters,
            stuck=lambda older_than, limit: [],
            retriever=retriever,
            graph=graph,
            embeddings=embedder,
            embed_query=embedder.embed_query,
            encode_query=sparse.query,
            healths=lambda: {health.stage: health.summary()},
            consistency=consistency,
            access=access,
        )


@pytest.fixture
def stack() -> Iterator[Stack]:
    with serving() as stack:
        yield stack


def test_a_document_is_published_and_acknowledged(stack: Stack) -> None:
    document = {"document_id": "a/b c", "text": "Hello", "title": "T", "metadata": {"n": 1}}
    response = stack.http.post("/api/v1/documents", json=document, headers={"X-Request-ID": "req-1"})
    assert response.status_code == 202
    assert response.json() == {
        "document_id": "a/b c",
        "version": 1000,
        "correlation_id": "req-1",
        "status_url": "/api/v1/documents/a%2Fb%20c",
    }
    assert response.headers["Location"] == response.json()["status_url"]
    assert response.headers["X-Request-ID"] == "req-1"
    [(record, correlation_id)] = stack.publisher.log
    assert (record.text, record.title, record.metadata, correlation_id) == ("Hello", "T", {"n": 1}, "req-1")


def test_equal_content_without_an_id_has_an_equal_id(stack: Stack) -> None:
    ids = [
        stack.http.post("/api/v1/documents", json={"text": text}).json()["document_id"]
        for text in ("one", "one", "two")
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_file_is_uploaded_under_its_name(stack: Stack) -> None:
    content = b"# Title\n" + b"x" * 200_000
    response = stack.http.post(
        "/api/v1/documents",
        files={"file": ("notes.md", content, "application/octet-stream")},
        data={"title": "Notes", "metadata": '{"team": "people"}'},
    )
    assert response.status_code == 202, response.text
    [(record, _)] = stack.publisher.log
    assert base64.b64decode(record.content_base64 or "") == content
    assert (record.document_id, record.media_type, record.source) == ("notes.md", "text/markdown", "notes.md")
    assert (record.title, record.metadata) == ("Notes", {"team": "people"})


def test_a_file_is_uploaded_under_a_given_id(stack: Stack) -> None:
    response = stack.http.post(
        "/api/v1/documents",
        files={"file": ("x", b"%PDF-1.7", "application/pdf")},
        data={"document_id": "x/y", "source": "https://example.org/x", "version": "7"},
    )
    assert (response.json()["document_id"], response.json()["version"]) == ("x/y", 7)
    record = stack.publisher.log[0][0]
    assert (record.media_type, record.source) == ("application/pdf", "https://example.org/x")


def test_a_document_is_deleted(stack: Stack) -> None:
    response = stack.http.delete("/api/v1/documents/a%2Fb", headers={"X-Request-ID": "req-2"})
    assert (response.status_code, response.json()) == (202, {"document_id": "a/b", "version": 1000})
    [(record, correlation_id)] = stack.publisher.log
    assert (record.document_id, record.operation, correlation_id) == ("a/b", "delete", "req-2")


@pytest.mark.parametrize("document_id", ["plain", "a/b", "/root//twice/", "a/events", "événement?#%", "x@y"])
def test_the_status_url_leads_to_the_status(stack: Stack, document_id: str) -> None:
    status_url = stack.http.post("/api/v1/documents", json={"document_id": document_id, "text": "x"}).json()[
        "status_url"
    ]
    assert stack.http.get(status_url).status_code == 404
    stack.status.report(document_id, 3, chunk="chunked", index_vectors="indexed")
    response = stack.http.get(status_url)
    assert response.status_code == 200
    status = response.json()
    assert (status["document_id"], status["version"], status["state"]) == (document_id, 3, "searchable")
    assert (status["searchable_version"], status["error"]) == (3, None)
    assert status["stages"]["chunk"]["state"] == "chunked"


def test_a_status_tells_why_a_document_failed_and_what_answers_meanwhile(stack: Stack) -> None:
    stack.status.report("d", 1, index_vectors="indexed", index_graph="indexed")
    stack.status.report("d", 2, error="no text in it", chunk="dead-lettered")
    status = stack.http.get("/api/v1/documents/d").json()
    assert (status["version"], status["state"], status["error"]) == (2, "dead-lettered", "no text in it")
    assert status["searchable_version"] == 1


def test_documents_are_listed_newest_first_with_counts(stack: Stack) -> None:
    for number in range(5):
        stack.status.report(f"d{number}", 1, chunk="chunked" if number % 2 else "retrying")
    listed = stack.http.get("/api/v1/documents", params={"limit": 2}).json()
    assert [status["document_id"] for status in listed["documents"]] == ["d4", "d3"]
    assert listed["counts"] == {"processing": 2, "retrying": 3}
    retrying = stack.http.get("/api/v1/documents", params={"state": "retrying", "limit": 2}).json()
    assert [status["document_id"] for status in retrying["documents"]] == ["d4", "d2"]


def _events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_a_document_is_followed_until_its_version_is_settled(stack: Stack) -> None:
    stack.status.report("a/b", 1, index_vectors="indexed", index_graph="indexed")
    with stack.http.stream("GET", "/api/v1/documents/a/b/events", params={"version": 2}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = _events(response)
        assert next(events)[1]["version"] == 1  # settled, but not the version that is waited for
        stack.status.report("a/b", 2, chunk="chunked")
        name, status = next(events)
        assert (name, status["state"], status["searchable_version"]) == ("status", "processing", 1)
        stack.status.report("a/b", 2, index_vectors="indexed", index_graph="indexed")
        assert next(events)[1]["state"] == "indexed"
        assert list(events) == [("end", {"settled": True})]


def test_a_document_can_be_followed_before_anything_is_known_of_it(stack: Stack) -> None:
    threading.Timer(0.3, lambda: stack.status.report("new", 1, chunk="dead-lettered")).start()
    with stack.http.stream("GET", "/api/v1/documents/new/events") as response:
        assert [name for name, _ in _events(response)] == ["status", "end"]


def test_nobody_looks_any_more_once_the_follower_has_left(stack: Stack) -> None:
    stack.status.report("d", 1, chunk="chunked")
    with stack.http.stream("GET", "/api/v1/documents/d/events") as response:
        next(_events(response))
    time.sleep(0.3)
    looks = stack.status.looks
    time.sleep(0.6)
    assert stack.status.looks == looks


def test_a_search_answers_with_ranked_hits(stack: Stack) -> None:
    response = stack.http.post("/api/v1/search", json={"query": " leave? ", "limit": 3, "document_ids": ["d/1", "d/2"]})
    assert response.status_code == 200, response.text
    found = response.json()
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0] | {"score": 1.0} == {
        "rank": 1,
        "chunk_id": "chunk-0",
        "document_id": "d/1",
        "version": 3,
        "chunk_index": 0,
        "text": "chunk 0",
        "start": 0,
        "end": 7,
        "headings": ["A", "B"],
        "title": "T",
        "source": None,
        "media_type": "text/plain",
        "metadata": {"team": "people", "deep": {"list": [1, None]}},
        "score": 1.0,
        "ranks": {"dense": 1},
        "scores": {"dense": 0.5},
    }
    assert found["query"] == "leave?"
    assert stack.embedded == ["leave?"]
    assert found["took_ms"] >= found["timings"]["embed_ms"] + found["timings"]["retrieve_ms"] > 0
    assert stack.retriever.searches[0][2] == ["d/1", "d/2"]


@pytest.mark.parametrize(("mode", "dense", "sparse"), [("hybrid", 1, 1), ("vector", 1, 0), ("keyword", 0, 1)])
def test_a_mode_asks_only_for_what_it_needs(stack: Stack, mode: str, dense: bool, sparse: bool) -> None:
    assert len(stack.http.post("/api/v1/search", json={"query": "q", "mode": mode}).json()["hits"]) == 10
    [(vector, terms, document_ids)] = stack.retriever.searches
    assert (vector is not None, terms is not None, document_ids) == (dense, sparse, None)
    assert len(stack.embedded) == dense


def test_a_search_tells_how_fresh_the_indexes_are(stack: Stack) -> None:
    stack.lag.seconds = 4.5
    unknown = stack.http.post("/api/v1/search", json={"query": "q"}).json()["freshness"]
    assert unknown == {"lag_seconds": {"index-vectors": None, "index-graph": None}}  # never waits for the broker
    time.sleep(0.2)
    known = stack.http.post("/api/v1/search", json={"query": "q"}).json()["freshness"]
    assert known == {"lag_seconds": {"index-vectors": 4.5, "index-graph": 4.5}}


def test_a_search_waits_for_a_version(stack: Stack) -> None:
    stack.status.report("me@home", 4, index_vectors="indexed")
    threading.Timer(0.3, lambda: stack.status.report("me@home", 5, index_vectors="indexed")).start()
    response = stack.http.post("/api/v1/search", json={"query": "q", "wait_for": "me@home@5"})
    assert response.status_code == 200
    assert response.json()["took_ms"] >= 250
    older = stack.http.post("/api/v1/search", json={"query": "q", "wait_for": "me@home@4", "wait_timeout": 0})
    assert older.status_code == 200


def test_a_search_that_waited_in_vain_tells_where_the_document_is(stack: Stack) -> None:
    stack.status.report("d", 2, error="the model is down", embed="retrying")
    response = stack.http.post("/api/v1/search", json={"query": "q", "wait_for": "d@2", "wait_timeout": 0.1})
    problem = response.json()
    assert (response.status_code, problem["type"]) == (504, "urn:aegis:problem:not-searchable-in-time")
    assert problem["detail"] == (
        "'d' is not searchable as version 2 after 0.1 s; it is retrying as version 2: the model is down"
    )
    assert (problem["state"], problem["searchable_version"]) == ("retrying", -1)
    unknown = stack.http.post("/api/v1/search", json={"query": "q", "wait_for": "x@1", "wait_timeout": 0}).json()
    assert unknown["detail"].endswith("no stage has reported it yet")


def test_lag_is_told_per_group_and_partition(stack: Stack) -> None:
    groups = stack.http.get("/api/v1/lag").json()
    assert [group["stage"] for group in groups] == ["chunk", "embed", "extract", "index-vectors", "index-graph"]
    assert groups[0]["partitions"] == [
        {"topic": "t", "partition": 0, "committed": 3, "end": 5, "records": 2, "seconds": 0.0}
    ]
    assert {"records": 2, "seconds": 0.0, "members": 1, "verdict": "OK"}.items() <= groups[0].items()
    assert len(stack.http.get("/api/v1/lag", params={"retries": True}).json()) == 10


def test_formats_are_listed(stack: Stack) -> None:
    assert stack.http.get("/api/v1/formats").json()["application/pdf"] == [".pdf"]


def test_health_names_what_is_not_ready(stack: Stack) -> None:
    assert stack.http.get("/health/ready").json() == {"ready": True}
    assert stack.http.get("/health").json() == {
        "ready": True,
        "status": "ok",
        "reasons": [],
        "breakers": {"embedding": "closed", "vectors": "closed", "graph": "closed"},
        "broker": {"ready": True, "chunk_lag_seconds": 0.0},
        "index": {"ready": True, "chunks": 7},
        "stages": {"embed": {"ready": True, "reason": None}},
    }
    stack.healths["embed"] = {"ready": False, "reason": "the model is being loaded"}
    stack.lag.down, stack.retriever.error = True, ValueError("secret address")
    time.sleep(2.1)  # for so long the last answers serve
    response = stack.http.get("/health/ready")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.json()["reasons"] == [
        "the broker does not answer (RuntimeError)",
        "the index does not answer (ValueError)",
        "embed: the model is being loaded",
    ]
    health = stack.http.get("/health")
    assert (health.status_code, health.json()["ready"], health.json()["index"]["ready"]) == (200, False, False)
    assert stack.http.get("/health/live").json() == {"status": "live"}


def test_metrics_are_by_route_template(stack: Stack) -> None:
    stack.http.post("/api/v1/search", json={"query": "q"})
    stack.http.get("/api/v1/documents/some/secret")
    stack.http.get("/nowhere/secret")
    stack.http.request("PROPFIND", "/api/v1/search")
    response = stack.http.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    requests = [
        line for line in response.text.splitlines() if line.startswith("aegis_http_request_duration_seconds_count")
    ]
    name = "aegis_http_request_duration_seconds_count"
    for labels in (
        '{method="POST",route="/api/v1/search",status="200"}',
        '{method="GET",route="/api/v1/documents/{document_id}",status="404"}',
        '{method="GET",route="unmatched",status="404"}',
        '{method="other",route="/api/v1/search",status="405"}',
    ):
        assert any(line.startswith(name + labels) for line in requests), labels
    assert not any("secret" in line for line in requests)
    assert 'aegis_search_duration_seconds_count{phase="embed"}' in response.text


def test_the_openapi_document_is_valid_and_complete(stack: Stack) -> None:
    document = stack.http.get("/openapi.json").json()
    OpenAPI.model_validate(document)
    operations = [
        (path, verb, operation) for path, verbs in document["paths"].items() for verb, operation in verbs.items()
    ]
    assert {f"{verb} {path}" for path, verb, _ in operations} >= {
        "post /api/v1/documents",
        "get /api/v1/documents",
        "get /api/v1/documents/{document_id}",
        "delete /api/v1/documents/{document_id}",
        "get /api/v1/documents/{document_id}/events",
        "post /api/v1/search",
        "post /v1/embeddings",
        "post /v1/rerank",
        "post /v1/chat/completions",
        "post /api/v1/chat/",
        "post /api/v1/chat/stream",
        "get /api/v1/entities",
        "get /api/v1/entities/{entity_id}",
        "get /api/v1/entities/{entity_id}/chunks",
        "get /api/v1/entities/{entity_id}/graph",
        "get /api/v1/entities/{entity_id}/links",
        "get /api/v1/entities/{entity_id}/links/{other_id}",
        "get /api/v1/decisions",
        "post /api/v1/decisions",
        "get /api/v1/graph",
        "get /api/v1/lag",
        "get /api/v1/stuck",
        "get /api/v1/dlq",
        "get /api/v1/dlq/{stage}/{partition}/{offset}",
        "post /api/v1/dlq/replay",
        "post /api/v1/dlq/drop",
        "get /api/v1/formats",
        "get /health",
        "get /health/live",
        "get /health/ready",
        "get /metrics",
        "post /api/v1/login",
        "get /api/v1/keys",
        "post /api/v1/keys",
        "delete /api/v1/keys/{key_id}",
        "get /api/v1/keys/{key_id}/usage",
        "get /api/v1/audit",
    }
    for path, verb, operation in operations:
        assert operation["summary"] and operation["description"], (path, verb)
        assert "application/problem+json" in operation["responses"]["default"]["content"], (path, verb)
        assert "422" not in operation["responses"], (path, verb)  # FastAPI's own error shape
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference
    body = document["paths"]["/api/v1/documents"]["post"]["requestBody"]["content"]
    Draft202012Validator(body["application/json"]["schema"]).validate(body["application/json"]["example"])


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_lag_is_a_metric_by_its_conventional_names(stack: Stack) -> None:
    lines = stack.http.get("/metrics").text.splitlines()
    for sample in (
        'kafka_consumergroup_lag{consumergroup="aegis-embed",partition="0",topic="t"} 2.0',
        'kafka_consumergroup_group_lag_seconds{consumergroup="aegis-embed-retry",topic="t"} 0.0',
        'aegis_consumergroup_verdict{consumergroup="aegis-embed",verdict="OK"} 1.0',
        'aegis_consumergroup_verdict{consumergroup="aegis-embed",verdict="STALL"} 0.0',
    ):
        assert sample in lines, sample


def test_metrics_answer_while_the_broker_does_not() -> None:
    with serving() as stack:
        stack.lag.down = stack.dead_letters.down = True
        text = stack.http.get("/metrics").text
        assert "aegis_http_request_duration_seconds" in text
        assert "kafka_consumergroup_lag{" not in text
        assert "aegis_dead_letters{" not in text
