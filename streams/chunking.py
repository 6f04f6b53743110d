"""The chunk stage: a document record becomes chunks, a mark, or nothing where it is older than what is known."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import KafkaException
from pydantic import BaseModel, TypeAdapter

from processors.chunk import Splitter
from processors.convert import Converter
from processors.errors import PermanentError, PipelineError, UnavailableError
from schemas import headers as names
from schemas.headers import header
from schemas.ids import content_hash
from schemas.records import Chunk, DocumentRecord, Mark, Revision, State, StatusRecord
from schemas.settings import Settings
from streams.blobs import Blobs
from streams.decode import decoded
from streams.health import StageHealth
from streams.record import Record
from streams.reports import status_of
from streams.stage import Outputs, PartialError, Stage
from streams.status import StatusView

_DOCUMENT: TypeAdapter[DocumentRecord] = TypeAdapter(DocumentRecord)


@dataclass(frozen=True)
class Request:
    """A record of the documents topic, understood: a document (None: a tombstone) and the revision it makes.

    ``is_forced``: it is processed even where the stores are said to hold its content.
    """

    document_id: str
    document: DocumentRecord | None
    revision: Revision
    is_forced: bool = False


def chunk_stage(chunker: "Chunker", settings: Settings) -> Stage[Request]:
    """Documents to chunks."""
    return Stage("chunk", settings.chunking.batch, decode_document, chunker.process, chunker.close)


def decode_document(record: Record) -> Request:
    """Understand a record of the documents topic.

    Raises:
        PermanentError: It is no document record, or its key is not the document's id.
    """
    document_id = record.document_id
    if not document_id:
        raise PermanentError("the record has no key; key it by the document's id, which keeps its updates in order")
    if not record.value:
        return Request(document_id, None, record.revision())
    document = decoded(_DOCUMENT, record.value)
    if document.document_id != document_id:
        raise PermanentError(
            f"the record's key is {document_id!r} but its document_id is {document.document_id!r}; they must be equal"
        )
    is_forced = header(record.headers, names.REPROCESS) is not None
    return Request(document_id, document, record.revision(document.version), is_forced)


class Chunker:
    """Fetches, converts and splits. ``fingerprint`` names every setting that decides what becomes of a content."""

    def __init__(
        self,
        converter: Converter,
        splitter: Splitter,
        blobs: Blobs,
        view: StatusView,
        *,
        max_input_bytes: int,
        fingerprint: str,
        health: StageHealth,
    ) -> None:
        self._converter = converter
        self._splitter = splitter
        self._blobs = blobs
        self._view = view
        self._max_input_bytes = max_input_bytes
        self._fingerprint = fingerprint
        self._health = health
        self.close = converter.close

    def process(self, requests: Sequence[Request]) -> list[Outputs]:
        """One sequence of outputs per request: chunks or a mark, and a status."""
        self._know_what_others_did()
        outputs: list[Outputs] = []
        for request in requests:
            self._health.progressed()  # a batch of files that take long is no stall
            try:
                made = self._outputs(request)
            except PipelineError as error:
                raise PartialError(outputs, error) from error
            for output in made:
                if isinstance(output, StatusRecord):
                    self._view.apply(output)  # the next record of this document may come before the topic tells
            outputs.append(made)
        return outputs

    def _know_what_others_did(self) -> None:
        """After partitions came from another worker: read its last statuses before trusting the view."""
        if self._health.assigned.is_set():
            self._health.assigned.clear()  # first: another assignment may come meanwhile
            try:
                self._catch_up()
            except UnavailableError:
                self._health.assigned.set()
                raise

    def _catch_up(self) -> None:
        try:
            self._view.catch_up()
        except (TimeoutError, KafkaException) as error:
            raise UnavailableError(f"the status topic cannot be read: {error}") from error

    def _outputs(self, request: Request) -> list[BaseModel]:
        status = self._view.get(request.document_id)
        if status is not None and "chunk" in status.stages and request.revision < status.stages["chunk"].revision:
            return []  # stale
        document = request.document
        if document is None or document.operation == "delete":
            return [_mark(request, "delete"), _status(request, "deleted")]
        content = self._content(document)
        digest = self._hash(content, document)
        if not request.is_forced and (count := self._indexed_chunks(request.document_id, digest)) is not None:
            return [_mark(request, "touch", digest, count), _status(request, "unchanged", digest, count)]
        chunks = self._chunks(request, document, content, digest)
        return [*chunks, _status(request, "chunked", digest, len(chunks))]

    def _indexed_chunks(self, document_id: str, digest: str) -> int | None:
        """How many chunks of exactly this content both stores hold as the newest; None where they do not."""
        status = self._view.get(document_id)
        if status is not None and status.was_chunked_as(digest) and not status.is_indexed_as(digest):
            self._catch_up()  # the same again: that both stores hold it may be known a moment later
            status = self._view.get(document_id)
        if status is None or not status.is_indexed_as(digest):
            return None
        return status.stages["chunk"].chunk_count or 0

    def _content(self, document: DocumentRecord) -> bytes:
        if document.text is not None:
            return document.text.encode("utf-8", "replace")
        if document.content_uri is not None:
            return self._blobs.get(document.content_uri, max_bytes=self._max_input_bytes)
        try:
            return base64.b64decode(document.content_base64 or "", validate=True)
        except binascii.Error as error:
            raise PermanentError(f"content_base64 is not base64: {error}") from error

    def _hash(self, content: bytes, document: DocumentRecord) -> str:
        described = document.model_dump_json(include={"media_type", "title", "source", "metadata"})
        return content_hash(content, described, self._fingerprint)

    def _chunks(self, request: Request, document: DocumentRecord, content: bytes, digest: str) -> list[Chunk]:
        converted = self._converter.convert(content, media_type=document.media_type, name=document.source)
        pieces = self._splitter.split(converted.text, markdown=converted.markdown)
        if not pieces:
            raise PermanentError("no text in it: nothing could be split into chunks")
        return [
            Chunk(
                document_id=request.document_id,
                version=request.revision.version,
                sequence=request.revision.sequence,
                chunk_index=position,
                chunk_count=len(pieces),
                text=piece.text,
                start=piece.start,
                end=piece.end,
                headings=piece.headings,
                content_hash=digest,
                media_type=document.media_type,
                title=document.title or converted.title,
                source=document.source,
                metadata=document.metadata,
            )
            for position, piece in enumerate(pieces)
        ]


def _mark(request: Request, operation: Literal["delete", "touch"], digest: str | None = None, count: int = 0) -> Mark:
    return Mark(
        document_id=request.document_id,
        version=request.revision.version,
        sequence=request.revision.sequence,
        operation=operation,
        content_hash=digest,
        chunk_count=count,
    )


def _status(request: Request, state: State, digest: str | None = None, count: int | None = None) -> StatusRecord:
    return status_of(request.document_id, request.revision, "chunk", state, chunk_count=count, content_hash=digest)
