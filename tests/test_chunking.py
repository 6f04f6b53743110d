"""The chunk stage's decisions, with the real converter and splitter and a status view that has no broker."""

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processors import build
from processors.errors import PermanentError
from schemas import headers as names
from schemas.records import Chunk, Mark, StageName, StatusRecord
from schemas.settings import Settings
from streams.blobs import Blobs
from streams.chunking import Chunker, Request, decode_document
from streams.health import StageHealth
from streams.record import Record
from streams.stage import PartialError
from streams.status import StatusView


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("chunking"))


@pytest.fixture
def view() -> StatusView:
    return StatusView("127.0.0.1:1", max_documents=1000)


@pytest.fixture
def chunker(settings: Settings, view: StatusView) -> Iterator[Chunker]:
    made = Chunker(
        build.build_converter(settings),
        build.build_splitter(settings, build.build_embedder(settings)),
        Blobs(settings.blob_store_url()),
        view,
        max_input_bytes=1_000_000,
        fingerprint="f",
        health=StageHealth("chunk"),
    )
    yield made
    made.close()


def request(offset: int = 0, **fields: Any) -> Request:
    import json

    value = json.dumps({"document_id": "d", **fields}).encode()
    return decode_document(Record("aegis.documents.v1", 0, offset, 1000, b"d", value))


def index(view: StatusView, outputs: list[Any]) -> None:
    """What the index stages report once they hold the chunks."""
    (status,) = (one for one in outputs if isinstance(one, StatusRecord))
    stages: tuple[StageName, ...] = ("index-vectors", "index-graph")
    for stage in stages:
        view.apply(status.model_copy(update={"stage": stage, "state": "indexed"}))


def test_chunks_carry_where_they_come_from(chunker: Chunker) -> None:
    text = "# Bees\n\nBees dance.\n\n## Honey\n\nHoney keeps for ever."
    (outputs,) = chunker.process([request(7, text=text, media_type="text/markdown", metadata={"a": [1]})])
    chunks = [one for one in outputs if isinstance(one, Chunk)]
    assert [chunk.chunk_index for chunk in chunks] == list(range(len(chunks)))
    assert {chunk.chunk_count for chunk in chunks} == {len(chunks)}
    assert {chunk.revision for chunk in chunks} == {(1000, 7)}
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert chunks[0].metadata == {"a": [1]}


def test_the_same_content_again_is_a_touch_only_once_both_stores_hold_it(chunker: Chunker, view: StatusView) -> None:
    (first,) = chunker.process([request(1, text="Same.")])
    (second,) = chunker.process([request(2, text="Same.")])
    assert isinstance(second[0], Chunk)
    index(view, list(second))
    (third,) = chunker.process([request(3, text="Same.")])
    (mark, status) = third
    assert isinstance(mark, Mark)
    assert (mark.operation, mark.sequence) == ("touch", 3)
    assert isinstance(status, StatusRecord)
    assert status.state == "unchanged"
    assert isinstance(first[0], Chunk)


def test_a_record_that_asks_for_it_is_processed_though_nothing_changed(chunker: Chunker, view: StatusView) -> None:
    (first,) = chunker.process([request(1, text="Same.")])
    index(view, list(first))
    value = b'{"document_id": "d", "text": "Same."}'
    headers = ((names.REPROCESS, b"true"), (names.VERSION, b"1000"))
    (outputs,) = chunker.process([decode_document(Record("aegis.documents.v1", 0, 2, 5000, b"d", value, headers))])
    assert isinstance(outputs[0], Chunk)
    assert outputs[0].revision == (1000, 2)


@pytest.mark.parametrize(
    "changed", [{"text": "Other."}, {"title": "T"}, {"metadata": {"k": 1}}, {"media_type": "text/markdown"}]
)
def test_any_change_is_processed(chunker: Chunker, view: StatusView, changed: dict[str, Any]) -> None:
    (first,) = chunker.process([request(1, text="Same.")])
    index(view, list(first))
    (outputs,) = chunker.process([request(2, **({"text": "Same."} | changed))])
    assert isinstance(outputs[0], Chunk)


