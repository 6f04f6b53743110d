"""Documents published once more, from their own records: the documents topic is never trimmed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

from processors.errors import PermanentError, UnavailableError
from schemas import headers as names
from schemas.headers import encoded, original, with_headers
from schemas.records import Revision
from schemas.topics import DOCUMENTS
from streams.chunking import decode_document
from streams.kafka import producer_configuration, read_all, reader, record_of, send_now
from streams.record import Record

_POLL_SECONDS = 30.0


class Place(NamedTuple):
    """Where the record of a document's newest revision lies."""

    revision: Revision
    partition: int
    offset: int


@dataclass(frozen=True)
class Wanted:
    """How a document is mended: ``erase`` removes all of it first; ``held_version`` is the newest that a store holds.

    ``may_delete``: without a record it is deleted; otherwise it is left alone.
    """

    erase: bool = False
    held_version: int = 0
    may_delete: bool = False


def republish(bootstrap_servers: str, wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Publish the newest record of each document once more, so that no stage takes it for unchanged.

    A record keeps its version, and its new offset makes it the newer one: producers' next versions stay newer still.
    It is published in its own partition, for offsets of two partitions say nothing. The topic is read once.

    Returns:
        What was done, by document: republished, deleted (there is no record of it), left alone (the same, but that
        is no reason to delete it).

    Raises:
        KafkaException: The broker did not take a record.
        UnavailableError: It does not send one.
        TimeoutError: The broker sent nothing although records are left.
    """
    places = _places(bootstrap_servers, wanted.keys())
    producer = Producer(producer_configuration(bootstrap_servers))
    done = {}
    for document_id, record in _records(bootstrap_servers, places):
        _republish(producer, record, places[document_id], erase=wanted[document_id].erase)
        done[document_id] = "republished"
    for document_id in sorted(wanted.keys() - places.keys()):
        how = wanted[document_id]
        if how.may_delete:
            version = encoded({names.VERSION: str(how.held_version + 1)})
            send_now(producer, DOCUMENTS.name, document_id.encode(), None, version)
        done[document_id] = "deleted" if how.may_delete else "left alone"
    return done


def _places(bootstrap_servers: str, document_ids: Iterable[str]) -> dict[str, Place]:
    wanted, places = set(document_ids), dict[str, Place]()
    for record in read_all(bootstrap_servers, [DOCUMENTS.name]):
        if record.document_id not in wanted:
            continue
        try:
            request = decode_document(record)
        except PermanentError:
            continue  # no stage could read it either
        found = Place(request.revision, record.partition, record.offset)
        places[request.document_id] = max(found, places.get(request.document_id, found))
    return places


def _records(bootstrap_servers: str, places: Mapping[str, Place]) -> Iterator[tuple[str, Record]]:
    """One record in memory at a time, in the order of the topic."""
    consumer = reader(bootstrap_servers)
    try:
        for document_id, place in sorted(places.items(), key=lambda pair: pair[1][1:]):
            yield document_id, _record_at(consumer, place)
    finally:
        consumer.close()


def _record_at(consumer: Consumer, place: Place) -> Record:
    consumer.assign([TopicPartition(DOCUMENTS.name, place.partition, place.offset)])
    message = consumer.poll(_POLL_SECONDS)
    if message is None or message.error() is not None:
        raise UnavailableError(f"the broker does not send {DOCUMENTS.name} {place.partition}/{place.offset}")
    return record_of(message)


def _republish(producer: Producer, record: Record, place: Place, *, erase: bool) -> None:
    version = {names.VERSION: str(place.revision.version)}
    anew = with_headers(original(record.headers, keep=()), version | {names.REPROCESS: "true"})
    if erase:
        send_now(producer, DOCUMENTS.name, record.key, None, encoded(version), partition=place.partition)
    send_now(producer, DOCUMENTS.name, record.key, record.value, anew, partition=place.partition)
