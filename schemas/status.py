"""Where a document is: the fold of its stages' status records."""

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.records import Revision, StageName, StatusRecord

DocumentState = Literal["processing", "searchable", "indexed", "deleted", "retrying", "dead-lettered"]

SETTLED = ("indexed", "deleted", "dead-lettered")  # nothing more happens to a revision by itself
_DONE = ("indexed", "deleted")
_BRANCHES: tuple[tuple[StageName, StageName], ...] = (("embed", "index-vectors"), ("extract", "index-graph"))


class DocumentStatus(BaseModel):
    """A document as its newest revision stands; older revisions' records are left out."""

    model_config = ConfigDict(frozen=True)

    document_id: str
    stages: dict[StageName, StatusRecord]

    @cached_property
    def revision(self) -> Revision:
        """The newest revision that any stage has reported."""
        return max(record.revision for record in self.stages.values())

    @cached_property
    def current(self) -> dict[StageName, StatusRecord]:
        """What the stages say of the newest revision."""
        return {stage: record for stage, record in self.stages.items() if record.revision == self.revision}

    @cached_property
    def state(self) -> DocumentState:
        """One word: how far both indexes are, else why not."""
        vectors, graph = self._state_of("index-vectors"), self._state_of("index-graph")
        if vectors == graph and vectors in _DONE:
            return "indexed" if vectors == "indexed" else "deleted"
        failed = {record.state for record in self._failures()}
        if "dead-lettered" in failed:
            return "dead-lettered"
        if "retrying" in failed:
            return "retrying"
        return "searchable" if vectors == "indexed" else "processing"

    @cached_property
    def changed_at(self) -> float:
        """When a stage last reported progress of the newest revision, in seconds since the epoch."""
        return max(record.at for record in self.current.values())

    @cached_property
    def waits_for(self) -> StageName | None:
        """The first stage that has not done its part of the newest revision; None where all have."""
        for branch in _BRANCHES:
            if self._state_of(branch[-1]) in _DONE:
                continue
            stages: tuple[StageName, ...] = ("chunk", *branch)
            for stage in stages:
                record = self.current.get(stage)
                if record is None or record.state in ("retrying", "dead-lettered"):
                    return stage
            return branch[-1]
        return None

    @cached_property
    def searchable_version(self) -> int:
        """The newest version whose vectors answer (or whose removal is done); -1 before the first."""
        record = self.stages.get("index-vectors")
        return record.version if record and record.state in _DONE else -1

    @cached_property
    def error(self) -> str | None:
        """Why the newest revision has failed, if it has."""
        return next((record.error for record in self._failures() if record.error), None)

    def with_record(self, record: StatusRecord) -> "DocumentStatus":
        """The status after one more record; what is older than the stage's own last word is ignored."""
        before = self.stages.get(record.stage)
        if before is not None and (
            (before.revision, before.at) > (record.revision, record.at) or _is_one_chunks_progress(before, record)
        ):
            return self
        return DocumentStatus(document_id=self.document_id, stages=self.stages | {record.stage: record})

    def was_chunked_as(self, content_hash: str) -> bool:
        """Whether this content is the last that the chunk stage has let through."""
        chunked = self.stages.get("chunk")
        return chunked is not None and chunked.content_hash == content_hash

    def is_indexed_as(self, content_hash: str) -> bool:
        """Whether both stores hold exactly this content as the newest revision."""
        stages: tuple[StageName, ...] = ("chunk", "index-vectors", "index-graph")
        records = [self.current.get(stage) for stage in stages]
        return all(
            record is not None
            and record.content_hash == content_hash
            and record.state in ("chunked", "unchanged", "indexed")
            for record in records
        )

    def _failures(self) -> list[StatusRecord]:
        """The stages' failures that have not been made good: a store that holds the document has got it since."""
        made_good = {stage for branch in _BRANCHES if self._state_of(branch[1]) in _DONE for stage in branch}
        failures = [record for stage, record in self.current.items() if stage not in made_good]
        return [record for record in failures if record.state in ("dead-lettered", "retrying")]

    def _state_of(self, stage: StageName) -> str | None:
        record = self.current.get(stage)
        return record.state if record else None


class Stuck(BaseModel):
    """An unfinished document. ``since`` is its last progress, in seconds since the epoch.

    ``topic``, ``partition`` and ``offset`` are its oldest unread record; None where none lies unread.
    """

    document_id: str
    state: str
    stage: StageName | None
    since: float
    error: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


def _is_one_chunks_progress(before: StatusRecord, record: StatusRecord) -> bool:
    """Whether another chunk got on while one of the same revision is dead: that makes nothing good."""
    failed = before.state == "dead-lettered" and before.revision == record.revision
    return failed and record.state in ("embedded", "extracted")
