"""`aegis topics`: create and verify."""

import typer

from deploy.commands.output import AsJson, connected, out, print_json
from streams.topics import create_topics, verify_topics

app = typer.Typer(no_args_is_help=True, help="The topics of the registry.")


@app.command()
def create(as_json: AsJson = False) -> None:
    """Create the topics that are missing."""
    with connected() as (settings, running):
        created = create_topics(running.bootstrap_servers, settings.kafka, settings.generation)
    if as_json:
        print_json(created)
    else:
        out.print(f"Created {len(created)} topics." if created else "Nothing to do: every topic exists.")


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Compare the cluster's topics with the registry; exit status 1 if they differ."""
    with connected() as (settings, running):
        problems = verify_topics(running.bootstrap_servers, settings.generation)
    if as_json:
        print_json(problems)
    else:
        out.print("\n".join(problems) if problems else "Every topic is as it should be.", markup=False)
    if problems:
        raise typer.Exit(1)
