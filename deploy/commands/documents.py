"""`aegis publish`, `delete`, `status`, `search`: what producers and readers do."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from deploy.commands.output import AsJson, api_client, connected, err, fail, out, print_json, seconds, table
from processors.media_types import media_type_of
from schemas.settings import Settings
from schemas.status import SETTLED
from streams.publisher import Published, Publisher
from streams.status import StatusView


def publish(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders (read recursively) or globs.")],
    prefix: Annotated[str, typer.Option(help="Put before every document id.")] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all are indexed or dead-lettered; status 1 if one is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish files; a document's id is its path below the given folder."""
    files = list(files_below(paths))
    if not files:
        fail(f"no files in {', '.join(map(str, paths))}")
    if twice := sorted(name for name, count in Counter(name for _, name in files).items() if count > 1):
        fail(
            f"several files would be document {twice[0]!r}; publish the folder above them, or one by one with --prefix"
        )
    with connected() as (settings, running), Publisher(running.bootstrap_servers, settings) as publisher:
        published = publish_files(publisher, files, settings, prefix=prefix)
        publisher.flush()
        states = wait_for(running.bootstrap_servers, settings, published) if wait else {}
    if as_json:
        print_json({"published": len(published), "states": states, "documents": [vars(one) for one in published]})
    else:
        out.print(f"Published {len(published)} documents." + "".join(f" {n} {state}." for state, n in states.items()))
    if states.get("dead-lettered"):
        fail("not every document was indexed; `aegis dlq list` says why")


def delete(ids: Annotated[list[str], typer.Argument(help="Document ids.")], as_json: AsJson = False) -> None:
    """Delete documents from both stores."""
    with connected() as (settings, running), Publisher(running.bootstrap_servers, settings) as publisher:
        deleted = [publisher.delete(document_id) for document_id in ids]
    if as_json:
        print_json([vars(one) for one in deleted])
    else:
        out.print(f"Deleting {len(deleted)} documents; `aegis status ID` tells when it is done.")


