"""Documents that wait: for which stage, since when, and which record of theirs lies unread where.

Two sources, neither of which can be told a lie by a stalled worker: the unread records of every stage and of its retry
topics, and the status topic. A document that is not finished and of which no record lies unread is in a stage's hands
at this moment, or lost: how long ago its last progress was tells which.
"""

import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from schemas.records import STAGES, StageName
from schemas.status import DocumentStatus, Stuck
from schemas.topics import RETRY_DELAYS, SOURCES, group_of, named, retry_group_of, retry_topic
from streams.kafka import read_all
from streams.record import Record

_MAX_UNREAD = 20_000  # records looked at per group: the oldest are read first, and those are wanted


class _Unread(NamedTuple):
    stage: StageName
    record: Record


def stuck(
    bootstrap_servers: str,
    unfinished: Sequence[DocumentStatus],
    *,
    older_than: float,
    limit: int,
    generation: str = "",
) -> list[Stuck]:
    """Documents without progress for ``older_than`` seconds, the longest first.

    Raises:
        LookupError: A topic does not exist.
        KafkaException: The broker does not answer.
    """
    unread = _oldest_unread(bootstrap_servers, generation)
    waiting = {status.document_id: status for status in unfinished}
    found = [_stuck(id_, waiting.get(id_), unread.get(id_)) for id_ in {**waiting, **unread}]
    before = time.time() - older_than
    return sorted((one for one in found if one.since <= before), key=lambda one: one.since)[:limit]


def _stuck(document_id: str, status: DocumentStatus | None, unread: _Unread | None) -> Stuck:
    stage = unread.stage if unread else status.waits_for if status else None
    moments = [unread.record.timestamp / 1000] if unread else []
    if status is not None:
        moments.append(status.changed_at)
    return Stuck(
        document_id=document_id,
        state=status.state if status else "unread",
        stage=stage,
        since=max(moments),
        error=status.error if status else None,
        topic=unread.record.topic if unread else None,
        partition=unread.record.partition if unread else None,
        offset=unread.record.offset if unread else None,
    )


def _oldest_unread(bootstrap_servers: str, generation: str) -> dict[str, _Unread]:
    """The first unread record of every document that has one, by the earliest stage."""
    found: dict[str, _Unread] = {}
    for stage in STAGES:
        retries = [named(retry_topic(stage, delay), generation) for delay in RETRY_DELAYS]
        source = [named(SOURCES[stage], generation)]
        for group, topics in ((group_of(stage, generation), source), (retry_group_of(stage, generation), retries)):
            for record in islice(read_all(bootstrap_servers, topics, unread_by=group), _MAX_UNREAD):
                if record.is_for(stage) and record.document_id is not None:
                    found.setdefault(record.document_id, _Unread(stage, record))
    return found
