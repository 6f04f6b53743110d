"""`aegis demo`: the main job from end to end, on real files, with a verdict on each step."""

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.commands.documents import files_below, publish_files, states_of
from deploy.commands.output import api_client, err, fail, load_settings, out, print_json, reported, table
from deploy.local.system import System, started
from schemas.records import STAGES, DocumentRecord, StageName
from schemas.settings import Settings
from schemas.status import SETTLED, DocumentStatus
from streams.dead_letters import DeadLetters
from streams.lag import LagMeter
from streams.publisher import Published, Publisher
from streams.status import StatusView

CORPUS = Path(__file__).parents[1] / "corpus"
QUESTIONS = CORPUS.with_name("corpus_questions.json")


@dataclass
class Report:
    """What the demo saw; ``problems`` is empty when everything was as promised."""

    corpus: str
    published: int = 0
    states: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    update: str = ""
    delete: str = ""
    lag: dict[str, int | None] = field(default_factory=dict)
    api_url: str = ""
    problems: list[str] = field(default_factory=list)

    def require(self, promise: bool, otherwise: str) -> None:
        """Note a broken promise."""
        if not promise:
            self.problems.append(otherwise)


def demo(
    path: Annotated[Path | None, typer.Argument(help="A folder of documents; by default the shipped corpus.")] = None,
    question: Annotated[list[str] | None, typer.Option(help="Ask this; may be repeated.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write what was seen as JSON.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds the corpus may take.")] = 3600.0,
) -> None:
    """Start everything in a temporary folder and show the whole way of a corpus of documents."""
    files = list(files_below([path or CORPUS]))
    if not files:
        fail(f"no files in {path}")
    folder = Path(tempfile.mkdtemp(prefix="aegis-demo-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave the way that cleans up
    settings = _of_its_own(load_settings(), folder)
    seen = Report(corpus=str(path or "shipped"))
    begun = time.monotonic()
    try:
        with reported(), started(settings, say=lambda line: err.print(f"[dim]{line}[/]")) as system:
            system.wait_until_ready()
            seen.seconds["start"] = round(time.monotonic() - begun, 1)
            seen.api_url = system.running.api_url
            questions = question or (_shipped_questions() if path is None else _questions_of(files))
            _show(system, settings, files, questions, seen, timeout=timeout)
            seen.seconds["all"] = round(time.monotonic() - begun, 1)
            _write(report, seen)
            if keep:
                _keep_running(system, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for problem in seen.problems:
        err.print(f"[red]✗[/] {escape(problem)}")
    if seen.problems:
        raise typer.Exit(1)
    out.print(f"[green]✓[/] Everything as promised, in {seen.seconds['all']:.0f} s.")


def _of_its_own(settings: Settings, folder: Path) -> Settings:
    """The demo never touches a system that the environment names: its own broker, stores, blobs and port."""
    return settings.model_copy(
        update={
            "data_dir": folder,
            "blob_url": "",
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": "", "security_protocol": "PLAINTEXT"}),
            "vectors": settings.vectors.model_copy(update={"url": ""}),
            "api": settings.api.model_copy(update={"host": "127.0.0.1", "port": 0}),
            "local": settings.local.model_copy(update={"broker_port": 0}),
        }
    )


def _write(report: Path | None, seen: Report) -> None:
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        with report.open("w") as file:
            print_json(vars(seen), file)


def _show(
    system: System,
    settings: Settings,
    files: Sequence[tuple[Path, str]],
    questions: Sequence[str],
    seen: Report,
    *,
    timeout: float,
) -> None:
    servers = system.running.bootstrap_servers
    view = StatusView(
        servers, max_documents=max(settings.status.max_documents, len(files) * 2), generation=settings.generation
    )
    view.start()
    try:
        with (
            Publisher(servers, settings) as publisher,
            api_client(settings, system.running, timeout=60) as client,
        ):
            _ingest(publisher, view, settings, files, seen, timeout=timeout)
            _show_dead_letters(servers, settings, seen)
            _ask(client, questions, seen)
            _update_and_delete(publisher, view, client, seen)
        _show_lag(servers, settings, seen)
    finally:
        view.stop()


def _ingest(
    publisher: Publisher,
    view: StatusView,
    settings: Settings,
    files: Sequence[tuple[Path, str]],
    seen: Report,
    *,
    timeout: float,
) -> None:
    begun = time.monotonic()
    published = publish_files(publisher, files, settings)
    publisher.flush()
    seen.published = len(published)
    seen.states = _follow(view, published, timeout=timeout)
    seen.seconds["ingest"] = round(time.monotonic() - begun, 1)
    ended = sum(seen.states.get(state, 0) for state in SETTLED)
    seen.require(ended == len(files), f"{len(files)} files, but only {ended} indexed or dead-lettered: {seen.states}")
    words = ", ".join(f"{count} {state}" for state, count in seen.states.items())
    out.print(f"\n[bold]{len(published)} documents[/] in {seen.seconds['ingest']} s: {words}")


def _follow(view: StatusView, published: Sequence[Published], *, timeout: float) -> dict[str, int]:
    """A bar per stage until every document is settled."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    deadline = time.monotonic() + timeout
    with Progress(*columns, console=err) as progress:
        bars = {stage: progress.add_task(stage, total=len(published)) for stage in STAGES}
        while True:
            statuses = [view.get(one.document_id) for one in published]
            known = [one for one in statuses if one is not None]
            for stage, bar in bars.items():
                progress.update(bar, completed=sum(_has_passed(status, stage) for status in known))
            states = states_of(view, published)
            if states.keys() <= set(SETTLED) or time.monotonic() > deadline:
                return states
            time.sleep(max(0.2, len(published) / 500))  # looking must not cost what it looks at


def _has_passed(status: DocumentStatus, stage: StageName) -> bool:
    return stage in status.current or status.state == "dead-lettered"


def _show_dead_letters(servers: str, settings: Settings, seen: Report) -> None:
    letters = DeadLetters(servers, generation=settings.generation).find()
    seen.dead_letters = [letter.model_dump() for letter in letters]
    failed = {letter.document_id for letter in letters}
    dead = seen.states.get("dead-lettered", 0)
    seen.require(len(failed) == dead, f"{dead} documents are dead-lettered, but {len(failed)} have dead letters")
    seen.require(all(letter.error for letter in letters), "a dead letter has no reason")
    rows = [(letter.document_id, letter.stage, letter.error[:110]) for letter in letters[:10]]
    if rows:
        out.print(table(["dead letter", "stage", "reason"], rows))
    if len(letters) > len(rows):
        out.print(f"… and {len(letters) - len(rows)} more (see --report)")


def _ask(client: httpx.Client, questions: Sequence[str], seen: Report) -> None:
    for question in questions:
        found = _search(client, question)
        seen.require(bool(found["hits"]), f"nothing was found for {question!r}")
        seen.answers.append({"question": question, "took_ms": found["took_ms"], "hits": found["hits"][:2]})
        out.print(f"\n[bold]{escape(question)}[/]  [dim]{found['took_ms']:.0f} ms[/]")
        for hit in found["hits"][:2]:
            out.print(f"  {hit['rank']}. {hit['document_id']}", style="dim", markup=False)
            out.print(f"     {' '.join(hit['text'].split())[:300]}", markup=False)


def _update_and_delete(publisher: Publisher, view: StatusView, client: httpx.Client, seen: Report) -> None:
    """A document of the demo's own, so that any corpus is left as it is."""
    word_before, word_after = "Quellwolkenturm", "Nebelschaltwerk"
    question = "What is the demonstration's code word?"
    for word in (word_before, word_after):
        text = f"The demonstration's code word is {word}."
        one = publisher.publish(DocumentRecord(document_id="aegis-demo/code-word", text=text, title="Code word"))
        publisher.flush()
        seen.require(_settled(view, one), f"the code word {word} was not indexed in time")
        hits = [hit for hit in _search(client, question, limit=50)["hits"] if hit["document_id"] == one.document_id]
        seen.require([hit["text"] for hit in hits] == [text], f"search should find {word} alone, found {hits}")
    gone = publisher.delete("aegis-demo/code-word")
    publisher.flush()
    seen.require(_settled(view, gone), "the delete was not done in time")
    hits = [hit for hit in _search(client, question, limit=50)["hits"] if hit["document_id"] == gone.document_id]
    seen.require(not hits, "the deleted document is still found")
    seen.update = f"{word_before} → {word_after}"
    seen.delete = "gone from both stores"
    out.print(f"\nUpdate: {seen.update}, the old text no longer found.  Delete: {seen.delete}.")


def _settled(view: StatusView, one: Published, *, timeout: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        known = view.get(one.document_id)
        if known and known.revision.version >= one.version and known.state in SETTLED:
            return True
        time.sleep(0.05)
    return False


def _show_lag(servers: str, settings: Settings, seen: Report) -> None:
    meter, deadline = LagMeter(servers, generation=settings.generation), time.monotonic() + 15
    while True:
        groups = meter.measure()
        seen.lag = {group.group: group.records for group in groups}
        if not any(seen.lag.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    seen.require(all(records == 0 for records in seen.lag.values()), f"lag is left: {seen.lag}")
    out.print(f"Lag: {', '.join(f'{group} {records}' for group, records in seen.lag.items())}\n")


def _search(client: httpx.Client, question: str, *, limit: int = 5) -> dict[str, Any]:
    response = client.post("/api/v1/search", json={"query": question, "limit": limit})
    response.raise_for_status()
    found: dict[str, Any] = response.json()
    return found


def _shipped_questions() -> list[str]:
    """Three of the shipped corpus's questions, the last of them German."""
    questions = [one["question"] for one in json.loads(QUESTIONS.read_text())]
    return [questions[0], questions[3], questions[-1]]


def _questions_of(files: Sequence[tuple[Path, str]]) -> list[str]:
    """For a corpus we know nothing of: the names of three of its files."""
    chosen = files[:: max(1, len(files) // 3)][:3]
    return [Path(name).stem.replace("-", " ").replace("_", " ") for _, name in chosen]


def _keep_running(system: System, folder: Path) -> None:
    out.print(f"Running: API {system.running.api_url}, Kafka {system.running.bootstrap_servers}.")
    out.print(f"In another terminal: AEGIS_DATA_DIR={folder} aegis status.  Ctrl-C stops and removes it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        out.print("Stopping.")