def status(
    document_id: Annotated[str | None, typer.Argument(help="A document; without it, the latest documents.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until interrupted.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    stuck: Annotated[
        bool, typer.Option("--stuck", help="Only documents without progress, and what waits where.")
    ] = False,
    older_than: Annotated[float, typer.Option(min=0, help="Seconds without progress that count as stuck.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Where documents are."""
    with connected() as (settings, running), api_client(settings, running, timeout=30) as client:
        while True:
            if stuck:
                found = _get(client, "/api/v1/stuck", limit=limit, older_than=older_than)
            elif document_id is None:
                found = _get(client, "/api/v1/documents", limit=limit)
            else:
                found = _get(client, f"/api/v1/documents/{document_id}")
            if as_json:
                print_json(found)
            else:
                out.print(_stuck_table(found) if stuck else _status_table(found))
            if not watch:
                return
            time.sleep(1)


def search(
    query: str,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    mode: Annotated[str, typer.Option(help="auto, hybrid, vector, keyword or graph.")] = "auto",
    filter_: Annotated[
        str | None, typer.Option("--filter", help='JSON, such as \'{"metadata.year": {"$gte": 2020}}\'.')
    ] = None,
    offset: Annotated[int, typer.Option(min=0, max=999, help="Hits to leave out.")] = 0,
    window: Annotated[int | None, typer.Option(min=1, max=1000, help="Length of the ranking; see --offset.")] = None,
    mmr: Annotated[float | None, typer.Option(min=0, max=1, help="1 is relevance alone, 0 novelty alone.")] = None,
    per_document: Annotated[int | None, typer.Option(min=1, max=100, help="Hits of a document at most.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Every stage's ranks, scores and time.")] = False,
    why: Annotated[str | None, typer.Option(help="A document: why it is, or is not, among the hits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search the indexed documents."""
    asked = {
        "query": query,
        "limit": limit,
        "mode": mode,
        "filter": _parsed(filter_),
        "offset": offset,
        "window": window,
        "mmr": mmr,
        "explain": explain,
        "explain_document": why,
        **({"group_by": "document", "group_size": per_document} if per_document else {}),
    }
    with connected() as (settings, running), api_client(settings, running, timeout=60) as client:
        response = client.post("/api/v1/search", json=asked)
        response.raise_for_status()
    if as_json:
        print_json(response.json())
    else:
        _print_hits(response.json())


def _parsed(filter_: str | None) -> Any:
    try:
        return None if filter_ is None else json.loads(filter_)
    except ValueError as error:
        fail(f"--filter is no JSON: {error}", status=2)


def _print_hits(answer: dict[str, Any]) -> None:
    for hit in answer["hits"]:
        where = " › ".join([hit["document_id"], *hit["headings"]])
        out.print(f"[bold]{hit['rank']}. {escape(where)}[/]  [dim]{hit['score']:.4f}[/]")
        if answer["stages"]:
            places = (f"{name} {score:.4f} (#{hit['ranks'].get(name, '–')})" for name, score in hit["scores"].items())
            out.print(f"   [dim]{escape(', '.join(places))}[/]")
        out.print(f"   {' '.join(hit['text'].split())[:300]}\n", markup=False)
    for stage in answer["stages"] or ():
        counts = ", ".join(f"{name} {count}" for name, count in stage["candidates"].items() if count)
        out.print(f"{stage['stage']:<9}{stage['ms']:>9.1f} ms  {counts}", markup=False)
    if answer["document"]:
        found = answer["document"]
        missing = f" It lacks: {', '.join(found['missing_terms'])}." if found["missing_terms"] else ""
        out.print(f"{found['document_id']}: {found['reason']}: {found['detail']}.{missing}", markup=False)


def files_below(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Every regular file with its document id: the path below the folder given, or its name."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    yield file, file.relative_to(path).as_posix()
        elif path.is_file():
            yield path, path.name
        else:
            root = _root_of(path)
            for file in sorted(root.glob(path.relative_to(root).as_posix())) if path != root else ():
                if file.is_file():
                    yield file, file.relative_to(root).as_posix()


def _root_of(pattern: Path) -> Path:
    """The folder above a glob's first wildcard."""
    plain = itertools.takewhile(lambda part: not has_magic(part), pattern.parts)
    return Path(*plain)


def publish_files(
    publisher: Publisher, files: Sequence[tuple[Path, str]], settings: Settings, *, prefix: str = ""
) -> list[Published]:
    """Publish with a progress bar; unreadable files are named and left out."""
    published = []
    with progress_bar("documents") as progress:
        task = progress.add_task("Publishing", total=len(files))
        for file, name in files:
            try:
                content = file.read_bytes()
            except OSError as error:
                err.print(f"{file}: {error.strerror}; left out")
                continue
            finally:
                progress.advance(task)
            media_type = media_type_of(file.name, content[:4096])
            published.append(publisher.publish_file(f"{prefix}{name}", content, media_type=media_type, source=name))
    return published


def wait_for(
    bootstrap_servers: str,
    settings: Settings,
    published: Sequence[Published],
    *,
    timeout: float = 3600.0,
) -> dict[str, int]:
    """Follow documents until each is indexed, deleted or dead-lettered; the number in each state.

    Raises:
        TimeoutError: Some are not settled in time.
    """
    view = StatusView(
        bootstrap_servers,
        max_documents=max(settings.status.max_documents, len(published)),
        generation=settings.generation,
    )
    view.start()
    deadline = time.monotonic() + timeout
    try:
        with progress_bar("documents") as progress:
            task = progress.add_task("Indexing", total=len(published))
            while True:
                states = states_of(view, published)
                settled = sum(states.get(state, 0) for state in SETTLED)
                progress.update(task, completed=settled)
                if settled == len(published):
                    return states
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(published) - settled} documents are not settled after {timeout:g} s")
                time.sleep(max(0.2, len(published) / 500))  # looking must not cost what it looks at
    finally:
        view.stop()


def states_of(view: StatusView, published: Sequence[Published]) -> dict[str, int]:
    """Number of the published documents in each state; an older version's state does not count."""
    found: dict[str, int] = {}
    for one in published:
        known = view.get(one.document_id)
        state = known.state if known is not None and known.revision.version >= one.version else "processing"
        found[state] = found.get(state, 0) + 1
    return found


class _RateColumn(ProgressColumn):
    """Finished units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f}/s")


def progress_bar(unit: str) -> Progress:
    """Bar, count, rate, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


def _get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    response = client.get(path, params=parameters)
    response.raise_for_status()
    return response.json()


def _stuck_table(found: dict[str, Any]) -> Any:
    rows = [
        (
            one["document_id"],
            one["state"],
            one["stage"],
            seconds(time.time() - one["since"]),
            "nothing unread" if one["topic"] is None else f"{one['topic']}/{one['partition']}/{one['offset']}",
            one["error"] or "",
        )
        for one in found["documents"]
    ]
    return table(["document", "state", "waits for", "no progress for", "unread record", "error"], rows)


def _status_table(found: dict[str, Any]) -> Any:
    if "documents" in found:
        rows = [(one["document_id"], one["version"], one["state"], one["error"] or "") for one in found["documents"]]
        return table(["document", "version", "state", "error"], rows, title=str(found.get("counts", "")))
    rows = [
        (stage, record["state"], record["version"], time.strftime("%H:%M:%S", time.localtime(record["at"])))
        for stage, record in found["stages"].items()
    ]
    return table(["stage", "state", "version", "at"], rows, title=f"{found['document_id']}: {found['state']}")
