"""Following a document. By looking again and again, in a thread only for as long as a look takes.

Waiting in the status view would cost a thread per client, wake all of them at every record of any document, and go
on after the client has left.
"""

import time
from collections.abc import AsyncIterator

import anyio
from anyio import to_thread

from api.ports import StatusView
from schemas.status import SETTLED, DocumentStatus

_SEARCHABLE_INTERVAL = 0.05
_CHANGES_INTERVAL = 0.2


async def look(view: StatusView, document_id: str) -> DocumentStatus | None:
    """What is known of a document now. In a thread: the view may be busy counting."""
    return await to_thread.run_sync(view.get, document_id)


async def wait_until_searchable(view: StatusView, document_id: str, version: int, *, within: float) -> bool:
    """Whether that version, or a newer one, answers queries in ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        status = await look(view, document_id)
        if status is not None and status.searchable_version >= version:
            return True
        if time.monotonic() >= deadline:
            return False
        await anyio.sleep(min(_SEARCHABLE_INTERVAL, within))


async def changes(
    view: StatusView, document_id: str, *, version: int, within: float
) -> AsyncIterator[DocumentStatus | None]:
    """Each new status of a document, None at each look without one, until ``version`` or newer is settled."""
    deadline, last = time.monotonic() + within, None
    while time.monotonic() < deadline:
        status = await look(view, document_id)
        if status is not None and status != last:
            last = status
            yield status
            if is_settled(status, version):
                return
        else:
            yield None
        await anyio.sleep(_CHANGES_INTERVAL)


def is_settled(status: DocumentStatus, version: int) -> bool:
    """Whether nothing more will happen to the document on its own, at that version or a newer one."""
    return status.state in SETTLED and status.revision.version >= version
