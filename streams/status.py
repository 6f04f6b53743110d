"""The status view: the compacted status topic folded into memory, bounded, in every process that needs it."""

import threading
from collections import OrderedDict
from itertools import islice

import structlog
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from schemas.ids import document_prefix
from schemas.records import StatusRecord
from schemas.status import SETTLED, DocumentStatus
from schemas.topics import STATUS, named
from streams.extraction_log import ExtractionLog
from streams.kafka import end_offsets, reader
from streams.offsets import client_configuration, partitions_of

log = structlog.get_logger()


class StatusView:
    """Follows the status topic in a thread. Beyond ``max_documents`` the longest unchanged are forgotten."""

    def __init__(self, bootstrap_servers: str, *, max_documents: int, generation: str = "") -> None:
        self.extractions = ExtractionLog()
        self._max_documents = max_documents
        self._topic = named(STATUS, generation)
        self._documents: OrderedDict[str, DocumentStatus] = OrderedDict()
        self._changed = threading.Condition()
        self._positions: dict[tuple[str, int], int] = {}
        self._stopping = threading.Event()
        self._bootstrap_servers = bootstrap_servers
        self._consumer = reader(bootstrap_servers)
        self._thread = threading.Thread(target=self._run, name="status-view", daemon=True)

    def start(self) -> None:
        """Start following; returns at once (see ``catch_up``)."""
        partitions = _partitions(self._bootstrap_servers, self._topic)
        self._consumer.assign([TopicPartition(tp.topic, tp.partition, 0) for tp in partitions])
        self._thread.start()

    def stop(self) -> None:
        """Stop following."""
        self._stopping.set()
        self._thread.join(timeout=10)
        self._consumer.close()

    def apply(self, record: StatusRecord) -> None:
        """Fold one record in."""
        self.extractions.add(record)
        with self._changed:
            before = self._documents.get(record.document_id) or DocumentStatus(
                document_id=record.document_id, stages={}
            )
            self._documents[record.document_id] = before.with_record(record)
            self._documents.move_to_end(record.document_id)
            if len(self._documents) > self._max_documents:
                self._documents.popitem(last=False)
            self._changed.notify_all()

    def get(self, document_id: str) -> DocumentStatus | None:
        """What is known of a document."""
        with self._changed:
            return self._documents.get(document_id)

    def ids(self) -> list[str]:
        """Every document of which something is known."""
        with self._changed:
            return list(self._documents)

    @property
    def is_full(self) -> bool:
        """Whether documents may have been forgotten."""
        with self._changed:
            return len(self._documents) >= self._max_documents

    def recent(self, limit: int, *, tenant: str | None = None) -> list[DocumentStatus]:
        """The documents that changed last, newest first; only the tenant's when given."""
        prefix = document_prefix(tenant)
        with self._changed:
            keys = (key for key in reversed(self._documents) if key.startswith(prefix))
            return [self._documents[key] for key in islice(keys, limit)]

    def unfinished(self) -> list[DocumentStatus]:
        """The documents of which something is still to come, the longest unchanged first."""
        with self._changed:
            return [status for status in self._documents.values() if status.state not in SETTLED]

    def counts(self, *, tenant: str | None = None) -> dict[str, int]:
        """Number of documents by state; only the tenant's when given."""
        prefix = document_prefix(tenant)
        with self._changed:
            states = [status.state for key, status in self._documents.items() if key.startswith(prefix)]
        return {state: states.count(state) for state in sorted(set(states))}

    def wait_until_searchable(self, document_id: str, version: int, *, timeout: float) -> bool:
        """Wait until that version or a newer one answers queries."""

        def is_searchable() -> bool:
            status = self._documents.get(document_id)
            return status is not None and status.searchable_version >= version

        with self._changed:
            return self._changed.wait_for(is_searchable, timeout)

    def catch_up(self, *, timeout: float = 60.0) -> None:
        """Wait until everything that is in the topic now has been folded in; nothing to wait for before ``start``.

        Raises:
            TimeoutError: It has not been in time.
        """
        if not self._thread.is_alive():
            return
        consumer = reader(self._bootstrap_servers)
        try:
            admin = AdminClient(client_configuration(self._bootstrap_servers))
            ends = end_offsets(consumer, partitions_of(admin, self._topic))
        finally:
            consumer.close()
        with self._changed:
            if not self._changed.wait_for(
                lambda: all(self._positions.get(where, 0) >= high for where, (_, high) in ends.items()), timeout
            ):
                raise TimeoutError(f"the status topic could not be read in {timeout:g} s")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for message in self._consumer.consume(500, timeout=0.1):
                    if message.error() is None:
                        self._fold(message.value())
                self._note_positions()
            except Exception as error:  # the view must not stop silently: everything that waits on it would hang
                log.warning("status-view", error=repr(error))
                self._stopping.wait(1.0)

    def _fold(self, value: bytes | str | None) -> None:
        try:
            self.apply(StatusRecord.model_validate_json(value or b""))
        except ValidationError as error:
            log.warning("status-view", error=str(error))

    def _note_positions(self) -> None:
        positions = {(tp.topic, tp.partition): tp.offset for tp in self._consumer.position(self._consumer.assignment())}
        with self._changed:
            self._positions = positions
            self._changed.notify_all()


@retry(
    retry=retry_if_exception_type((KafkaException, LookupError)),
    wait=wait_fixed(0.5),
    stop=stop_after_delay(30),
    reraise=True,
)
def _partitions(bootstrap_servers: str, topic: str) -> list[TopicPartition]:
    """A topic that was created a moment ago may not be known to the broker yet."""
    return partitions_of(AdminClient(client_configuration(bootstrap_servers)), topic)
