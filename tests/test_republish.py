"""Which record of a document is published again, and how, on a real broker."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from schemas import headers as names
from schemas.headers import header
from schemas.settings import Settings
from schemas.topics import DOCUMENTS
from streams.chunking import decode_document
from streams.kafka import producer_configuration, read_all, send_now
from streams.record import Record
from streams.republish import Wanted, republish
from streams.topics import create_topics
from tests.services import broker

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with broker(tmp_path_factory.mktemp("republish")) as servers:
        create_topics(servers, Settings().kafka)
        yield servers


def put(servers: str, key: str, value: bytes | None, *, partition: int = -1, **headers: str) -> None:
    encoded = [(f"aegis-{name}", text.encode()) for name, text in headers.items()]
    producer = Producer(producer_configuration(servers))
    send_now(producer, DOCUMENTS.name, key.encode(), value, encoded, partition=partition)


def of(servers: str, key: str) -> list[Record]:
    return [record for record in read_all(servers, [DOCUMENTS.name]) if record.document_id == key]


def value(key: str, text: str, version: int | None = None) -> bytes:
    stamped = "" if version is None else f', "version": {version}'
    return f'{{"document_id": "{key}", "text": "{text}"{stamped}}}'.encode()


def test_the_newest_record_comes_again_as_a_newer_revision_of_the_same_version(servers: str) -> None:
    put(servers, "a", value("a", "second", 2))
    put(servers, "a", value("a", "first", 1))
    put(servers, "a", b"no document")
    assert republish(servers, {"a": Wanted()}) == {"a": "republished"}
    *before, again = of(servers, "a")
    assert (again.value, again.partition) == (before[0].value, before[0].partition)
    assert decode_document(again).is_forced
    assert decode_document(again).revision == (2, again.offset)


def test_a_record_without_a_version_keeps_that_of_its_time_and_its_partition(servers: str) -> None:
    put(servers, "b", value("b", "text"), partition=3)
    put(servers, "b", value("b", "older, tried again"), partition=3, version="5", sequence="0", attempt="2")
    (first, _) = of(servers, "b")
    republish(servers, {"b": Wanted()})
    again = of(servers, "b")[-1]
    assert decode_document(again).revision == (first.timestamp, again.offset)
    assert (again.value, again.partition, again.attempt) == (first.value, 3, 0)


def test_a_retried_record_is_not_retried_again(servers: str) -> None:
    put(servers, "c", value("c", "text"), version="5", sequence="7", attempt="2")
    republish(servers, {"c": Wanted()})
    again = of(servers, "c")[-1]
    assert decode_document(again).revision == (5, again.offset)
    assert again.attempt == 0
    assert header(again.headers, names.SEQUENCE) is None


def test_chunks_without_a_head_are_erased_first(servers: str) -> None:
    put(servers, "d", value("d", "text", 4))
    republish(servers, {"d": Wanted(erase=True)})
    _, erasing, again = (decode_document(record) for record in of(servers, "d"))
    assert erasing.document is None
    assert erasing.revision.version == 4
    assert again.document is not None
    assert again.revision > erasing.revision


def test_what_has_no_record_is_deleted_above_what_the_stores_hold_or_left_alone(servers: str) -> None:
    wanted = {"e": Wanted(held_version=9, may_delete=True), "f": Wanted(held_version=9)}
    assert republish(servers, wanted) == {"e": "deleted", "f": "left alone"}
    (deleted,) = of(servers, "e")
    assert (deleted.value, decode_document(deleted).revision.version) == (None, 10)
    assert of(servers, "f") == []


def test_a_deleted_document_is_deleted_again(servers: str) -> None:
    put(servers, "g", value("g", "text", 1))
    put(servers, "g", None)
    republish(servers, {"g": Wanted()})
    assert of(servers, "g")[-1].value is None
