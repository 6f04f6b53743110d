"""Is it well, what is slow, what is stuck: the flow of the stages, documents by state, dead letters."""

from typing import Any

from fastapi import Request
from nicegui import ui

from api.console.client import Client
from api.console.frame import COLOURS, at, badge, changing, duration, heading, page, repeat

_LIVE, _SLOW = 2.0, 15.0  # dead letters and stuck documents are read from topics
_FLOW = (("chunk",), ("embed", "extract"), ("index-vectors", "index-graph"))
_OLD = 60


class StageCard:
    """One stage: how far behind, how fast, how well."""

    def __init__(self, stage: str) -> None:
        with ui.card().classes("w-full gap-1 q-pa-sm").props(f'role=group aria-label="{stage}"'):
            with ui.row().classes("w-full items-center justify-between no-wrap"):
                heading(stage)
                self._verdict = ui.badge("…", color="grey-7")
            self._lag = ui.label("–").classes("figure")
            self._rest = ui.label(" ").classes("soft")

    def show(self, group: dict[str, Any]) -> None:
        """A measurement, as the API gives it."""
        self._verdict.set_text(group["verdict"])
        self._verdict.props(f"color={COLOURS.get(group['verdict'], 'grey-7')}")
        self._lag.set_text(f"{duration(group['seconds'])} behind")
        records = "–" if group["records"] is None else f"{group['records']:,}"
        rate = group["records_per_second"]
        rest = [f"{records} records", "rate –" if rate is None else f"{rate:.1f}/s", f"{group['members']} workers"]
        if group["eta_seconds"]:
            rest.append(f"done in {duration(group['eta_seconds'])}")
        self._rest.set_text(" · ".join(rest))


def install() -> None:
    """Serve the page."""
    page("/", _build)


async def _build(client: Client, _: Request) -> None:
    health = changing(_show_health)
    stages: dict[str, StageCard] = {}
    with ui.row().classes("w-full items-center gap-2"):
        for number, column in enumerate(_FLOW):
            if number:
                ui.icon("arrow_forward", size="sm").classes("soft gt-xs")
            with ui.column().classes("col-12 col-sm gap-2"):
                stages |= {stage: StageCard(stage) for stage in column}
    heading("Documents")
    counts = changing(_show_counts)
    heading("Dead letters")
    dead = changing(_show_dead)
    heading("Stuck")
    stuck = changing(_show_stuck)

    async def live() -> None:
        for group in await client.get("/api/v1/lag"):
            stages[group["stage"]].show(group)
        health(await client.get("/health"))
        counts((await client.get("/api/v1/documents", limit=1))["counts"])

    async def slow() -> None:
        dead(await client.get("/api/v1/dlq", limit=1))
        stuck((await client.get("/api/v1/stuck", older_than=_OLD, limit=10))["documents"])

    repeat(_LIVE, live)
    repeat(_SLOW, slow)


def _show_health(health: dict[str, Any]) -> None:
    with ui.row().classes("items-center gap-2").props("role=status"):
        ui.badge("ready" if health["ready"] else "not ready", color="positive" if health["ready"] else "negative")
        chunks = health["index"]["chunks"]
        ui.label("; ".join(health["reasons"]) or f"{chunks:,} chunks are searchable").classes("words")


def _show_counts(counts: dict[str, int]) -> None:
    if not counts:
        ui.label("None yet. Upload one under Documents.").classes("soft")
    with ui.row().classes("w-full gap-2"):
        for state, count in counts.items():
            with ui.link(target=f"/documents?state={state}").classes("tile"):
                ui.label(f"{count:,}").classes("figure")
                badge(state)


def _show_dead(dead: dict[str, Any]) -> None:
    if not dead["total"]:
        ui.label("None.").classes("soft")
        return
    ui.link(f"{dead['total']:,} to look at", "/dead-letters")
    for group in dead["groups"][:3]:
        ui.label(f"{group['count']:,} × {group['stage']}: {group['error']}").classes("words")


def _show_stuck(stuck: list[dict[str, Any]]) -> None:
    if not stuck:
        ui.label(f"No document is without progress for more than {_OLD} s.").classes("soft")
    for one in stuck:
        where = "" if one["topic"] is None else f", unread at {one['topic']}/{one['partition']}/{one['offset']}"
        ui.label(f"{one['document_id']} waits for {one['stage']} since {at(one['since'])}{where}").classes("words")
