"""The graph on a server: who may log in, what many writers and a silent server do to it, and that both graphs agree."""

import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from neo4j import ManagedTransaction
from pydantic import SecretStr

from api.retrievers.graph import Graph, LadybugGraph
from api.retrievers.neo4j import Neo4jGraph
from deploy.stores import open_graph_store
from processors.errors import PermanentError, UnavailableError
from schemas.ids import entity_id
from schemas.records import Extraction, Mark, Revision
from schemas.settings import Graph as GraphSettings
from schemas.settings import Settings
from streams.sinks import cypher
from streams.sinks.index import Head, index
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from tests.graph_stores import (
    NAMES,
    V1,
    V2,
    GraphStore,
    connected,
    driver_of_tests,
    extraction,
    kinds,
    ladybug_store,
    neo4j_store,
    whole,
)
from tests.neo4j_server import DATABASE, PASSWORD, TIMEOUT, shared_server

pytestmark = pytest.mark.timeout(TIMEOUT)

WORKERS = 4
ROUNDS = 15
BLOCKED = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked'"
IDS = [entity_id("Thing", name) for name in NAMES]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GraphStore]:
    with neo4j_store(tmp_path) as store:
        yield store


@pytest.fixture
def other() -> Iterator[GraphStore]:
    with closing(connected()) as other:
        yield other


def settings(**graph: object) -> Settings:
    given = {"url": shared_server().url, "password": SecretStr(PASSWORD), **graph}
    return Settings(graph=GraphSettings.model_validate(given))


def test_settings_with_an_address_open_the_server(store: GraphStore) -> None:
    item = extraction("a")
    with closing(open_graph_store(settings())) as opened:
        index(opened, "index-graph", [item])
        assert list(opened.dump()) == list(store.dump()) != []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"password": SecretStr("wrong")}, "AEGIS_GRAPH__PASSWORD"),
        ({"password": None}, "AEGIS_GRAPH__PASSWORD"),
        ({"user": "nobody"}, "AEGIS_GRAPH__USER"),
        ({"database": "nowhere"}, "AEGIS_GRAPH__DATABASE"),
        ({"url": "http://127.0.0.1"}, "AEGIS_GRAPH__URL"),
        ({"url": "127.0.0.1:7687"}, "AEGIS_GRAPH__URL"),
    ],
)
def test_a_wrong_setting_is_named_at_start(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        open_graph_store(settings(**wrong))


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="Neo4j"):
        open_graph_store(settings(url="bolt://127.0.0.1:1", timeout=2))


def test_a_graph_of_another_format_is_named(store: GraphStore) -> None:
    with driver_of_tests() as driver:
        driver.execute_query("MATCH (f:Format) SET f.version = 0", database_=DATABASE)
        try:
            with pytest.raises(PermanentError, match=rf"format \[\[0\]\], expected {cypher.FORMAT}"):
                open_graph_store(settings())
        finally:
            driver.execute_query(f"MATCH (f:Format) SET f.version = {cypher.FORMAT}", database_=DATABASE)
    assert kinds(store) == {}


@pytest.mark.usefixtures("store")
def test_workers_that_start_at_once_agree_on_the_schema() -> None:
    with driver_of_tests() as driver:
        driver.execute_query("DROP CONSTRAINT document_id", database_=DATABASE)
        driver.execute_query("DROP CONSTRAINT format_version", database_=DATABASE)
        driver.execute_query("MATCH (f:Format) DELETE f", database_=DATABASE)
        with ThreadPoolExecutor(WORKERS) as threads:
            for opened in threads.map(lambda _: open_graph_store(settings()), range(WORKERS)):
                opened.close()
        formats = driver.execute_query("MATCH (f:Format) RETURN f.version", database_=DATABASE).records
        assert [record[0] for record in formats] == [cypher.FORMAT]


