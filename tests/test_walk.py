"""The walk through the graph: on each graph store, then what it does when the graph does not answer."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from api.retrievers.graph import Graph, LadybugGraph
from api.retrievers.hits import Hit
from api.retrievers.neo4j import Neo4jGraph
from api.retrievers.walk import Walk
from processors.bridges import MAX_PLACES, Step
from processors.errors import UnavailableError
from schemas.ids import chunk_id
from schemas.records import Revision
from streams.sinks.index import Head
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from tests.api_server import Stack, serving
from tests.graph_stores import STORES, V1, GraphStore, driver_of_tests, extraction, whole
from tests.neo4j_server import DATABASE
from tests.waiting import until

Filled = tuple[GraphStore, Graph]


@contextmanager
def ladybug_sides(folder: Path) -> Iterator[Filled]:
    with open_graph(folder, buffer_pool_mb=64) as database, closing(LadybugGraphStore(database)) as store:
        yield store, LadybugGraph(database)


@contextmanager
def neo4j_sides(folder: Path) -> Iterator[Filled]:
    with (
        STORES["neo4j"](folder) as store,
        closing(Neo4jGraph(driver_of_tests(), database=DATABASE, timeout=240)) as graph,
    ):
        yield store, graph


@pytest.fixture(params=[ladybug_sides, neo4j_sides], ids=["ladybug", "neo4j"])
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filled]:
    with request.param(tmp_path) as filled:
        yield filled


def chunk(document_id: str, revision: Revision = V1) -> str:
    return chunk_id(document_id, revision, 0)


def hit(document_id: str, score: float) -> Hit:
    return Hit(
        chunk_id=chunk(document_id),
        document_id=document_id,
        version=1,
        chunk_index=0,
        text="",
        start=0,
        end=0,
        headings=(),
        title=None,
        source=None,
        media_type="text/plain",
        metadata={},
        score=score,
        ranks={},
        scores={},
    )


def fill(store: GraphStore) -> None:
    items = [
        extraction("film", ("free guy", "shawn levy")),
        extraction("director", ("shawn levy", "montreal")),
        *(extraction(f"hub {number}", ("montreal",)) for number in range(MAX_PLACES + 5)),
    ]
    items = [_typed(item) for item in items]
    store.write(whole(*items), items, live=True)
    staged = _typed(extraction("staged", ("free guy", "shawn levy")))
    store.write({"staged": Head(latest=V1, chunk_count=1)}, [staged], live=False)


def _typed(item: Any) -> Any:
    mentions = tuple(mention.model_copy(update={"type": "PERSON"}) for mention in item.mentions)
    return item.model_copy(update={"mentions": mentions, "relations": ()})


def test_a_walk_leads_from_the_question_and_from_the_best_hits_to_live_chunks(sides: Filled) -> None:
    store, graph = sides
    fill(store)
    walk = Walk(graph, timeout=240)
    assert walk.steps("Who made Free Guy?", []) == [Step(chunk("film"), "free guy", 1.0)]
    assert walk.steps("Who is it?", [hit("film", 0.7)]) == [Step(chunk("director"), "shawn levy", 1.0)]
    behind = walk.steps("Who is it?", [hit("hub 1", 0.9), hit("film", 0.7)])
    assert [(step.chunk_id, round(step.weight, 2)) for step in behind] == [(chunk("director"), 0.37)]
    assert walk.steps("Where is Montreal?", []) == []  # too many speak of it
    assert walk.steps("Who is it?", [hit("unknown", 0.7)]) == walk.steps("?", []) == []


class Hanging(Graph):
    """A graph that answers nothing before its gate opens."""

    def __init__(self) -> None:
        super().__init__(self._hang)
        self.gate = threading.Event()

    def _hang(self, query: str, **parameters: object) -> list[list[Any]]:
        self.gate.wait(30)
        return []


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    graph = Hanging()
    yield graph
    graph.gate.set()


def test_a_graph_that_hangs_keeps_nobody_waiting_and_is_not_asked_again(hanging: Hanging) -> None:
    walk = Walk(hanging, timeout=0.01)
    for _ in range(16):
        with pytest.raises(UnavailableError, match=r"0\.01 s \(AEGIS_GRAPH__SEARCH_TIMEOUT\)"):
            walk.steps("Free Guy", [])
    with pytest.raises(UnavailableError, match="earlier searches"):
        walk.steps("Free Guy", [])
    hanging.gate.set()

    def answers() -> bool:
        with suppress(UnavailableError):
            return walk.steps("Free Guy", []) == []
        return False

    until(answers)


def test_a_graph_that_is_slow_is_left_in_the_middle() -> None:
    asked: list[str] = []

    def slow(query: str, **parameters: Any) -> list[list[Any]]:
        asked.append(query)
        if "names" in parameters or "ids" in parameters:
            return [[id_] for id_ in parameters["ids"]]
        time.sleep(0.02)
        return []

    with pytest.raises(UnavailableError):
        Walk(Graph(slow), timeout=0.05).steps("one two three four five", [])
    time.sleep(0.2)
    assert len(asked) < 10


def _fails(query: str, **parameters: object) -> list[list[Any]]:
    raise UnavailableError("secret address of the graph")


@pytest.mark.parametrize("graph", [Hanging, lambda: Graph(_fails)], ids=["hangs", "down"])
@pytest.mark.parametrize("mode", ["auto", "graph"])
def test_a_search_answers_without_its_graph_and_says_so(graph: Callable[[], Graph], mode: str) -> None:
    made = graph()

    def broken(stack: Stack) -> None:
        stack.graph = made

    with serving(graph_timeout=0.2, change=broken) as stack:
        found = stack.http.post("/api/v1/search", json={"query": "Free Guy", "mode": mode, "limit": 3}).json()
        assert (found["degraded"], len(found["hits"])) == (["graph"], 3)
        without = stack.http.post("/api/v1/search", json={"query": "Free Guy", "mode": "hybrid", "limit": 3}).json()
        assert (without["degraded"], without["hits"]) == ([], found["hits"])
        metrics = stack.http.get("/metrics").text
        if isinstance(made, Hanging):
            made.gate.set()
    assert 'aegis_search_degraded_total{part="graph"}' in metrics


def test_the_graph_mode_finds_only_what_the_graph_leads_to() -> None:
    with serving() as stack:
        found = stack.http.post("/api/v1/search", json={"query": "Free Guy", "mode": "graph"}).json()
    assert (found["hits"], found["degraded"]) == ([], [])
