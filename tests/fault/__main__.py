"""`make fault`: every scenario at full size, a table, JSON, and exit status 1 if any promise was broken."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.output import table
from tests.fault.run import run_scenario
from tests.fault.scenarios import SCENARIOS, Load
from tests.fault.verify import Verdict


def main(
    documents: Annotated[int, typer.Option(help="Documents per scenario.")] = 2000,
    pace: Annotated[float, typer.Option(help="Documents published a second.")] = 60.0,
    only: Annotated[str, typer.Option(help="Scenarios whose name contains this.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write the verdicts as JSON.")] = None,
) -> None:
    """Run the scenarios one after another."""
    console = Console()
    verdicts: list[Verdict] = []
    for name in (name for name in SCENARIOS if only in name):
        verdict = run_scenario(name, Load(documents, pace))
        verdicts.append(verdict)
        console.print(f"{'clean' if verdict.is_clean else 'BROKEN'}  {asdict(verdict)}")
    rows = [list(asdict(verdict).values()) for verdict in verdicts]
    console.print(table(list(asdict(verdicts[0])), rows))
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    if not all(verdict.is_clean for verdict in verdicts):
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