def test_a_worker_that_fell_behind_overwrites_nothing(store: GraphStore, other: GraphStore) -> None:
    old, new = extraction("a", NAMES[:2]), extraction("a", NAMES[2:], revision=V2)
    store.heads(["a"])
    index(other, "index-graph", [new])
    newest = list(other.dump())
    for late in (
        lambda: store.write(whole(old), [old], live=True),
        lambda: store.write({}, [old], live=True),
        lambda: store.make_live("a", V1),
        lambda: store.erase("a"),
    ):
        with pytest.raises(UnavailableError, match="another worker wrote document 'a'"):
            late()  # type: ignore[no-untyped-call]
    assert list(store.dump()) == newest
    index(store, "index-graph", [old])
    index(store, "index-graph", [Mark(document_id="a", version=0, sequence=0, operation="delete")])
    assert (list(store.dump()), store.orphans()) == (newest, 0)


def test_many_workers_write_documents_that_share_their_entities(store: GraphStore, tmp_path: Path) -> None:
    """Each has documents of its own, and two contend for one more; what is removed is what others mention anew."""
    last: dict[str, list[Extraction]] = {}

    def work(worker: int) -> None:
        dice = random.Random(worker)
        with closing(connected()) as own:
            for number in range(ROUNDS):
                document_id = f"{worker}-{dice.randrange(2)}"
                revision = Revision(number, number)
                names = [dice.sample(NAMES, 2) for _ in range(dice.randint(0, 2))]
                items = [
                    extraction(document_id, some, revision=revision, index=position, count=len(names))
                    for position, some in enumerate(names)
                ]
                delete = Mark(document_id=document_id, version=number, sequence=number, operation="delete")
                index_until_done(own, items or [delete])
                last[document_id] = items
                index_until_done(own, [extraction("contended", revision=Revision(number, worker))])

    with ThreadPoolExecutor(WORKERS) as threads:
        list(threads.map(work, range(WORKERS)))
    last["contended"] = [extraction("contended", revision=Revision(ROUNDS - 1, WORKERS - 1))]
    with ladybug_store(tmp_path) as fresh:
        for items in last.values():
            index(fresh, "index-graph", items)
        assert sorted(store.dump()) == sorted(fresh.dump())
    assert store.orphans() == 0


def test_an_entity_that_is_mentioned_anew_while_it_is_removed_stays(store: GraphStore) -> None:
    """The other worker's mention is not committed when this one looks, and is before this one removes."""
    old, new = extraction("a", NAMES[:1]), extraction("b", NAMES[:1])
    store.write(whole(old, new), [old], live=True)
    rows = {
        cypher.CREATE_CHUNKS: [cypher.chunk_row("b0", new, live=True)],
        cypher.MERGE_ENTITIES: list(cypher.entity_rows([new]).values()),
        cypher.CREATE_MENTIONS: list(cypher.mention_rows("b0", new)),
    }
    erased: list[Future[None]] = []

    def mention(transaction: ManagedTransaction) -> None:
        for statement, of in rows.items():
            transaction.run(statement, rows=of).consume()
        if not erased:  # the driver repeats what met a deadlock
            erased.append(thread.submit(store.erase, "a"))
            while not driver.execute_query(BLOCKED, database_=DATABASE).records:
                assert not erased[0].done()

    with driver_of_tests() as driver, driver.session(database=DATABASE) as session, ThreadPoolExecutor(1) as thread:
        session.execute_write(mention)
        with suppress(UnavailableError):  # whichever of the two gave way
            erased[0].result()
        store.erase("a")
    assert kinds(store) == {"document": 1, "chunk": 1, "entity": 1, "mention": 1}
    assert store.orphans() == 0


def index_until_done(store: GraphStore, batch: Sequence[Extraction | Mark]) -> None:
    while True:
        try:
            index(store, "index-graph", batch)
        except UnavailableError:
            continue
        return