def test_going_back_to_an_older_content_is_processed(chunker: Chunker, view: StatusView) -> None:
    (first,) = chunker.process([request(1, text="A")])
    index(view, list(first))
    chunker.process([request(2, text="B")])
    (outputs,) = chunker.process([request(3, text="A")])
    assert isinstance(outputs[0], Chunk)


def test_stale_records_become_nothing(chunker: Chunker) -> None:
    chunker.process([request(1, text="New.", version=5)])
    assert chunker.process([request(2, text="Old.", version=4)]) == [[]]


def test_a_tombstone_and_a_delete_become_marks(chunker: Chunker) -> None:
    tombstone = decode_document(Record("aegis.documents.v1", 0, 9, 2000, b"d", None))
    for one in (tombstone, request(10, operation="delete", version=3000)):
        (mark, status) = chunker.process([one])[0]
        assert isinstance(mark, Mark)
        assert mark.operation == "delete"
        assert isinstance(status, StatusRecord)
        assert status.state == "deleted"


def test_the_failing_document_is_named_and_the_ones_before_are_kept(chunker: Chunker) -> None:
    bad = request(2, content_base64=base64.b64encode(b"%PDF-1.4 broken").decode(), media_type="application/pdf")
    with pytest.raises(PartialError) as caught:
        chunker.process([request(1, text="Good."), bad, request(3, text="Later.")])
    assert len(caught.value.outputs) == 1
    assert isinstance(caught.value.error, PermanentError)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"content_base64": "no base64!"}, "not base64"),
        ({"content_uri": "http://127.0.0.1/secret"}, "is not in the blob store"),
        ({"content_uri": "file:///etc/passwd"}, "is not in the blob store"),
        ({"text": " \n\t "}, "no text"),
    ],
)
def test_content_that_cannot_be_had_is_refused_with_a_reason(
    chunker: Chunker, fields: dict[str, str], reason: str
) -> None:
    with pytest.raises(PartialError, match=reason):
        chunker.process([request(1, **fields)])


@pytest.mark.parametrize(
    "name",
    ["../secret", "..", "%2e%2e%2fsecret", "..\\secret", "a::file:secret", "a/../../secret", "a?b", "", "/etc/passwd"],
)
def test_a_blob_path_cannot_leave_the_store(chunker: Chunker, settings: Settings, name: str) -> None:
    settings.data_dir.joinpath("secret").write_text("Top secret.")
    with pytest.raises(PartialError, match="is not in the blob store"):
        chunker.process([request(1, content_uri=f"{settings.blob_store_url()}/{name}")])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, b"{}", "has no key"),
        (b"a", b'{"document_id": "b", "text": "x"}', "they must be equal"),
        (b"a", b"\xff\xfe", "Invalid JSON"),
        (b"a", b'{"document_id": "a"}', "exactly one of text"),
    ],
)
def test_a_record_that_is_no_document_says_why(key: bytes | None, value: bytes, reason: str) -> None:
    with pytest.raises(PermanentError, match=reason):
        decode_document(Record("aegis.documents.v1", 0, 0, 0, key, value))


def test_the_view_forgets_the_longest_unchanged() -> None:
    view = StatusView("127.0.0.1:1", max_documents=2)
    for name in ("a", "b", "a", "c"):
        view.apply(StatusRecord(document_id=name, version=1, stage="chunk", state="chunked", at=0))
    assert view.get("b") is None
    assert [status.document_id for status in view.recent(5)] == ["c", "a"]


def test_waiting_for_a_version_ends_when_it_is_searchable() -> None:
    view = StatusView("127.0.0.1:1", max_documents=10)
    assert not view.wait_until_searchable("d", 2, timeout=0.05)
    done = StatusRecord(document_id="d", version=2, stage="index-vectors", state="indexed", at=0)
    threading.Timer(0.1, view.apply, [done]).start()
    assert view.wait_until_searchable("d", 2, timeout=5)


def test_blobs_are_stored_once_by_content(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path.as_uri())
    assert blobs.put(b"content") == blobs.put(b"content") != blobs.put(b"other")
    assert blobs.get(blobs.put(b"content"), max_bytes=100) == b"content"
    with pytest.raises(PermanentError, match="the limit is 3"):
        blobs.get(blobs.put(b"content"), max_bytes=3)
