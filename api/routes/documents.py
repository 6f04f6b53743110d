"""Publish and delete documents. Both answer 202 once the broker has acknowledged the record."""

from functools import partial
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from api.access.principals import Caller, Principal
from api.admission import admit_document
from api.fetching import Fetcher
from api.measured import Measured
from api.metrics import PUBLISHED
from api.outbox import Outbox
from api.ports import Publisher
from api.request_ids import request_id_of
from api.uploads import document_of, request_schema
from schemas.records import DocumentId, DocumentRecord

DOCUMENTS = "/api/v1/documents"
DOCUMENT = DOCUMENTS + "/{document_id:path}"
DocumentPath = Annotated[DocumentId, Path(description="The document's id; it may contain slashes.")]


class Accepted(BaseModel):
    """The document is in the log. It is searchable once ``version`` is."""

    document_id: str
    version: int
    correlation_id: str
    status_url: str


class Removed(BaseModel):
    """The removal is in the log."""

    document_id: str
    version: int


def router(publisher: Publisher, chunk_lag: Measured[float | None], fetcher: Fetcher, *, max_lag: float) -> APIRouter:
    """The routes that write."""
    routes = APIRouter(tags=["documents"])
    outbox = Outbox(publisher)

    @routes.post(
        DOCUMENTS,
        status_code=202,
        summary="Publish a document",
        openapi_extra={"requestBody": request_schema()},
    )
    async def publish_document(request: Request, response: Response, caller: Caller) -> Accepted:
        """Publish a document as JSON, or upload a file, or have one fetched from a `uri`.

        A document published again under its id replaces the one before, which stays searchable until the new one is
        complete. Without an id, equal content has an equal id. Answers 429 with `Retry-After` while the queue is
        too long, before it reads the body.
        """
        await admit_document(chunk_lag, max_lag=max_lag)
        document = _stored(await document_of(request, fetcher), caller)
        correlation_id = request_id_of(request.scope)
        published = await outbox.send(partial(publisher.publish, document, correlation_id=correlation_id))
        PUBLISHED.labels("upsert").inc()
        document_id = caller.shown_id(published.document_id)
        status_url = f"{DOCUMENTS}/{quote(document_id, safe='')}"
        response.headers["Location"] = status_url
        return Accepted(
            document_id=document_id,
            version=published.version,
            correlation_id=published.correlation_id,
            status_url=status_url,
        )

    @routes.delete(DOCUMENT, status_code=202, summary="Delete a document")
    async def delete_document(request: Request, document_id: DocumentPath, caller: Caller) -> Removed:
        """Remove a document from both stores, with everything that only it supports."""
        correlation_id, stored_id = request_id_of(request.scope), caller.stored_id(document_id)
        published = await outbox.send(partial(publisher.delete, stored_id, correlation_id=correlation_id))
        PUBLISHED.labels("delete").inc()
        return Removed(document_id=document_id, version=published.version)

    return routes


def _stored(document: DocumentRecord, caller: Principal) -> DocumentRecord:
    """The document under the id that topics and stores know it by."""
    if caller.tenant is not None and document.content_uri is not None:
        problem = "all tenants share the blob store that this names; publish the content itself"
        raise RequestValidationError([{"loc": ("body", "content_uri"), "msg": problem, "type": "value_error"}])
    return document.model_copy(update={"document_id": caller.stored_id(document.document_id)})
