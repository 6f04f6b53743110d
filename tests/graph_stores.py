"""Every graph store there is, and small extractions to put into one. A new store is added to ``STORES``."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from neo4j import Driver

from deploy import stores
from schemas.ids import entity_id
from schemas.records import Chunk, Extraction, Mention, Relation, Revision
from streams.sinks.index import Head
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from streams.sinks.neo4j import Neo4jGraphStore, connect
from tests.neo4j_server import DATABASE, PASSWORD, USER, shared_server

GraphStore = stores.GraphStore
NAMES = ("kafka", "jay kreps", "linkedin", "confluent")
V1, V2 = Revision(1, 0), Revision(2, 1)


@contextmanager
def ladybug_store(folder: Path) -> Iterator[GraphStore]:
    with open_graph(folder, buffer_pool_mb=64) as database, closing(LadybugGraphStore(database)) as store:
        yield store


@contextmanager
def neo4j_store(_: Path) -> Iterator[GraphStore]:
    """The one database of the server, emptied; whoever opens it again meanwhile empties it."""
    with closing(connected()) as store:
        store.create_schema()
        with driver_of_tests() as driver:
            driver.execute_query("MATCH (n) WHERE NOT n:Format DETACH DELETE n", database_=DATABASE)
        yield store


def connected(*, timeout: float = 240.0) -> Neo4jGraphStore:
    """One more store on the server's database, as another worker opens it."""
    return Neo4jGraphStore(driver_of_tests(), database=DATABASE, timeout=timeout)


def driver_of_tests() -> Driver:
    return connect(shared_server().url, user=USER, password=PASSWORD, timeout=240.0)


Opened = Callable[[Path], AbstractContextManager[GraphStore]]
STORES: dict[str, Opened] = {"ladybug": ladybug_store, "neo4j": neo4j_store}


def extraction(
    document_id: str, names: Sequence[str] = NAMES[:2], *, revision: Revision = V1, index: int = 0, count: int = 1
) -> Extraction:
    """A chunk that mentions ``names`` and relates each to the next."""
    text = f"{document_id} {revision} {index}: {' and '.join(names)}."
    ids = [entity_id("Thing", name) for name in names]
    return Extraction(
        chunk=Chunk(
            document_id=document_id,
            version=revision.version,
            sequence=revision.sequence,
            chunk_index=index,
            chunk_count=count,
            text=text,
            start=0,
            end=len(text),
            content_hash=text,
            title=f"About {document_id}",
        ),
        mentions=tuple(Mention(start=0, end=1, text=name.title(), name=name, type="Thing") for name in names),
        relations=tuple(
            Relation(source=source, target=target, type="knows", evidence=text, confidence=0.5)
            for source, target in itertools.pairwise(ids)
        ),
    )


def whole(*items: Extraction) -> dict[str, Head]:
    return {
        item.chunk.document_id: Head(
            latest=item.chunk.revision, live=item.chunk.revision, complete=True, chunk_count=item.chunk.chunk_count
        )
        for item in items
    }


def kinds(store: GraphStore) -> dict[str, int]:
    return {kind: len(list(rows)) for kind, rows in itertools.groupby(store.dump(), key=lambda row: row[0])}
