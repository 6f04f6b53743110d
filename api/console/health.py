"""What this server stands on, and what it takes."""

import json
from typing import Any

from fastapi import Request
from nicegui import ui

from api.console.client import Client
from api.console.frame import changing, heading, page, repeat

_LIVE, _SLOW = 5.0, 600.0


def install() -> None:
    """Serve the page."""
    page("/health", _build)


async def _build(client: Client, _: Request) -> None:
    parts = changing(_show_parts)
    heading("Formats")
    formats = changing(_show_formats)

    async def live() -> None:
        parts(await client.get("/health"))

    async def once() -> None:
        formats(await client.get("/api/v1/formats"))

    repeat(_LIVE, live)
    repeat(_SLOW, once)
    heading("Settings")
    ui.label("The command aegis check --settings prints every setting, and where its value comes from.").classes("soft")


def _show_parts(health: dict[str, Any]) -> None:
    _part("Broker", health["broker"])
    _part("Index", health["index"])
    for stage, one in health["stages"].items():
        _part(f"Stage {stage}", one)
    for reason in health["reasons"]:
        ui.label(reason).classes("text-negative words")


def _show_formats(formats: dict[str, list[str]]) -> None:
    ui.label(", ".join(sorted({end for ends in formats.values() for end in ends}))).classes("words")


def _part(name: str, facts: dict[str, Any]) -> None:
    with ui.card().classes("w-full q-pa-sm gap-1"):
        with ui.row().classes("w-full items-center justify-between"):
            heading(name)
            ready = bool(facts.get("ready"))
            ui.badge("ready" if ready else "not ready", color="positive" if ready else "negative")
        rest = {key: value for key, value in facts.items() if key != "ready" and value is not None}
        ui.label(" · ".join(f"{key.replace('_', ' ')}: {_shown(value)}" for key, value in rest.items())).classes(
            "soft words"
        )


def _shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
