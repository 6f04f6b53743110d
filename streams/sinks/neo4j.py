"""Neo4j server: the graph store of many workers.

A document's writes are conditional on its head. ``heads`` remembers what it read; every transaction that writes first
locks the heads of its documents, and gives up where one is no longer what this store last saw of it. So a worker that
lost its partition while it was waiting never overwrites what the next owner wrote: its batch is planned anew, and what
is old by then is dropped.

Calls run one after the other in a thread of their own, for the driver has no read timeout: a server that accepts and
never answers costs the caller ``timeout`` seconds, and the call it gave up ends before the next one begins.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from neo4j import Driver, GraphDatabase, ManagedTransaction, unit_of_work
from neo4j.exceptions import (
    ConfigurationError,
    ConnectionPoolError,
    ConstraintError,
    DatabaseUnavailable,
    DriverError,
    ForbiddenOnReadOnlyDatabase,
    Neo4jError,
    NotALeader,
    ServiceUnavailable,
    SessionExpired,
)

from processors.errors import FatalError, PermanentError, PipelineError, TransientError, UnavailableError
from schemas.ids import entity_pair_id
from schemas.records import Decision, Extraction, Revision
from streams.sinks import cypher, links
from streams.sinks.index import Head

Run = Callable[..., list[list[Any]]]
Result = TypeVar("Result")

_SCHEMES = ("bolt", "neo4j")  # http:// is what the server's web page has, and what the driver only tries out
_CONNECTIONS = 8
_IDLE_SECONDS = 30.0  # a connection that was idle for longer is tested before it is used
_CHUNKS_PER_REMOVAL = 1000  # bounds a transaction's memory on the server
_AT_ONCE = 0.05  # seconds until a batch that met another worker is planned anew
_WAITING = (
    ServiceUnavailable,
    SessionExpired,
    ConnectionPoolError,
    DatabaseUnavailable,
    NotALeader,
    ForbiddenOnReadOnlyDatabase,
)


def connect(url: str, *, user: str, password: str | None, timeout: float) -> Driver:
    """A driver with a bounded pool and timeouts, which connects when it is first used; without password, no login.

    Raises:
        ValueError: The address is none that the driver understands.
    """
    if urlsplit(url).scheme.partition("+")[0] not in _SCHEMES:
        raise ValueError(f"AEGIS_GRAPH__URL is {url!r}, but a Neo4j server's begins with bolt:// or neo4j://")
    try:
        return GraphDatabase.driver(
            url,
            auth=(user, password) if password else None,
            max_connection_pool_size=_CONNECTIONS,
            liveness_check_timeout=_IDLE_SECONDS,
            connection_timeout=timeout,
            connection_acquisition_timeout=timeout,
            connection_write_timeout=timeout,
            max_transaction_retry_time=timeout,
            notifications_min_severity="OFF",
            telemetry_disabled=True,
        )
    except (ConfigurationError, ValueError) as error:
        raise ValueError(f"AEGIS_GRAPH__URL is no address of a Neo4j server: {error}") from error


class Neo4jGraphStore:
    """``Store[Extraction]`` on a database of a Neo4j server.

    Every method is one transaction, except that chunks which answer no more are removed some at a time. Transactions
    that met a deadlock, or lost their connection, are repeated by the driver for ``timeout`` seconds.

    Raises (all methods):
        UnavailableError: The server cannot be reached, did not answer in time, or another worker wrote meanwhile.
        FatalError: The server does not let this user in any more, or has no such database.
        TransientError: The server failed otherwise.
    """

    def __init__(self, driver: Driver, *, database: str, timeout: float) -> None:
        self._driver = driver
        self._database = database
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="neo4j")
        self._seen: dict[str, Head | None] = {}

    def create_schema(self) -> None:
        """Create the constraints and indexes that are missing.

        Raises:
            ValueError: The server does not let this user in, or has no such database.
            UnavailableError: The server cannot be reached.
            PermanentError: The graph is of another format.
        """
        try:
            for statement in cypher.NEO4J_SCHEMA:
                self._rows(statement)
            found = self.transact(_stored_format)
        except FatalError as error:
            raise ValueError(str(error)) from error
        if found != [[cypher.FORMAT]]:
            raise PermanentError(
                f"database {self._database} holds a graph of format {found}, expected {cypher.FORMAT}; name another "
                "AEGIS_GRAPH__DATABASE and let the stage read its topic again (docs/operations.md)"
            )

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        """The heads of those documents that have one; later writes are conditional on them."""
        ids = sorted(set(document_ids))
        if not ids:
            return {}
        found = self.transact(lambda run: _heads(run, ids))
        self._seen = {document_id: found.get(document_id) for document_id in ids}
        return found

    def write(self, heads: Mapping[str, Head], items: Sequence[Extraction], *, live: bool) -> None:
        """Upsert heads, then chunks with all that was found in them.

        Raises:
            PermanentError: A relation names an entity that its chunk does not mention.
            TransientError: A chunk's document has no head.
        """
        by_id = {cypher.chunk_id_of(item): item for item in items}
        documents = {*heads, *(item.chunk.document_id for item in items)}

        def write(run: Run) -> None:
            _write_heads(run, heads, items)
            if not by_id:
                return
            known = [id_ for (id_,) in run(cypher.KNOWN_CHUNKS, ids=list(by_id))]
            new = {id_: item for id_, item in by_id.items() if id_ not in set(known)}
            _create_chunks(run, new, live=live)
            if live and known:
                run(cypher.SET_LIVE, ids=known)

        if documents:
            self._change(documents, write, create=heads)
            self._seen |= heads

    def held(self, document_id: str, revision: Revision) -> int:
        """Number of chunks held of that revision."""
        [[held]] = self._rows(cypher.HELD, document_id=document_id, revision=str(revision))
        return int(held)

    def make_live(self, document_id: str, revision: Revision) -> None:
        """Let that revision answer and no other, in one transaction; then remove every other."""
        self._keep(document_id, str(revision))

    def erase(self, document_id: str) -> None:
        """Remove every chunk of the document and what only it supported; the head stays, without its title."""
        self._keep(document_id, "", cypher.FORGET_TITLE)

    def transact(self, work: Callable[[Run], Result]) -> Result:
        """Do work in one transaction, which is repeated where it met another."""
        try:
            return self._thread.submit(self._transact, work).result(self._timeout)
        except TimeoutError:
            raise UnavailableError(f"Neo4j did not answer in {self._timeout:g} s (AEGIS_GRAPH__TIMEOUT)") from None

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Keep what people decided, unless something newer about the same entities is kept already."""
        ids = sorted({entity_pair_id(decision.first, decision.second) for decision in decisions})

        def write(run: Run) -> None:
            run(links.MERGE_DECISIONS, ids=ids)
            _upsert(run, links.SET_DECISIONS, links.decision_rows(decisions, run(links.DECISIONS_OF, ids=ids)))

        self.transact(write)

    def close(self) -> None:
        """Release the connections."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._driver.close()

    def dump(self) -> Iterator[tuple[Any, ...]]:
        """Canonical rows of what answers queries; ``LadybugGraphStore.dump`` says which."""
        for query in cypher.DUMPS:
            yield from map(tuple, self._rows(query))

    def orphans(self) -> int:
        """Entities, chunks, relations and name keys that have lost what they were made for; 0 is right."""
        return sum(self._rows(query)[0][0] for query in cypher.ORPHANS)

    def _keep(self, document_id: str, revision: str, *also: str) -> None:
        of = {"document_id": document_id, "revision": revision}

        def keep(run: Run) -> bool:
            for statement in (cypher.SHOW_ONLY, *also):
                run(statement, **of)
            return _remove_some(run, of)

        while self._change([document_id], keep):
            pass

    def _change(self, ids: Iterable[str], work: Callable[[Run], Result], *, create: Collection[str] = ()) -> Result:
        """Do work while holding the documents' heads, if they still are what this store last saw."""
        seen = dict(self._seen)  # as of now: a call that was given up must not pass by what comes later

        def guarded(run: Run) -> Result:
            if create:
                run(cypher.MERGE_HEADS, ids=sorted(create))
            _hold(run, sorted(ids), seen)
            return work(run)

        return self.transact(guarded)

    def _rows(self, statement: str, **parameters: object) -> list[list[Any]]:
        return self.transact(lambda run: run(statement, **parameters))

    def _transact(self, work: Callable[[Run], Result]) -> Result:
        @unit_of_work(timeout=self._timeout)
        def transaction(of: ManagedTransaction) -> Result:
            return work(partial(_rows, of))

        with _translated(), self._driver.session(database=self._database) as session:
            return session.execute_write(transaction)