def test_a_silent_server_costs_the_timeout_and_the_call_can_be_repeated(store: GraphStore) -> None:
    item, process = extraction("a"), shared_server().process
    assert process is not None
    with closing(connected(timeout=1.0)) as impatient, closing(graph(timeout=0.5)) as reader:
        assert impatient.heads(["a"]) == {}
        os.kill(process.pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                with pytest.raises(UnavailableError, match="AEGIS_GRAPH__TIMEOUT"):
                    impatient.write(whole(item), [item], live=True)
            with pytest.raises(UnavailableError, match="AEGIS_GRAPH__TIMEOUT"):
                reader.counts()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        index_until_done(impatient, [item])
    assert kinds(store)["chunk"] == 1


def test_a_store_outlives_its_server(store: GraphStore) -> None:
    before, after = extraction("a"), extraction("b")
    index(store, "index-graph", [before])
    shared_server().kill()
    with closing(connected(timeout=2.0)) as impatient, pytest.raises(UnavailableError):
        impatient.heads(["a"])
    shared_server().start()
    index_until_done(store, [after])
    assert store.heads(["a", "b"]).keys() == {"a", "b"}
    assert (kinds(store)["chunk"], store.orphans()) == (2, 0)


def test_a_large_document_is_hidden_at_once_and_removed_in_parts(
    store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.sinks.neo4j._CHUNKS_PER_REMOVAL", 3)
    items = [extraction("a", index=position, count=7) for position in range(7)]
    kept = extraction("b", NAMES[:1])
    store.write(whole(*items, kept), [*items, kept], live=True)
    store.erase("a")
    assert kinds(store) == {"document": 1, "chunk": 1, "entity": 1, "mention": 1}
    assert (store.held("a", V1), store.orphans()) == (0, 0)


def graph(*, timeout: float = 240.0) -> Neo4jGraph:
    return Neo4jGraph(driver_of_tests(), database=DATABASE, timeout=timeout)


def test_both_graphs_answer_alike(store: GraphStore, tmp_path: Path) -> None:
    items = [
        extraction("a", NAMES[:3]),
        extraction("b", NAMES[1:3]),
        extraction("c", ("kafka", "kafka")),
        extraction("long", ("ß" * 300_000, "ß" * 300_001)),
    ]
    staged = extraction("d", NAMES)
    with (
        open_graph(tmp_path, buffer_pool_mb=64) as database,
        closing(LadybugGraphStore(database)) as embedded,
        closing(graph()) as server,
    ):
        for filled in (store, embedded):
            filled.write(whole(*items), items, live=True)
            filled.write({"d": Head(latest=V1, chunk_count=1)}, [staged], live=False)
        assert _answers(server) == _answers(LadybugGraph(database))
        assert [entity.name for entity in server.entities(NAMES)] == ["jay kreps", "kafka", "linkedin"]
        assert len(server.entities(["ß" * 300_000])) == 1


def _answers(graph: Graph) -> list[object]:
    unknown = ["", "nonsense", "' OR 1=1", entity_id("Thing", "unknown")]
    ids = [*IDS, *map(str.upper, IDS), *unknown]
    return [
        graph.counts(),
        graph.entities([*NAMES, "ß" * 300_000, "unknown"]),
        graph.entities([]),
        [graph.entity(id_) for id_ in ids],
        [graph.chunks(id_, limit=2) for id_ in ids],
        [graph.neighbourhood(id_) for id_ in ids],
        [graph.neighbourhood(id_, limit=1) for id_ in ids],
        [graph.document(document_id) for document_id in ("a", "c", "d", "unknown")],
    ]


def test_threads_read_whole_documents_while_the_store_writes(store: GraphStore) -> None:
    done, seen = threading.Event(), list[int]()

    def read(server: Neo4jGraph) -> None:
        while not done.is_set():
            seen.append(server.counts()["chunks"])
            server.neighbourhood(IDS[0])

    with closing(graph()) as server, ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read, server) for _ in range(3)]
        for number in range(4):
            items = [extraction(f"d{number}", index=position, count=20) for position in range(20)]
            store.write(whole(*items), items, live=True)
            if number % 3 == 0:
                store.erase(f"d{number}")
        done.set()
        for reader in readers:
            reader.result()
    assert all(chunks % 20 == 0 for chunks in seen), "a reader saw half a transaction"
