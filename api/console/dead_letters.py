"""Dead letters by reason: look at the records, replay them once mended, or drop them; both say first what they do."""

from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import Any

from fastapi import Request
from nicegui import ui

from api.console.client import Client
from api.console.frame import at, badge, changing, heading, page, repeat, told, window

_LIVE = 10.0
_LISTED = 1000  # the most that the API lists, or takes ids of, at once
_SHOWN = 20
_DLQ = "/api/v1/dlq"
Letter = dict[str, Any]
Refresh = Callable[[], Awaitable[None]]


def install() -> None:
    """Serve the page."""
    page("/dead-letters", _build)


async def _build(client: Client, _: Request) -> None:
    async def live() -> None:
        show(await client.get(_DLQ, limit=_LISTED))

    def draw(found: dict[str, Any]) -> None:
        if not found["total"]:
            ui.label("None: everything that was published is read.").classes("soft")
        if found["total"] > _LISTED:
            ui.label(f"The oldest {_LISTED:,} of {found['total']:,}.").classes("soft")
        for letters in _by_reason(found["dead_letters"]):
            _show_group(client, letters, live)

    show = changing(draw)
    repeat(_LIVE, live)


def _by_reason(letters: list[Letter]) -> list[list[Letter]]:
    def reason(letter: Letter) -> tuple[str, str, str]:
        return letter["stage"], letter["error_class"], letter["error"]

    groups = [list(group) for _, group in groupby(sorted(letters, key=reason), key=reason)]
    return sorted(groups, key=len, reverse=True)


def _show_group(client: Client, letters: list[Letter], refresh: Refresh) -> None:
    first = letters[0]
    with ui.card().classes("w-full q-pa-sm gap-2"):
        with ui.row().classes("items-center gap-2"):
            ui.label(f"{len(letters):,} ×").classes("figure")
            badge(first["stage"])
            ui.label(f"{first['error_class']} · {at(first['dead_lettered_at'])}").classes("soft words")
        ui.label(first["error"]).classes("words")
        with ui.row().classes("gap-2"):
            for verb, icon in (("replay", "replay"), ("drop", "delete")):
                ui.button(
                    f"{verb.capitalize()}…",
                    icon=icon,
                    on_click=lambda verb=verb: _dry_run(client, verb, letters, refresh),
                ).props("outline no-caps")
        with ui.element("ul").classes("list"):
            for letter in letters[:_SHOWN]:
                with ui.element("li"):
                    ui.button(
                        letter["document_id"] or letter["id"], on_click=lambda id_=letter["id"]: _look(client, id_)
                    ).props("flat dense no-caps align=left").classes("words")
                    ui.label(f"{letter['id']} · {at(letter['dead_lettered_at'])}").classes("soft")
        if len(letters) > _SHOWN:
            ui.label(f"and {len(letters) - _SHOWN:,} more").classes("soft")


async def _look(client: Client, letter_id: str) -> None:
    with told():
        found = await client.get(f"{_DLQ}/{letter_id}")
        with window(letter_id) as dialog:
            ui.label(f"from {found['dead_letter']['source']}").classes("soft words")
            heading(f"Value ({found['value_bytes']:,} bytes)")
            ui.label(found["value"]).classes("mono")
            heading("Headers")
            for name, value in found["headers"].items():
                ui.label(f"{name}: {value}").classes("mono")
            ui.button("Close", on_click=dialog.close).props("flat autofocus")


async def _dry_run(client: Client, verb: str, letters: list[Letter], refresh: Refresh) -> None:
    """Ask the API what it would do, show it, and do it when told to."""
    chosen = {"ids": [letter["id"] for letter in letters]}

    async def resolve() -> None:
        with told():
            done = (await client.post(f"{_DLQ}/{verb}", chosen))["dead_letters"]
            ui.notify(f"{verb}: {len(done):,} done", type="positive")
            dialog.close()
            await refresh()

    with told():
        would = (await client.post(f"{_DLQ}/{verb}", chosen | {"dry_run": True}))["dead_letters"]
        with window(f"{verb.capitalize()} {len(would):,} of {len(letters):,}?") as dialog:
            ui.label(
                "They go back to the stage they failed in." if verb == "replay" else "They are given up for good."
            ).classes("soft")
            for letter in would[:_SHOWN]:
                ui.label(f"{letter['id']}  {letter['document_id'] or ''}").classes("mono")
            with ui.row().classes("w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).props("flat autofocus")
                ui.button(verb.capitalize(), color="negative" if verb == "drop" else "primary", on_click=resolve)
