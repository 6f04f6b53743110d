"""Read side of a Neo4j server."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from neo4j import Driver, ManagedTransaction, unit_of_work
from neo4j.exceptions import DriverError, Neo4jError

from api.retrievers.graph import Graph
from processors.bridges import MAX_PLACES
from processors.errors import UnavailableError
from schemas.ids import document_prefix

# By the index; what is stored as prefix, streams/sinks/cypher.py says.
ENTITIES_BY_NAME = """
MATCH (e:Entity) WHERE e.prefix IN [name IN $names | left(name, 256)] AND e.name IN $names
RETURN e.id, e.name, e.type ORDER BY e.name, e.type
"""
PLACES_OF_ALL = f"""
UNWIND $ids AS id MATCH (e:Entity {{id: id}})
RETURN e.id, COLLECT {{ MATCH (e)-[:MENTIONED_IN]->(c:Chunk)
                    WHERE c.live AND c.document_id STARTS WITH $prefix RETURN c.id LIMIT {MAX_PLACES + 1} }}
"""
_THREADS = 8


class Neo4jGraph(Graph):
    """Reads from a database of a Neo4j server.

    Queries run in threads of this object, since the driver has no read timeout: a caller waits ``timeout`` seconds for
    one, even when the server accepts it and never answers.

    Raises (all methods):
        UnavailableError: The server did not answer in time, or at all.
    """

    def __init__(self, driver: Driver, *, database: str, timeout: float) -> None:
        super().__init__(self._query, entities_by_name=ENTITIES_BY_NAME)
        self._driver = driver
        self._database = database
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="neo4j-reads")

    def places(self, entity_ids: Sequence[str], *, tenant: str | None = None) -> Iterator[tuple[str, list[str]]]:
        """Each entity with ids of live chunks that mention it, in one statement: each is a round trip."""
        rows = self._rows(PLACES_OF_ALL, ids=list(entity_ids), prefix=document_prefix(tenant))
        return ((id_, chunk_ids) for id_, chunk_ids in rows)

    def close(self) -> None:
        """Release the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._driver.close()

    def _query(self, query: str, **parameters: object) -> list[list[Any]]:
        try:
            return self._threads.submit(self._read, query, parameters).result(self._timeout)
        except TimeoutError:
            raise UnavailableError(f"Neo4j did not answer in {self._timeout:g} s (AEGIS_GRAPH__TIMEOUT)") from None
        except (Neo4jError, DriverError) as error:
            raise UnavailableError(f"Neo4j does not answer: {error}") from error

    def _read(self, query: str, parameters: dict[str, object]) -> list[list[Any]]:
        @unit_of_work(timeout=self._timeout)
        def read(transaction: ManagedTransaction) -> list[list[Any]]:
            return transaction.run(query, parameters).values()

        with self._driver.session(database=self._database) as session:
            return session.execute_read(read)