def _rows(transaction: ManagedTransaction, statement: str, **parameters: object) -> list[list[Any]]:
    return transaction.run(statement, parameters).values()


def _stored_format(run: Run) -> list[list[Any]]:
    if not run(cypher.STORED_FORMAT):
        run(cypher.MERGE_FORMAT)
    return run(cypher.STORED_FORMAT)


def _heads(run: Run, ids: Sequence[str]) -> dict[str, Head]:
    rows = run(cypher.HEADS, ids=ids)
    return {row[0]: cypher.head_from(row) for row in rows if row[1] is not None}


def _hold(run: Run, ids: Sequence[str], seen: Mapping[str, Head | None]) -> None:
    """Lock heads, in the order of their ids: no two workers wait for each other.

    Raises:
        UnavailableError: Another worker has changed one since it was seen.
    """
    run(cypher.LOCK_HEADS, ids=ids)
    now = _heads(run, ids)
    for document_id in ids:
        if document_id in seen and now.get(document_id) != seen[document_id]:
            reason = f"another worker wrote document {document_id!r} meanwhile; its head is read again"
            raise UnavailableError(reason, retry_after=_AT_ONCE)


def _upsert(run: Run, statement: str, rows: Sequence[cypher.Row]) -> None:
    if rows:
        run(statement, rows=rows)


