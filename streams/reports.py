"""What stages say of a document on the status topic."""

import time

from schemas.records import Revision, StageName, State, StatusRecord


def status_of(
    document_id: str,
    revision: Revision,
    stage: StageName,
    state: State,
    *,
    chunk_count: int | None = None,
    content_hash: str | None = None,
) -> StatusRecord:
    """The status of a document's revision in a stage, as of now."""
    return StatusRecord(
        document_id=document_id,
        version=revision.version,
        sequence=revision.sequence,
        stage=stage,
        state=state,
        at=time.time(),
        chunk_count=chunk_count,
        content_hash=content_hash,
    )
