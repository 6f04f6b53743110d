"""Where documents are: one, the latest, or one as it goes along."""

import time
from collections.abc import AsyncIterator, Mapping
from functools import cache, partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from api.access.principals import Caller, Principal
from api.admission import Slots
from api.measured import Measured
from api.ports import StatusView
from api.problems import Problem
from api.progress import changes, is_settled, look
from api.routes.documents import DOCUMENT, DOCUMENTS, DocumentPath
from schemas.records import StageName, State, Version
from schemas.status import DocumentState, DocumentStatus

_MAX_STREAMS = 200
_STREAM_SECONDS = 300.0
_KEEP_ALIVE = 15.0
_SCANNED = 10_000


class StageStatus(BaseModel):
    """What one stage said last of a document."""

    state: State
    version: int
    at: float
    chunk_count: int | None
    error: str | None


class Status(BaseModel):
    """Where a document is: ``version`` is the newest known, ``searchable_version`` the one that answers."""

    document_id: str
    version: int
    state: DocumentState
    error: str | None
    searchable_version: int | None
    stages: dict[StageName, StageStatus]

    @classmethod
    def of(cls, status: DocumentStatus, caller: Principal) -> "Status":
        """The status as the API shows it to ``caller``."""
        stages = {
            stage: StageStatus.model_validate(record, from_attributes=True) for stage, record in status.stages.items()
        }
        return cls(
            document_id=caller.shown_id(status.document_id),
            version=status.revision.version,
            state=status.state,
            error=status.error,
            searchable_version=status.searchable_version if status.searchable_version >= 0 else None,
            stages=stages,
        )


class Statuses(BaseModel):
    """The documents that changed last, newest first, and how many there are in each state."""

    documents: list[Status]
    counts: Mapping[str, int]


class Ended(BaseModel):
    """Last event of a stream; ``settled`` is false if the time was over first."""

    settled: bool


def router(view: StatusView) -> APIRouter:
    """The routes that tell. The events' route stands first: the other one's path matches whatever follows."""
    routes = APIRouter(tags=["documents"])
    counts = cache(lambda tenant: Measured(partial(view.counts, tenant=tenant), max_age=2.0))  # who has a key has one
    streams = Slots(_MAX_STREAMS, "event streams")

    async def status_of(document_id: str, caller: Principal) -> Status:
        status = await look(view, caller.stored_id(document_id))
        if status is None:
            raise Problem(404, "not-found", f"no stage has reported {document_id!r}; if it is new, ask again shortly")
        return Status.of(status, caller)

    @routes.get(DOCUMENTS, summary="List documents")
    async def list_documents(
        caller: Caller, limit: Annotated[int, Query(ge=1, le=1000)] = 50, state: DocumentState | None = None
    ) -> Statuses:
        """The documents that changed last; with `state`, those of the last 10,000 that are in it."""

        def latest() -> list[Status]:
            statuses = view.recent(limit if state is None else _SCANNED, tenant=caller.tenant)
            wanted = [status for status in statuses if state is None or status.state == state]
            return [Status.of(status, caller) for status in wanted[:limit]]

        numbers = await counts(caller.tenant).get(within=10.0)
        return Statuses(documents=await to_thread.run_sync(latest), counts=numbers)

    @routes.get(
        DOCUMENT + "/events",
        summary="Follow a document",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def document_events(
        request: Request, caller: Caller, document_id: DocumentPath, version: Annotated[Version, Query()] = 0
    ) -> Response:
        """Server-sent events: `status` with each change, `end` once `version` or a newer one is settled.

        After an update, give the version that publishing answered, or the end of the version before ends the stream.
        It ends after 5 minutes at the latest. A document that is not known yet is waited for.
        """
        if request.scope["raw_path"].lower().endswith(b"%2fevents"):  # the end of an id, not our word
            status = await status_of(f"{document_id}/events", caller)
            return Response(status.model_dump_json(), media_type="application/json")
        streams.check()
        return StreamingResponse(
            _events(view, caller, document_id, version, streams),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @routes.get(DOCUMENT, summary="Where a document is")
    async def document_status(caller: Caller, document_id: DocumentPath) -> Status:
        """A document's state, overall and by stage; 404 as long as no stage has reported it."""
        return await status_of(document_id, caller)

    return routes


async def _events(
    view: StatusView, caller: Principal, document_id: str, version: int, streams: Slots
) -> AsyncIterator[str]:
    with streams.one():
        spoke_at = time.monotonic()
        last: DocumentStatus | None = None
        stored_id = caller.stored_id(document_id)
        async for status in changes(view, stored_id, version=version, within=_STREAM_SECONDS):
            if status is not None:
                last, spoke_at = status, time.monotonic()
                yield _event("status", Status.of(status, caller))
            elif time.monotonic() - spoke_at > _KEEP_ALIVE:
                spoke_at = time.monotonic()
                yield ": waiting\n\n"
        yield _event("end", Ended(settled=last is not None and is_settled(last, version)))


def _event(name: str, body: BaseModel) -> str:
    return f"event: {name}\ndata: {body.model_dump_json()}\n\n"
