"""`aegis check` and `aegis digest`: settings, connections, content."""

from typing import Annotated

import httpx
import typer
from confluent_kafka import KafkaException

from deploy.commands.output import AsJson, load_settings, out, print_json, reported, table
from deploy.generations import overruled
from deploy.running import NotRunningError, find
from schemas.settings import Settings, settings_from_environment, value_of, variable_names
from streams.topics import verify_topics


def check(
    settings_only: Annotated[
        bool, typer.Option("--settings", help="List every setting, its value and meaning.")
    ] = False,
    consistency: Annotated[
        bool, typer.Option("--consistency", help="Compare both stores and the status topic, whether it runs or not.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compare, mend what differs by publishing it again, compare again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check settings, models and connections, or the stores' consistency; exit status 1 if something is wrong."""
    if consistency or repair:
        from deploy.commands.consistency import check_consistency

        check_consistency(repair=repair, as_json=as_json)
    settings = load_settings()
    if settings_only:
        rows = [(name, value_of(settings, name), field.description or "") for name, field in variable_names().items()]
        if as_json:
            print_json({name: value for name, value, _ in rows})
        else:
            out.print(table(["setting", "value", "meaning"], rows))
        return
    problems = [*overruled(settings_from_environment()), *_missing_models(settings), *_problems(settings)]
    if as_json:
        print_json(problems)
    else:
        out.print("\n".join(problems) or "Settings, broker, topics and API are as they should be.", markup=False)
    if problems:
        raise typer.Exit(1)


def digest(as_json: AsJson = False) -> None:
    """Digest of both embedded stores' content; the system has to be stopped, for its stores have one owner."""
    from deploy.digest import digests

    with reported():
        found = digests(load_settings())
    if as_json:
        print_json({name: vars(one) for name, one in found.items()})
    else:
        rows = [
            (name, one.digest, ", ".join(f"{n} {kind}" for kind, n in one.rows.items())) for name, one in found.items()
        ]
        out.print(table(["store", "digest", "rows"], rows))


def _missing_models(settings: Settings) -> list[str]:
    """What extraction would have to do without."""
    from deploy.extraction_watch import ExtractionWatch  # the models' libraries take a second to import
    from processors import build

    watch = ExtractionWatch()
    try:
        build.build_extractor(settings, observe=watch)
    except ValueError as error:
        return [str(error)]
    return watch.missing()


def _problems(settings: Settings) -> list[str]:
    try:
        running = find(settings)
    except NotRunningError as error:
        return [str(error)]
    try:
        problems = verify_topics(running.bootstrap_servers, settings.generation)
    except KafkaException as error:
        problems = [f"the broker at {running.bootstrap_servers}: {error.args[0].str()}"]
    try:
        health = httpx.get(f"{running.api_url}/health/ready", timeout=10)
    except httpx.HTTPError as error:
        return [*problems, f"the API at {running.api_url} does not answer: {error}"]
    return problems if health.is_success else [*problems, f"the API is not ready: {health.text}"]
