"""Dead letters over HTTP: what `aegis dlq` does, for the console and for programs."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Annotated, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api import pools
from api.access.principals import Caller, Principal
from api.admission import Slots
from api.ports import DeadLetters
from api.problems import Problem
from schemas.dead_letters import DeadLetter, Filter
from schemas.headers import ERROR_STACKTRACE
from schemas.ids import document_prefix
from schemas.records import STAGES, StageName

_THREADS = 2  # each call reads whole topics
_MAX_IN_FLIGHT = 8
_MAX_LETTERS = 1000
_SHOWN_BYTES = 64 * 1024

T = TypeVar("T")
Glob = Annotated[str | None, Field(max_length=512, description="A shell glob, such as `*encrypted*`.")]


class Chosen(BaseModel):
    """Which dead letters: every given condition has to hold."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field([], max_length=_MAX_LETTERS, description="As the listing gives them.")
    stages: list[StageName] = Field([], description="All, where none is given.")
    error_class: Glob = None
    error: Glob = None
    document: Glob = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def filter(self, caller: Principal) -> Filter:
        """The same among the caller's, as the dead-letter topics are asked."""
        prefix = document_prefix(caller.tenant)
        return Filter(
            stages=self.stages or STAGES,
            ids=tuple(self.ids),
            error_class=self.error_class,
            error=self.error,
            document=self.document and prefix + self.document,
            prefix=prefix,
            since=self.since.timestamp() if self.since else None,
            until=self.until.timestamp() if self.until else None,
        )


class Listed(Chosen):
    """Which dead letters, and how many of them."""

    limit: int = Field(50, ge=1, le=_MAX_LETTERS)


class Resolve(Chosen):
    """Which dead letters, and whether it is meant."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"stages": ["chunk"], "error": "*encrypted*", "dry_run": True}}
    )

    every: bool = Field(False, description="Needed when no condition is given.")
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")
    limit: int = Field(_MAX_LETTERS, ge=1, le=_MAX_LETTERS, description="At most so many, the oldest first.")


class Group(BaseModel):
    """Dead letters of one stage with one reason."""

    stage: StageName
    error_class: str
    error: str
    count: int
    oldest: float
    newest: float


class DeadLetterList(BaseModel):
    """The oldest of those that match, and all that match by reason, the most frequent first."""

    dead_letters: list[DeadLetter]
    groups: list[Group]
    total: int


class DeadRecord(BaseModel):
    """A dead letter with its record. Of a long value only the beginning, and ``value_bytes`` says how long it is."""

    dead_letter: DeadLetter
    headers: dict[str, str]
    value: str
    value_bytes: int


class Resolved(BaseModel):
    """What was replayed or dropped, or would have been."""

    dead_letters: list[DeadLetter]
    dry_run: bool


def router(letters: DeadLetters) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/dlq", tags=["dead letters"])
    threads = pools.threads("dead letters", _THREADS)
    slots = Slots(_MAX_IN_FLIGHT, "requests for dead letters")

    async def ask(question: Callable[[], T]) -> T:
        with slots.one():
            return await to_thread.run_sync(question, limiter=threads)

    async def resolve(which: Resolve, action: Callable[..., Iterator[DeadLetter]], caller: Principal) -> Resolved:
        wanted = which.filter(caller)
        if wanted == Filter(prefix=wanted.prefix) and not which.every:
            raise Problem(422, "too-many", "this means every dead letter; say `every`, or choose some")
        if which.dry_run:
            found = await ask(lambda: list(letters.find(wanted, limit=which.limit)))
        else:
            found = await ask(lambda: list(action(wanted, limit=which.limit)))
        return Resolved(dead_letters=_shown(found, caller), dry_run=which.dry_run)

    @routes.get("", summary="List dead letters")
    async def list_letters(
        which: Annotated[Listed, Query()],
        caller: Caller,
    ) -> DeadLetterList:
        """Unresolved dead letters, the oldest first, and how many there are of each reason."""
        wanted = which.filter(caller)
        found = await ask(lambda: letters.find(wanted))
        shown = _shown(found[: which.limit], caller)
        return DeadLetterList(dead_letters=shown, groups=_groups(found), total=len(found))

    @routes.post("/replay", summary="Replay dead letters")
    async def replay(which: Resolve, caller: Caller) -> Resolved:
        """Send dead letters back to the stage they failed in."""
        return await resolve(which, letters.replay, caller)

    @routes.post("/drop", summary="Drop dead letters")
    async def drop(which: Resolve, caller: Caller) -> Resolved:
        """Give dead letters up for good."""
        return await resolve(which, letters.drop, caller)

    @routes.get("/{stage}/{partition}/{offset}", summary="One dead letter")
    async def show(
        stage: StageName, partition: Annotated[int, Path(ge=0)], offset: Annotated[int, Path(ge=0)], caller: Caller
    ) -> DeadRecord:
        """A dead letter with its headers, its value and, for a key of no tenant, the stack trace."""
        letter_id = f"{stage}/{partition}/{offset}"
        found = await ask(partial(letters.show, letter_id))
        if found is None or not Filter(prefix=document_prefix(caller.tenant)).matches(found[0]):
            raise Problem(404, "unknown-dead-letter", f"there is no dead letter {letter_id!r}, or it is resolved")
        letter, record = found
        value = record.value or b""
        return DeadRecord(
            dead_letter=_shown([letter], caller)[0],
            headers={
                name: content.decode("utf-8", "replace")
                for name, content in record.headers
                if caller.tenant is None or name != ERROR_STACKTRACE  # it tells of this installation
            },
            value=value[:_SHOWN_BYTES].decode("utf-8", "replace"),
            value_bytes=len(value),
        )

    return routes


def _shown(letters: Sequence[DeadLetter], caller: Principal) -> list[DeadLetter]:
    """The same, with the ids that the caller knows the documents by."""
    return [
        letter.model_copy(update={"document_id": letter.document_id and caller.shown_id(letter.document_id)})
        for letter in letters
    ]


def _groups(letters: Sequence[DeadLetter]) -> list[Group]:
    def reason(letter: DeadLetter) -> tuple[str, str, str]:
        return letter.stage, letter.error_class, letter.error

    groups = []
    for _, of in groupby(sorted(letters, key=reason), key=reason):
        same = list(of)
        moments = [letter.dead_lettered_at for letter in same]
        first = same[0]
        groups.append(
            Group(
                stage=first.stage,
                error_class=first.error_class,
                error=first.error,
                count=len(same),
                oldest=min(moments),
                newest=max(moments),
            )
        )
    return sorted(groups, key=lambda group: -group.count)
