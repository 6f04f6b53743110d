"""`make soak-history`: long histories on both graphs, a report, and exit status 1 if one ends as it must not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.history.drawn import drawn
from tests.history.run import as_json, run_history

GRAPHS = ("ladybug", "neo4j")


def main(  # noqa: PLR0917 -- a command's options are its parameters
    operations: Annotated[int, typer.Option(help="Changes in each history.")] = 500,
    kills: Annotated[int, typer.Option(help="kill -9, in turn of worker and node.")] = 8,
    pace: Annotated[float, typer.Option(help="Changes published a second.")] = 10.0,
    seed: Annotated[list[int], typer.Option(help="Seeds; a history each, on each graph.")] = [1],  # noqa: B006
    graph: Annotated[list[str], typer.Option(help="Graphs to run on.")] = list(GRAPHS),  # noqa: B006
    report: Annotated[Path | None, typer.Option(help="Write the verdicts as JSON.")] = None,
) -> None:
    """Run them one after another."""
    console = Console()
    verdicts: list[dict[str, object]] = []
    for name, number in ((name, number) for name in graph for number in seed):
        verdict = run_history(drawn(seed=number, length=operations, kills=kills), graph=name, pace=pace)
        verdicts.append({"seed": number} | as_json(verdict))
        console.print(verdicts[-1])
        _write(report, verdicts)
    if not all(verdict["is_clean"] for verdict in verdicts):
        raise typer.Exit(1)


def _write(report: Path | None, verdicts: Sequence[dict[str, object]]) -> None:
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(verdicts, indent=2))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
