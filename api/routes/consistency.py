"""What differs between both stores and the status topic, and the removal of what nothing leads to."""

from collections.abc import Iterator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from api.admission import Slots
from api.ports import Consistency

MEDIA_TYPE = "application/x-ndjson"
_MAX_DIFFERENCES = 10_000


class Swept(BaseModel):
    """How many nodes and edges were removed."""

    removed: int


def router(consistency: Consistency) -> APIRouter:
    """The routes. Each reads whole stores: one of each at a time."""
    routes = APIRouter(tags=["operations"])
    checks, sweeps = Slots(1, "consistency checks"), Slots(1, "sweeps")

    @routes.get(
        "/api/v1/consistency",
        summary="Differences between the stores",
        response_class=StreamingResponse,
        responses={200: {"content": {MEDIA_TYPE: {}}, "description": "A JSON object per line."}},
    )
    async def check(
        limit: Annotated[int, Query(ge=1, le=_MAX_DIFFERENCES, description="Stop after so many differences.")] = 1000,
    ) -> StreamingResponse:
        """A line per difference as it is found, with a `kind`, and summaries between them; the last one is `done`."""
        lines = (f"{line.model_dump_json(exclude_none=True)}\n" for line in consistency.check(limit=limit))
        return _Lines(lines, checks)

    @routes.post("/api/v1/consistency/sweep", summary="Remove orphans from the graph")
    async def sweep() -> Swept:
        """Remove nodes and edges that belong to no document: publishing one again would leave them there."""
        with sweeps.one():
            return Swept(removed=await to_thread.run_sync(consistency.sweep))

    return routes


class _Lines(StreamingResponse):
    """Lines that hold a slot for as long as they are sent."""

    def __init__(self, lines: Iterator[str], slots: Slots) -> None:
        super().__init__(lines, media_type=MEDIA_TYPE)
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slots.one():
            await super().__call__(scope, receive, send)
