"""The graph over HTTP, from a real embedded graph."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.retrievers.graph import LadybugGraph
from schemas.ids import entity_id
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from tests.api_server import Stack, serving
from tests.graph_stores import extraction, whole

KAFKA = entity_id("Thing", "kafka")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    database = open_graph(tmp_path_factory.mktemp("graph"), buffer_pool_mb=64)
    store = LadybugGraphStore(database)
    for item in (extraction("a/1", ("kafka", "jay kreps")), extraction("b", ("kafka", "linkedin"))):
        store.write(whole(item), [item], live=True)

    def with_graph(stack: Stack) -> None:
        stack.graph = LadybugGraph(database)

    with serving(change=with_graph) as running:
        yield running
    store.close()


def get(stack: Stack, path: str, **query: Any) -> Any:
    answer = stack.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_entities_are_found_in_any_spelling(stack: Stack) -> None:
    for name in ("kafka", " Káfka ", "the Kafka's"):
        (found,) = get(stack, "/api/v1/entities", name=name)["entities"]
        assert (found["id"], found["display"], found["mention_count"], found["chunk_count"]) == (KAFKA, "Kafka", 2, 2)
    assert get(stack, "/api/v1/entities", name="nobody") == {"entities": []}


def test_an_entity_tells_where_and_what(stack: Stack) -> None:
    assert get(stack, f"/api/v1/entities/{KAFKA}")["name"] == "kafka"
    chunks = get(stack, f"/api/v1/entities/{KAFKA}/chunks")["chunks"]
    assert sorted(chunk["document_id"] for chunk in chunks) == ["a/1", "b"]
    assert len(get(stack, f"/api/v1/entities/{KAFKA}/chunks", limit=1)["chunks"]) == 1
    graph = get(stack, f"/api/v1/entities/{KAFKA}/graph")
    assert {entity["name"] for entity in graph["entities"]} == {"kafka", "jay kreps", "linkedin"}
    assert {relation["evidence"].split()[0] for relation in graph["relations"]} == {"a/1", "b"}


def test_a_documents_graph(stack: Stack) -> None:
    graph = get(stack, "/api/v1/graph", document_id="a/1")
    assert sorted(entity["name"] for entity in graph["entities"]) == ["jay kreps", "kafka"]
    assert [relation["type"] for relation in graph["relations"]] == ["knows"]
    assert get(stack, "/api/v1/graph", document_id="unknown") == {"entities": [], "relations": []}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/api/v1/entities/{entity_id('Thing', 'nobody')}", 404),
        ("/api/v1/entities/no-id/graph", 404),
        ("/api/v1/entities", 422),
        ("/api/v1/entities?name=", 422),
        (f"/api/v1/entities/{KAFKA}/chunks?limit=0", 422),
        ("/api/v1/graph", 422),
    ],
)
def test_what_cannot_be_answered_says_so(stack: Stack, path: str, status: int) -> None:
    answer = stack.http.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
