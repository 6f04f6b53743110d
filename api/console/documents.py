"""Documents: upload them, find them by state, follow one through the stages, replace it, delete it."""

import json
from typing import Any
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from api.console.client import Client
from api.console.frame import COLOURS, at, badge, changing, heading, page, repeat, told, window

_LIVE = 2.0
_SHOWN = 100
_DOCUMENTS = "/api/v1/documents"
_STATES = ("processing", "searchable", "indexed", "retrying", "dead-lettered", "deleted")
_ANY = "any state"
_STAGES = ("chunk", "embed", "extract", "index-vectors", "index-graph")


def install() -> None:
    """Serve the page."""
    page("/documents", _build)


async def _build(client: Client, request: Request) -> None:
    chosen = request.query_params.get("id")
    await (_one(client, chosen) if chosen else _all(client, request.query_params.get("state")))


async def _all(client: Client, state: str | None) -> None:
    _upload(client, "Drop files here, or choose them with +")
    wanted = ui.select([_ANY, *_STATES], label="State", value=state if state in _STATES else _ANY).classes("w-48")
    found = changing(_show_list)

    async def live() -> None:
        only = {} if wanted.value == _ANY else {"state": wanted.value}
        found((await client.get(_DOCUMENTS, limit=_SHOWN, **only))["documents"])

    repeat(_LIVE, live)
    wanted.on_value_change(live)


def _show_list(documents: list[dict[str, Any]]) -> None:
    if not documents:
        ui.label("None.").classes("soft")
    with ui.element("ul").classes("list"):
        for document in documents:
            with ui.element("li"):
                ui.link(document["document_id"], f"/documents?id={quote(document['document_id'], safe='')}").classes(
                    "words"
                )
                badge(document["state"])
                if document["error"]:
                    ui.label(document["error"]).classes("soft words w-full")


async def _one(client: Client, document_id: str) -> None:
    path = f"{_DOCUMENTS}/{quote(document_id, safe='')}"
    ui.link("← All documents", "/documents")
    ui.label(document_id).classes("figure words")
    timeline = changing(_show_timeline)

    async def live() -> None:
        timeline(await client.get(path))

    repeat(_LIVE, live)
    heading("Republish")
    _upload(client, "Drop the file that replaces it", document_id)
    ui.button("Delete…", icon="delete", color="negative", on_click=lambda: _confirm_delete(client, document_id, path))


def _show_timeline(document: dict[str, Any]) -> None:
    with ui.row().classes("items-center gap-2"):
        badge(document["state"])
        ui.label(f"version {document['version']}").classes("soft")
        if document["state"] == "dead-lettered":
            ui.link("Dead letters: replay or drop", "/dead-letters")
    if document["error"]:
        ui.label(document["error"]).classes("text-negative words")
    with ui.timeline(side="right", layout="dense"):
        for stage in _STAGES:
            _show_stage(stage, document["stages"].get(stage), document["version"])


def _show_stage(stage: str, status: dict[str, Any] | None, version: int) -> None:
    if status is None or status["version"] != version:
        ui.timeline_entry(title=stage, subtitle="not yet", color="grey-6")
        return
    colour = COLOURS.get(status["state"], "positive")
    with ui.timeline_entry(title=stage, subtitle=f"{status['state']} · {at(status['at'])}", color=colour):
        if status["chunk_count"] is not None:
            ui.label(f"{status['chunk_count']} chunks").classes("soft")
        if status["error"]:
            ui.label(status["error"]).classes("text-negative words")


def _upload(client: Client, label: str, document_id: str | None = None) -> None:
    """The browser sends files to the API itself, with the tab's key: they pass through nothing else."""
    upload = ui.upload(label=label, multiple=document_id is None, auto_upload=True).classes("w-full")
    upload.props["url"] = f"..{_DOCUMENTS}"
    upload.props["field-name"] = "file"
    upload.props["headers"] = [{"name": name, "value": value} for name, value in client.credentials.items()]
    if document_id is not None:
        upload.props["form-fields"] = [{"name": "document_id", "value": document_id}]
    upload.props["aria-label"] = label
    answered = "(files) => emit(files.files.map(file => file.name), files.xhr.status, files.xhr.responseText)"
    upload.on("uploaded", lambda event: _notify(*event.args), js_handler=answered)
    upload.on("failed", lambda event: _notify(*event.args), js_handler=answered)


def _notify(names: list[str], status: int, body: str) -> None:
    try:
        told_by_api = json.loads(body)
    except ValueError:
        told_by_api = {}
    if status == 202:
        ui.notify(f"{', '.join(names)}: accepted as {told_by_api.get('document_id')}", type="positive")
    else:
        ui.notify(f"{', '.join(names)}: {told_by_api.get('detail', 'not sent')} ({status})", type="negative")


def _confirm_delete(client: Client, document_id: str, path: str) -> None:
    async def delete() -> None:
        with told():
            await client.delete(path)
            ui.notify("It is being removed from both stores.", type="positive")
        dialog.close()

    with window("Delete this document?") as dialog:
        ui.label(document_id).classes("words")
        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).props("flat autofocus")
            ui.button("Delete", color="negative", on_click=delete)
