"""The graph store in this process: write side of an embedded ladybug database.

One process owns the file, one thread at a time writes (the engine refuses a second write transaction), any number of
threads read through connections of their own. Readers see the last committed state (MVCC): they neither block the
writer nor wait for it, with one exception. When the write-ahead log passes its threshold, that commit folds it into
the file (a checkpoint), and other statements wait meanwhile: measured 0.4 s at 7,000 chunks, 1.2 s at 14,000, 4 s from
50,000 to 80,000. A reader's open transaction puts the checkpoint off and does not fail it.
The GIL is released while a statement runs (other Python threads waited 1 ms in the median, 47 ms at most, under
continuous writing). After a kill, opening replays the log: 3 s for a full one.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ladybug

from processors.errors import FatalError, PermanentError, PipelineError, TransientError, UnavailableError
from schemas.ids import entity_pair_id
from schemas.records import Decision, Extraction, Revision
from streams.sinks import cypher, links
from streams.sinks.index import Head

Run = Callable[..., list[list[Any]]]
Result = TypeVar("Result")

_FILE = "graph.lbug"
_MAX_LOG_BYTES = 64 << 20
_MAX_FILE_BYTES = 1 << 40  # address space reserved per open database; the engine's default of 8 TB allows few
_UNAVAILABLE = (
    "IO exception",  # disk full, file gone, lock held
    "Only one write transaction",
)


def open_graph(folder: Path, *, buffer_pool_mb: int) -> ladybug.Database:
    """Open the graph in ``folder``, or create it. Whoever opens it closes it, after every store and reader of it.

    The buffer pool bounds the memory of pages and of what is not folded into the file yet, and a checkpoint needs
    room in it. Measured with chunks of 650 characters, 5 mentions and 6 relations: 256 MB carried 80,000 chunks, 64 MB
    failed at 13,000. Without room a commit fails: see ``LadybugGraphStore``.

    Raises:
        UnavailableError: Another process has the graph open, or the file cannot be read.
        PermanentError: The file is of another version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, pool_bytes = folder / _FILE, buffer_pool_mb << 20
    try:
        database = ladybug.Database(
            path,
            buffer_pool_size=pool_bytes,
            max_db_size=_MAX_FILE_BYTES,
            checkpoint_threshold=min(_MAX_LOG_BYTES, pool_bytes // 8),  # what is not folded yet lies in the pool
        )
    except RuntimeError as error:
        raise _opening_error(path, error) from error
    try:
        _create_schema(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _opening_error(path: Path, error: RuntimeError) -> PermanentError | UnavailableError:
    reason = str(error)
    if "different version" in reason or "not a valid" in reason:
        return PermanentError(_of_another_version(path, reason))
    if "lock" in reason:
        return UnavailableError(f"{path} is in use by another process; one process owns the graph: {reason}")
    return UnavailableError(f"{path} cannot be opened: {reason}")


def _of_another_version(path: Path, reason: str) -> str:
    return (
        f"{path} is not a graph of this version ({reason}); move it away and let its stage read its topic again "
        "(docs/operations.md)"
    )


def _create_schema(database: ladybug.Database, path: Path) -> None:
    with ladybug.Connection(database) as connection:
        tables = {name for (name,) in _rows(connection, cypher.TABLES)}
        if not tables:
            for statement in ("BEGIN TRANSACTION", *cypher.SCHEMA, "COMMIT"):
                _rows(connection, statement)
            return
        found = _rows(connection, cypher.STORED_FORMAT) if "Format" in tables else []
        if found != [[cypher.FORMAT]]:
            raise PermanentError(_of_another_version(path, f"format {found}, expected {cypher.FORMAT}"))


def _rows(connection: ladybug.Connection, statement: str, **parameters: object) -> list[list[Any]]:
    try:
        with connection.execute(statement, parameters) as result:
            return list(result.get_all())
    except RuntimeError as error:
        if any(reason in str(error) for reason in _UNAVAILABLE):
            raise UnavailableError(f"the graph refuses: {error}") from error
        raise TransientError(f"the graph failed: {error}") from error


class LadybugGraphStore:
    """``Store[Extraction]`` on a ladybug database; one per database, since one writes at a time.

    Every method is one transaction. What is in the graph about a chunk follows from the chunk's id, so a chunk
    that is there already is left alone: it may become live, it never becomes hidden again.
    """

    def __init__(self, database: ladybug.Database) -> None:
        self._database = database
        self._connection = ladybug.Connection(database)
        self._lock = threading.Lock()
        self._failed_commit: str | None = None

    def heads(self, document_ids: Iterable[str]) -> dict[str, Head]:
        """The heads of those documents that have one."""
        ids = sorted(set(document_ids))
        if not ids:
            return {}
        with self._transaction("BEGIN TRANSACTION READ ONLY") as run:
            return {row[0]: cypher.head_from(row) for row in run(cypher.HEADS, ids=ids)}

    def write(self, heads: Mapping[str, Head], items: Sequence[Extraction], *, live: bool) -> None:
        """Upsert heads, then chunks with all that was found in them.

        Raises:
            PermanentError: A relation names an entity that its chunk does not mention.
            TransientError: A chunk's document has no head.
        """
        by_id = {cypher.chunk_id_of(item): item for item in items}
        with self._transaction() as run:
            _write_heads(run, heads, items)
            if not by_id:
                return
            known = {str(id_) for (id_,) in run(cypher.KNOWN_CHUNKS, ids=list(by_id))}
            new = {id_: item for id_, item in by_id.items() if id_ not in known}
            _create_chunks(run, new, live=live)
            if live and known:
                run(cypher.SET_LIVE, ids=sorted(known))

    def held(self, document_id: str, revision: Revision) -> int:
        """Number of chunks held of that revision."""
        with self._transaction("BEGIN TRANSACTION READ ONLY") as run:
            return sum(held == str(revision) for _, held in run(cypher.CHUNKS_OF, document_id=document_id))

    def make_live(self, document_id: str, revision: Revision) -> None:
        """Let that revision answer and remove every other revision of the document, in one transaction."""
        with self._transaction() as run:
            held = run(cypher.CHUNKS_OF, document_id=document_id)
            current = [str(id_) for id_, of in held if of == str(revision)]
            if current:
                run(cypher.SET_LIVE, ids=current)
            _remove(run, [str(id_) for id_, of in held if of != str(revision)])

    def erase(self, document_id: str) -> None:
        """Remove every chunk of the document and what only it supported; the head stays, without its title."""
        with self._transaction() as run:
            _remove(run, [str(id_) for id_, _ in run(cypher.CHUNKS_OF, document_id=document_id)])
            run(cypher.FORGET_TITLE, document_id=document_id)

    def transact(self, work: Callable[[Run], Result]) -> Result:
        """Do work in one transaction."""
        with self._transaction() as run:
            return work(run)

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Keep what people decided, unless something newer about the same entities is kept already."""
        ids = sorted({entity_pair_id(decision.first, decision.second) for decision in decisions})
        with self._transaction() as run:
            known = run(links.DECISIONS_OF, ids=ids)
            if new := sorted(set(ids) - {str(row[0]) for row in known}):
                run(links.CREATE_DECISIONS, ids=new)
            if rows := links.decision_rows(decisions, known):
                run(links.SET_DECISIONS, rows=rows)

    def close(self) -> None:
        """Release the connection. Every commit is on disk already; closing the database folds the log."""
        with self._lock:
            self._connection.close()

    def dump(self) -> Iterator[tuple[Any, ...]]:
        """Canonical rows of what answers queries, in an order that depends on nothing else.

        Rows are ``("document", id)``, ``("chunk", document_id, chunk_index, text)``, ``("entity", type, name)``,
        ``("mention", type, name, document_id, chunk_index, count)``, ``("relation", source type, source name,
        target type, target name, type, document_id, chunk_index)``, ``("link", type, alias, name, reason, score)`` and
        ``("decision", entity id, entity id, verdict, reason)``. Two graphs with the same rows answer alike.
        Each kind of row is one consistent snapshot; for one of all, stop the writers.
        """
        with ladybug.Connection(self._database) as connection:
            for query in cypher.DUMPS:
                yield from map(tuple, _rows(connection, query))

    def orphans(self) -> int:
        """Entities, chunks, relations and name keys that have lost what they were made for; 0 is right."""
        with ladybug.Connection(self._database) as connection:
            return sum(_rows(connection, query)[0][0] for query in cypher.ORPHANS)

    @contextmanager
    def _transaction(self, begin: str = "BEGIN TRANSACTION") -> Iterator[Run]:
        with self._lock:
            if self._failed_commit is not None:
                raise FatalError(self._failed_commit)
            try:
                self._run(begin)
                yield self._run
            except BaseException:
                self._reconnect()
                raise
            self._commit()

    def _commit(self) -> None:
        try:
            self._run("COMMIT")
        except PipelineError as error:
            self._reconnect()
            self._failed_commit = (
                "the graph could not commit and must be opened anew: restart this process, with more "
                f"AEGIS_GRAPH__BUFFER_POOL_MB or disk if that is what it lacks ({error})"
            )
            raise FatalError(self._failed_commit) from error

    def _reconnect(self) -> None:
        # Closing rolls back whatever is open. ROLLBACK would not do: the engine has rolled back already when a
        # statement failed, and a connection whose BEGIN was refused crashes the process at its next use.
        self._connection.close()
        self._connection = ladybug.Connection(self._database)

    def _run(self, statement: str, **parameters: object) -> list[list[Any]]:
        return _rows(self._connection, statement, **parameters)


def _write_heads(run: Run, heads: Mapping[str, Head], items: Sequence[Extraction]) -> None:
    if not heads:
        return
    known = {row[0] for row in run(cypher.HEADS, ids=list(heads))}
    if new := [document_id for document_id in heads if document_id not in known]:
        run(cypher.CREATE_HEADS, ids=new)
    run(cypher.SET_HEADS, rows=[cypher.head_row(document_id, head) for document_id, head in heads.items()])
    if live := cypher.live_rows(heads):
        run(cypher.SET_LIVE_HEADS, rows=live)
    chunks = {item.chunk.document_id: item.chunk for item in items if item.chunk.document_id in heads}
    titles = [{"id": id_, "title": chunk.title, "source": chunk.source} for id_, chunk in chunks.items()]
    if titles:
        run(cypher.SET_TITLES, rows=titles)


def _create_chunks(run: Run, items: Mapping[str, Extraction], *, live: bool) -> None:
    if not items:
        return
    [[created]] = run(cypher.CREATE_CHUNKS, rows=[cypher.chunk_row(*item, live=live) for item in items.items()])
    if created != len(items):
        raise TransientError(f"{len(items) - created} chunks came before the head of their document")
    mentions = [row for item in items.items() for row in cypher.mention_rows(*item)]
    relations = [row for item in items.items() for row in cypher.relation_rows(*item)]
    if mentions:
        _create_entities(run, cypher.entity_rows(items.values()))
        run(cypher.CREATE_MENTIONS, rows=mentions)
    if relations:
        run(cypher.CREATE_RELATIONS, rows=relations)


def _create_entities(run: Run, rows: Mapping[str, cypher.Row]) -> None:
    known = {str(id_) for (id_,) in run(cypher.KNOWN_ENTITIES, ids=list(rows))}
    new = {id_: row for id_, row in rows.items() if id_ not in known}
    if new:
        run(cypher.CREATE_ENTITIES, rows=list(new.values()))
        _create_links(run, new)


def _create_links(run: Run, entities: Mapping[str, cypher.Row]) -> None:
    keyed = links.key_rows(entities.values())
    ids = sorted({str(row["key_id"]) for row in keyed})
    if not ids:
        return
    known = {str(id_) for (id_,) in run(links.KNOWN_KEYS, ids=ids)}
    met = [row for id_ in sorted(known) for row in run(links.KEYED_BY, id=id_)]
    if new := [id_ for id_ in ids if id_ not in known]:
        run(links.CREATE_KEYS, ids=new)
    run(links.CREATE_KEYED, rows=keyed)
    if rows := links.link_rows(entities, keyed, met):
        run(links.CREATE_LINKS, rows=rows)


def _remove(run: Run, chunk_ids: Sequence[str]) -> None:
    """Remove chunks, the relations they support, and the entities that nothing mentions any more."""
    if not chunk_ids:
        return
    chunks_by_entity: defaultdict[str, list[str]] = defaultdict(list)
    for id_ in chunk_ids:
        for (entity,) in run(cypher.ENTITIES_OF, chunk_id=id_):
            chunks_by_entity[str(entity)].append(id_)
    for entity, mentioned_in in chunks_by_entity.items():
        run(cypher.REMOVE_RELATIONS, entity_id=entity, chunk_ids=mentioned_in)
    run(cypher.REMOVE_CHUNKS, ids=list(chunk_ids))
    gone = [entity for entity in chunks_by_entity if not run(cypher.ONE_MENTION, entity_id=entity)]
    if gone:
        keys = {str(key) for entity in gone for (key,) in run(links.KEYS_OF, entity_id=entity)}
        run(cypher.REMOVE_ENTITIES, ids=gone)
        if unused := [key for key in sorted(keys) if not run(links.KEYED_BY, id=key)]:
            run(links.REMOVE_KEYS, ids=unused)