def _connect(run: Run, statement: str, rows: Sequence[cypher.Row]) -> None:
    """Create an edge per row.

    Raises:
        UnavailableError: Another worker has removed an end since it was looked up.
    """
    [[created]] = run(statement, rows=rows) if rows else [[0]]
    if created != len(rows):
        reason = f"another worker removed {len(rows) - created} ends of edges meanwhile; they are made again"
        raise UnavailableError(reason, retry_after=_AT_ONCE)


def _write_heads(run: Run, heads: Mapping[str, Head], items: Sequence[Extraction]) -> None:
    _upsert(run, cypher.SET_HEADS, [cypher.head_row(document_id, head) for document_id, head in heads.items()])
    _upsert(run, cypher.SET_LIVE_HEADS, cypher.live_rows(heads))
    _upsert(run, cypher.SET_TITLES, cypher.title_rows(heads, items))


def _create_chunks(run: Run, items: Mapping[str, Extraction], *, live: bool) -> None:
    if not items:
        return
    [[created]] = run(cypher.CREATE_CHUNKS, rows=[cypher.chunk_row(*item, live=live) for item in items.items()])
    if created != len(items):
        raise TransientError(f"{len(items) - created} chunks came before the head of their document")
    entities = cypher.entity_rows(items.values())
    _upsert(run, cypher.MERGE_ENTITIES, [entities[id_] for id_ in sorted(entities)])
    _create_links(run, sorted(entities))
    _connect(run, cypher.CREATE_MENTIONS, [row for item in items.items() for row in cypher.mention_rows(*item)])
    _connect(run, cypher.CREATE_RELATIONS, [row for item in items.items() for row in cypher.relation_rows(*item)])


def _create_links(run: Run, entity_ids: Sequence[str]) -> None:
    """Keys and links of those entities that have none yet: the new ones."""
    new = {id_: {"id": id_, "name": name, "type": type_} for id_, name, type_ in run(links.UNKEYED, ids=entity_ids)}
    keyed = links.key_rows(new.values())
    ids = sorted({str(row["key_id"]) for row in keyed})
    if not ids:
        return
    run(links.MERGE_KEYS, ids=ids)
    run(links.LOCK_KEYS, ids=ids)
    rows = links.link_rows(new, keyed, run(links.KEYED_BY_EACH, ids=ids))
    _connect(run, links.CREATE_KEYED, keyed)
    _connect(run, links.CREATE_LINKS, rows)


def _remove_some(run: Run, of: Mapping[str, str]) -> bool:
    """Remove chunks, the relations they support, and the entities that nothing mentions any more; False: none left."""
    chunks = [id_ for (id_,) in run(cypher.CHUNKS_BUT, **of, limit=_CHUNKS_PER_REMOVAL)]
    if chunks:
        entities = [id_ for (id_,) in run(cypher.ENTITIES_OF_CHUNKS, ids=chunks)]
        keys = [id_ for (id_,) in run(links.KEYS_OF_EACH, ids=entities)]
        run(links.LOCK_KEYS, ids=keys)  # keys before entities, as who links entities takes them
        run(links.LOCK_ENTITIES, ids=entities)
        run(cypher.REMOVE_RELATIONS_OF_CHUNKS, ids=chunks)
        run(cypher.REMOVE_CHUNKS, ids=chunks)
        gone = [id_ for (id_,) in run(links.UNMENTIONED, ids=entities)]
        run(links.REMOVE_LINKS, ids=gone)
        run(cypher.REMOVE_UNMENTIONED, ids=gone)
        run(links.REMOVE_UNUSED_KEYS, ids=keys)
    return len(chunks) == _CHUNKS_PER_REMOVAL


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (Neo4jError, DriverError) as error:
        raise _classified(error) from error


def _classified(error: Neo4jError | DriverError) -> PipelineError:
    code = (error.code or "") if isinstance(error, Neo4jError) else ""
    if isinstance(error, _WAITING) or "TransactionTimedOut" in code:
        return UnavailableError(f"Neo4j does not answer: {error}")
    if isinstance(error, ConstraintError) or code.endswith("EntityNotFound"):  # gone between its lookup and its lock
        return UnavailableError(f"another worker writes to the same entities: {error}", retry_after=_AT_ONCE)
    if ".Security." in code:
        return FatalError(f"Neo4j refuses AEGIS_GRAPH__USER with AEGIS_GRAPH__PASSWORD: {error.message}")
    if code.endswith("DatabaseNotFound"):
        return FatalError(f"Neo4j has no database of the name in AEGIS_GRAPH__DATABASE: {error.message}")
    return TransientError(f"Neo4j failed: {error}")
