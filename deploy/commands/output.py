"""What commands print: tables for people, JSON for programs, errors in one sentence."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TextIO

import httpx
import typer
from confluent_kafka import KafkaException
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deploy.generations import in_effect
from deploy.running import NotRunningError, Running, find
from deploy.tracing import traced
from processors.errors import PipelineError
from schemas.settings import Settings, settings_from_environment
from streams.security import secure

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def load_settings() -> Settings:
    """The settings in effect, or exit with status 2 and what is wrong with them."""
    try:
        settings = in_effect(settings_from_environment())
    except ValueError as error:
        fail(f"settings: {error}", status=2)
    secure(settings.kafka)
    return settings


def fail(message: str, *, status: int = 1) -> NoReturn:
    """Say why on standard error and exit."""
    err.print(f"[red]aegis:[/] {escape(message)}")
    raise typer.Exit(status)


@contextmanager
def connected() -> Iterator[tuple[Settings, Running]]:
    """The settings and the system they name; what goes wrong inside is said in one sentence."""
    settings = load_settings()
    with reported(), traced("cli", os.environ):
        yield settings, find(settings)


def api_client(settings: Settings, running: Running, *, timeout: float) -> httpx.Client:
    """A client of the API that shows the key of the settings."""
    key = settings.access.key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    return httpx.Client(base_url=running.api_url, headers=headers, timeout=timeout)


@contextmanager
def reported() -> Iterator[None]:
    """Turn expected failures into one sentence and exit status 1."""
    try:
        yield
    except KafkaException as error:
        fail(f"the broker: {error.args[0].str() if hasattr(error.args[0], 'str') else error}")
    except httpx.HTTPStatusError as error:
        fail(_problem(error.response))
    except httpx.HTTPError as error:
        fail(f"the API does not answer: {error}")
    except (NotRunningError, PipelineError, LookupError, TimeoutError, ValueError, RuntimeError) as error:
        fail(str(error))


def print_json(value: object, file: TextIO | None = None) -> None:
    """Print models or plain values as JSON."""
    json.dump(value, file or sys.stdout, indent=2, default=_plain)
    (file or sys.stdout).write("\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> Table:
    """A table; numbers are aligned to the right."""
    made = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, cell in zip(made.columns, rows[0] if rows else (), strict=False):
        column.justify = "right" if isinstance(cell, int | float) else "left"
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text("–" if cell is None else str(cell)) for cell in row))
    return made


def seconds(value: float | None) -> str:
    """Seconds for people."""
    if value is None:
        return "unknown"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"


def _plain(value: object) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _problem(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the API answered {response.status_code}"
