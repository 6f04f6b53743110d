"""What all pages share: the header with links, the access key, dark mode, and how errors and times are told."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fastapi import Request
from nicegui import app, ui

from api.console.client import ApiError, Client

PAGES = {
    "/": "Overview",
    "/documents": "Documents",
    "/dead-letters": "Dead letters",
    "/ask": "Ask",
    "/graph": "Graph",
    "/health": "Health",
}
COLOURS = {
    "OK": "positive",
    "WARN": "warning",
    "ERR": "negative",
    "STOP": "negative",
    "STALL": "negative",
    "REWIND": "warning",
    "indexed": "positive",
    "searchable": "primary",
    "processing": "primary",
    "retrying": "warning",
    "dead-lettered": "negative",
    "deleted": "grey-7",
}
STYLE = """
:root { --nicegui-default-padding: 1rem; --edge: #0000001f; --soft: #5b6270; --back: #f4f5f7; --card: #fff; }
body.body--dark { --edge: #ffffff2b; --soft: #a3abba; --back: #121417; --card: #1d2025; }
body { background: var(--back); }
.nicegui-content { max-width: 76rem; margin: 0 auto; align-items: stretch; }
.q-header { background: #1d2a44; }
.q-card { background: var(--card); border: 1px solid var(--edge); box-shadow: none; }
nav { display: flex; gap: .25rem; flex-wrap: wrap; }
nav a { color: #fff; padding: .35rem .7rem; border-radius: .4rem; text-decoration: none; white-space: nowrap; }
nav a[aria-current=page] { background: #ffffff33; font-weight: 600; }
:focus-visible { outline: 3px solid #f5a623 !important; outline-offset: 2px; }
h1, h2 { font-weight: 600; line-height: 1.2; margin: 0; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; }
.soft { color: var(--soft); font-size: .875rem; }
.words { overflow-wrap: anywhere; white-space: pre-wrap; }
.mono { font-family: ui-monospace, monospace; font-size: .8rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.figure { font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
mark { background: #ffd54f; color: #1a1a1a; border-radius: .2rem; padding: 0 .1rem; }
.run { display: inline; }
ul.list { list-style: none; margin: 0; padding: 0; width: 100%; }
ul.list li { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: center; padding: .5rem .25rem; }
ul.list li + li { border-top: 1px solid var(--edge); }
ul.list .q-btn__content { text-align: left; }
.tile { display: flex; flex-direction: column; align-items: center; gap: .25rem; padding: .5rem 1rem; color: inherit;
  background: var(--card); border: 1px solid var(--edge); border-radius: .25rem; text-decoration: none; }
.answer { font-size: 1.1rem; line-height: 1.6; }
.cite { vertical-align: super; font-size: .75rem; margin-right: .25rem; }
.chart { height: min(60vh, 30rem); }
body.body--dark main .nicegui-link:not(.tile) { color: #8ab4f8; }
body.body--dark .q-btn.text-primary { color: #8ab4f8 !important; }
.q-uploader { box-shadow: none; border: 1px dashed var(--edge); background: var(--card); }
.q-uploader__list { min-height: 4rem; }
.q-dialog .q-card.window { width: 50rem; max-width: 95vw; }
"""

T = TypeVar("T")
Build = Callable[[Client, Request], Awaitable[None]]


def page(path: str, build: Build) -> None:
    """Serve a page: the frame, and in it what ``build`` makes with a client that has the tab's key."""

    @ui.page(path, title=f"{PAGES[path]} · Aegis Streams")
    async def framed(request: Request) -> None:
        client = Client(request)
        ui.context.client.on_delete(client.close)
        ui.add_css(STYLE)
        ui.add_head_html('<meta name="color-scheme" content="light dark">')
        dark = _header(path)
        with ui.column().classes("w-full gap-4") as place:
            ui.label("Connecting…").classes("soft")
        await ui.context.client.connected()
        dark.value = app.storage.tab.get("dark")
        client.use_key(app.storage.tab.get("key", ""))
        dark.on_value_change(lambda change: app.storage.tab.update(dark=change.value))
        place.clear()
        with place:
            heading(PAGES[path], level=1)
            await build(client, request)


def heading(text: str, *, level: int = 2) -> None:
    """A heading that screen readers find."""
    with ui.element(f"h{level}"):
        ui.label(text)


def badge(text: str) -> None:
    """A state or verdict in its colour, and in words."""
    ui.badge(text, color=COLOURS.get(text, "grey-7"))


@contextmanager
def told() -> Iterator[None]:
    """Show what the API refuses; the page stays."""
    try:
        yield
    except ApiError as error:
        ui.notify(str(error), type="negative", multi_line=True, close_button="Close", timeout=8000)


def repeat(seconds: float, refresh: Callable[[], Awaitable[None]]) -> None:
    """Refresh now and again as long as the page is open; while the API refuses, a line says why."""
    wrong = ui.label().classes("text-negative words").props("role=status")
    running = False

    async def again() -> None:
        nonlocal running
        if running:
            return
        running = True
        try:
            await refresh()
            wrong.set_text("")
        except ApiError as error:
            wrong.set_text(str(error))
        finally:
            running = False

    ui.timer(seconds, again, immediate=True)


def changing(draw: Callable[[T], None]) -> Callable[[T], None]:
    """A place here that is drawn anew when what it shows has changed, and only then: the focus in it survives."""
    place = ui.column().classes("w-full gap-2")
    last: list[T] = []

    def show(shown: T) -> None:
        if last != [shown]:
            last[:] = [shown]
            place.clear()
            with place:
                draw(shown)

    return show


@contextmanager
def window(title: str) -> Iterator[ui.dialog]:
    """An open dialog of the page itself: it outlives the place whose button opened it."""
    with ui.context.client.content, ui.dialog(value=True) as dialog, ui.card().classes("window"):
        heading(title)
        yield dialog


def at(moment: float) -> str:
    """Seconds since the epoch as a date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def duration(seconds: float | None) -> str:
    """Seconds in the largest unit that fits."""
    if seconds is None:
        return "–"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 0):.1f} s"


def _header(path: str) -> ui.dark_mode:
    dark = ui.dark_mode(None)
    ui.colors(primary="#2b62c0", positive="#1a7f37", warning="#9a6700", negative="#c62828")
    with ui.header().classes("items-center q-py-xs gap-2 flex-wrap"):
        ui.label("Aegis Streams").classes("text-weight-bold")
        ui.space()
        ui.button("Access", icon="key", on_click=_ask_for_key).props("flat dense no-caps color=white")
        ui.button(icon="dark_mode", on_click=lambda: dark.set_value(not dark.value)).props(
            'flat dense round color=white aria-label="Switch dark mode"'
        )
        with ui.element("nav").props('aria-label="Pages"'):
            for target, title in PAGES.items():
                link = ui.link(title, target)
                if target == path:
                    link.props("aria-current=page")
    return dark


def _ask_for_key() -> None:
    def keep() -> None:
        app.storage.tab["key"] = entered.value.strip()
        ui.navigate.reload()

    with window("Access key") as dialog:
        ui.label("Sent with every request of this tab; kept in the server's memory, and gone with the tab.").classes(
            "soft"
        )
        entered = ui.input("Key", password=True, value=app.storage.tab.get("key", "")).classes("w-full")
        entered.props("autofocus autocomplete=off").on("keydown.enter", keep)
        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).props("flat")
            ui.button("Use it", on_click=keep)
