"""`aegis ask`: a question, and the answer as it is being written."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from deploy.commands.output import AsJson, api_client, connected, err, fail, out, print_json

_TIMEOUT = 330.0  # the longest budget, and some
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def ask(
    question: str,
    session: Annotated[str | None, typer.Option(help="A conversation to go on with, or to begin.")] = None,
    quote: Annotated[bool, typer.Option("--quote", help="Quote, even where a language model is set.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=20, help="Passages the answer may stand on.")] = 6,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the indexed documents, with sources."""
    body: dict[str, Any] = {"question": question, "generate": not quote, "search": {"limit": limit}}
    if session:
        body["session_id"] = session
    with connected() as (settings, running), api_client(settings, running, timeout=_TIMEOUT) as client:
        if as_json:
            response = client.post("/api/v1/chat/", json=body)
            response.raise_for_status()
            print_json(response.json())
            return
        for name, event in _events(client, body):
            if name == "message":
                _say(event)
            elif name == "error":
                out.print()
                fail(event["detail"])
            elif name == "final_answer":
                _finish(event)


def _events(client: httpx.Client, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    with client.stream("POST", "/api/v1/chat/stream", json=body) as response:
        if response.is_error:
            response.read()
        response.raise_for_status()
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def _say(event: dict[str, Any]) -> None:
    """What has no source is dim and marked."""
    doubtful = event["unsupported"] is not None
    out.print(Text(_plain(event["text"]), style="dim" if doubtful else ""), end="")
    if doubtful:
        out.print(Text("(?) ", style="yellow"), end="")


def _finish(answer: dict[str, Any]) -> None:
    out.print("\n")
    sources = {source["number"]: source for source in answer["sources"]}
    for number in dict.fromkeys(citation["number"] for citation in answer["citations"]):
        quotes = [citation for citation in answer["citations"] if citation["number"] == number]
        out.print(Text(f"[{number}] {_plain(sources[number]['document_id'])}", style="bold"))
        for quote in quotes:
            text = " ".join(_plain(quote["quote"]).split())
            out.print(Text(f"    {quote['start']}–{quote['end']}  {text[:200]}", style="dim"))
    for note in answer["notes"]:
        err.print(Text(_plain(note), style="yellow"))
    how = answer["outcome"] + (f" by {answer['model']}" if answer["model"] else "") + ", cached" * answer["cached"]
    lags = [lag for lag in answer["freshness"]["lag_seconds"].values() if lag is not None]
    fresh = f", index {max(lags):.0f} s behind" if lags else ""
    out.print(
        Text(
            f"{how}; {answer['timings']['total_ms'] / 1000:.1f} s{fresh}; --session {answer['session_id']}", style="dim"
        )
    )


def _plain(text: str) -> str:
    """Without characters that would steer the terminal: documents are other people's."""
    return _CONTROL.sub("", text)
