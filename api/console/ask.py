"""Ask, read along, and see every citation in the text it is taken from."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from api.console.client import ApiError, Client
from api.console.frame import heading, page, told

_MAX_QUESTION = 4096
_MARK = re.compile(r"\s*\[\d+\]")


def install() -> None:
    """Serve the page."""
    page("/ask", _build)


async def _build(client: Client, _: Request) -> None:
    async def ask() -> None:
        question = asked.value.strip()
        if not question:
            return
        button.disable()
        answer.clear()
        try:
            with told(), answer:
                await _answer(client, question)
        finally:
            button.enable()

    asked = ui.textarea("Question").props(f"autogrow outlined maxlength={_MAX_QUESTION}").classes("w-full")
    asked.on("keydown.ctrl.enter", ask)
    button = ui.button("Ask", icon="send", on_click=ask).props("no-caps")
    answer = ui.column().classes("w-full gap-3")


async def _answer(client: Client, question: str) -> None:
    words = ui.label().classes("words answer").props("aria-live=polite")
    place = ui.column().classes("w-full gap-2")
    spinner = ui.spinner()
    async for name, body in client.events("/api/v1/chat/stream", {"question": question}):
        if name == "message":
            words.set_text(words.text + body["text"])
        elif name == "error":
            raise ApiError(body["detail"], body["status"])
        elif name == "final_answer":
            words.delete()
            with place:
                _show(body)
    spinner.delete()


def _show(answer: dict[str, Any]) -> None:
    with ui.element("p").classes("answer").props("aria-live=polite"):
        for claim in answer["claims"]:
            ui.label(_words(claim["text"])).classes("run words")
            for number in claim["citations"]:
                ui.link(f"[{number}]", f"#source-{number}").props(f'aria-label="Source {number}"').classes("cite")
    ui.label(f"{answer['outcome']} · {answer['timings']['total_ms']:.0f} ms").classes("soft")
    for note in answer["notes"]:
        ui.label(note).classes("soft words")
    heading("Sources")
    for source in answer["sources"]:
        cited = [one for one in answer["citations"] if one["number"] == source["number"]]
        _show_source(source, cited)


def _words(claim: str) -> str:
    """A claim without its marks, which become links; a quotation of a list stands on its own line."""
    plain = _MARK.sub("", claim)
    return f"\n• {plain[2:]} " if plain.startswith("- ") else f"{plain} "


def _show_source(source: dict[str, Any], citations: list[dict[str, Any]]) -> None:
    with ui.card().classes("w-full q-pa-sm gap-1").props(f"id=source-{source['number']} tabindex=-1"):
        with ui.row().classes("items-center gap-2"):
            ui.badge(str(source["number"]))
            ui.link(
                source["title"] or source["document_id"], f"/documents?id={quote(source['document_id'], safe='')}"
            ).classes("words")
        with ui.element("p"):
            for text, is_cited in runs(source["text"], [(c["start"], c["end"]) for c in citations], source["start"]):
                with ui.element("mark" if is_cited else "span"):
                    ui.label(text).classes("run words")


def runs(text: str, spans: list[tuple[int, int]], offset: int) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is cited; spans are of the document, ``offset`` is the text's in it."""
    place = 0
    for start, end in sorted(spans):
        begin, stop = max(start - offset, place), min(end - offset, len(text))
        if begin < stop:
            yield text[place:begin], False
            yield text[begin:stop], True
            place = stop
    yield text[place:], False
