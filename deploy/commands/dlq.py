"""`aegis dlq`: dead letters, listed, shown, replayed, dropped."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated

import typer

from deploy.commands.documents import progress_bar
from deploy.commands.output import AsJson, connected, fail, out, print_json, table
from schemas.dead_letters import DeadLetter, Filter
from schemas.records import STAGES, StageName
from streams.dead_letters import DeadLetters

app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay, drop.")

Stage = Annotated[list[str] | None, typer.Option("--stage", help=f"One of {', '.join(STAGES)}; may be repeated.")]
ErrorClass = Annotated[str | None, typer.Option("--error-class", help="Glob on the error's class.")]
Error = Annotated[str | None, typer.Option("--error", help="Glob on the reason, such as '*encrypted*'.")]
Document = Annotated[str | None, typer.Option("--document", help="Glob on the document id.")]
Since = Annotated[str | None, typer.Option("--since", help="ISO time, or an age such as 30m, 12h, 7d.")]
Until = Annotated[str | None, typer.Option("--until", help="ISO time, or an age such as 30m, 12h, 7d.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Dead letters by id; otherwise the filters decide.")]
All = Annotated[bool, typer.Option("--all", help="Needed when neither ids nor filters are given.")]


@app.command("list")
def list_letters(
    stage: Stage = None,
    error_class: ErrorClass = None,
    error: Error = None,
    document: Document = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest first."""
    with connected() as (settings, running):
        which = _filter(None, stage, error_class, error, document, since, until)
        letters = DeadLetters(running.bootstrap_servers, generation=settings.generation).find(which, limit=limit)
    _print(letters, as_json=as_json)


@app.command()
def show(letter_id: str, as_json: AsJson = False) -> None:
    """Show one dead letter with its headers, stack trace and value."""
    with connected() as (settings, running):
        found = DeadLetters(running.bootstrap_servers, generation=settings.generation).show(letter_id)
    if found is None:
        fail(f"there is no dead letter {letter_id}; `aegis dlq list` lists them")
    letter, record = found
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    value = (record.value or b"").decode("utf-8", "replace")
    if as_json:
        print_json({**letter.model_dump(), "headers": headers, "key": letter.document_id, "value": value})
        return
    out.print(table(["field", "value"], [*letter.model_dump().items(), *headers.items()]))
    out.print(f"\nvalue ({len(record.value or b'')} bytes):", markup=False)
    out.print(value[:4000], markup=False)


@app.command()
def replay(
    ids: Ids = None,
    stage: Stage = None,
    error_class: ErrorClass = None,
    error: Error = None,
    document: Document = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="At most so many a second.")] = None,
    every: All = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the stage they failed in."""
    which = _some(_filter(ids, stage, error_class, error, document, since, until), every=every)
    with connected() as (settings, running):
        letters = DeadLetters(running.bootstrap_servers, generation=settings.generation)
        found = letters.find(which, limit=limit)
        _follow(letters.replay(which, rate=rate, limit=limit), "Replaying", len(found), dry_run=dry_run)
    _print(found, as_json=as_json, verb="would be replayed" if dry_run else "replayed")


@app.command()
def drop(
    ids: Ids = None,
    stage: Stage = None,
    error_class: ErrorClass = None,
    error: Error = None,
    document: Document = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    every: All = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up for good."""
    which = _some(_filter(ids, stage, error_class, error, document, since, until), every=every)
    with connected() as (settings, running):
        letters = DeadLetters(running.bootstrap_servers, generation=settings.generation)
        found = letters.find(which, limit=limit)
        _follow(letters.drop(which, limit=limit), "Dropping", len(found), dry_run=dry_run)
    _print(found, as_json=as_json, verb="would be dropped" if dry_run else "dropped")


def _filter(
    ids: list[str] | None,
    stages: list[str] | None,
    error_class: str | None,
    error: str | None,
    document: str | None,
    since: str | None,
    until: str | None,
) -> Filter:
    return Filter(
        stages=_stages(stages),
        ids=ids or (),
        error_class=error_class,
        error=error,
        document=document,
        since=_moment(since),
        until=_moment(until),
    )


def _stages(names: list[str] | None) -> list[StageName]:
    chosen = [stage for stage in STAGES if names is None or stage in names]
    if unknown := sorted(set(names or ()) - set(STAGES)):
        fail(f"no stage is called {', '.join(unknown)}; there are {', '.join(STAGES)}", status=2)
    return chosen


def _moment(text: str | None) -> float | None:
    """Seconds since the epoch of an ISO time, or of an age such as 30m."""
    if text is None:
        return None
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdecimal() and text[-1] in units:
        return time.time() - timedelta(**{units[text[-1]]: int(text[:-1])}).total_seconds()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        fail(f"{text!r} is neither an ISO time nor an age such as 30m, 12h, 7d", status=2)


def _some(which: Filter, *, every: bool) -> Filter:
    if which == Filter(stages=list(STAGES)) and not every:
        fail(
            "this means every dead letter; say --all, or choose some by id, --stage, --error, --document, --since",
            status=2,
        )
    return which


def _follow(letters: Iterator[DeadLetter], what: str, total: int, *, dry_run: bool) -> None:
    """Resolve the letters, which happens as they are iterated over; a dry run leaves them alone."""
    if dry_run:
        return
    with progress_bar("dead letters") as progress:
        task = progress.add_task(what, total=total)
        for _ in letters:
            progress.advance(task)


def _print(letters: list[DeadLetter], *, as_json: bool, verb: str | None = None) -> None:
    if as_json:
        print_json({verb: letters} if verb else letters)
        return
    rows = [(one.id, one.document_id, one.error_class, one.error[:100], one.attempt) for one in letters]
    if rows:
        out.print(table(["id", "document", "class", "reason", "attempts"], rows))
    out.print(f"{len(letters)} dead letters{f' {verb}' if verb else ''}.")
