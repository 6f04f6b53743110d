"""`aegis entities …`: what is one thing under several names, why, and deciding otherwise.

Entities are given by id, or by a name that only one entity has. Decisions overrule links; each has a reason, and
`forget` takes it back.
"""

from typing import Annotated, Any

import httpx
import typer

from api.retrievers.graph import canonical_id
from deploy.commands.output import AsJson, connected, fail, out, print_json, table
from processors.dedup import folded
from schemas.ids import normalised_name
from schemas.records import Verdict

app = typer.Typer(no_args_is_help=True, help="Entities, their aliases, and what people decide about them.")

First = Annotated[str, typer.Argument(help="An entity: its id, or its name where only one has it.")]
Second = Annotated[str, typer.Argument(help="Another one.")]
Why = Annotated[str, typer.Option(help="Why; it is kept with the decision.")]
Force = Annotated[bool, typer.Option("--force", help="Also for different types, or where no document mentions one.")]


@app.command("list")
def list_entities(name: str, as_json: AsJson = False) -> None:
    """The entities of a name, in any spelling, with their aliases."""
    with connected() as (_, running), httpx.Client(base_url=running.api_url, timeout=30) as client:
        found = _get(client, "/api/v1/entities", name=name)
    if as_json:
        print_json(found)
        return
    rows = [
        (of["id"], of["type"], of["display"], of["mention_count"], ", ".join(one["display"] for one in of["aliases"]))
        for of in found["entities"]
    ]
    out.print(table(["id", "type", "name", "mentions", "aliases"], rows))


@app.command()
def show(entity: First, as_json: AsJson = False) -> None:
    """An entity under all its names, with the links between them."""
    with connected() as (_, running), httpx.Client(base_url=running.api_url, timeout=30) as client:
        id_ = _id_of(client, entity)
        found = _get(client, f"/api/v1/entities/{id_}") | _get(client, f"/api/v1/entities/{id_}/links")
    if as_json:
        print_json(found)
        return
    names = {one["id"]: one["display"] for one in (found, *found["aliases"])}
    out.print(table(["id", "name"], list(names.items()), title=f"{found['type']}, {found['mention_count']} mentions"))
    for link in found["links"]:
        out.print(_sentence(link, names), markup=False)
    for refusal in found["refused"]:
        out.print(f"not: {_sentence(refusal['link'], names)}: {refusal['why']}", markup=False)


@app.command()
def explain(first: First, second: Second, as_json: AsJson = False) -> None:
    """Why two entities are one (the links from one to the other), or why they are apart."""
    with connected() as (_, running), httpx.Client(base_url=running.api_url, timeout=30) as client:
        found = _get(client, f"/api/v1/entities/{_id_of(client, first)}/links/{_id_of(client, second)}")
    if as_json:
        print_json(found)
        return
    out.print("one:" if found["together"] else "apart:")
    for line in [_sentence(link, {}) for link in found["chain"]] or found["reasons"]:
        out.print(f"  {line}", markup=False)


@app.command()
def decisions(limit: Annotated[int, typer.Option(min=1, max=1000)] = 100, as_json: AsJson = False) -> None:
    """What people decided, newest first."""
    with connected() as (_, running), httpx.Client(base_url=running.api_url, timeout=30) as client:
        found = _get(client, "/api/v1/decisions", limit=limit)
    if as_json:
        print_json(found)
        return
    rows = [(of["verdict"], of["first"], of["second"], of["reason"]) for of in found["decisions"]]
    out.print(table(["verdict", "entity", "entity", "reason"], rows))


@app.command()
def merge(first: First, second: Second, reason: Why, force: Force = False, as_json: AsJson = False) -> None:
    """Decide that two entities are one."""
    _decide(first, second, "same", reason, force=force, as_json=as_json)


@app.command()
def split(first: First, second: Second, reason: Why, force: Force = False, as_json: AsJson = False) -> None:
    """Decide that two entities are two, whatever links them."""
    _decide(first, second, "apart", reason, force=force, as_json=as_json)


@app.command()
def forget(first: First, second: Second, reason: Why = "taken back", as_json: AsJson = False) -> None:
    """Take back what was decided about two entities."""
    _decide(first, second, "open", reason, force=False, as_json=as_json)


def _decide(first: str, second: str, verdict: Verdict, reason: str, *, force: bool, as_json: bool) -> None:
    with connected() as (_, running), httpx.Client(base_url=running.api_url, timeout=30) as client:
        wanted = {"first": _id_of(client, first), "second": _id_of(client, second), "verdict": verdict}
        response = client.post("/api/v1/decisions", json=wanted | {"reason": reason, "force": force})
        response.raise_for_status()
    if as_json:
        print_json(response.json())
    else:
        out.print("Decided; `aegis entities explain` tells when the graph knows.", markup=False)


def _id_of(client: httpx.Client, given: str) -> str:
    """The id of the name itself, not of the entity that it is one name of: people decide about names."""
    if canonical_id(given):
        return given
    found = _get(client, "/api/v1/entities", name=given)["entities"]
    plain = normalised_name(given)
    names = [one for of in found for one in (of, *of["aliases"]) if one["name"] == folded(plain, one["type"])]
    if not names:
        fail(f"no document mentions {given!r}")
    if len(names) > 1:
        ids = ", ".join(f"{one['id']} ({one['type']})" for one in names)
        fail(f"{given!r} names several; give an id: {ids}")
    return str(names[0]["id"])


def _get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    response = client.get(path, params=parameters)
    response.raise_for_status()
    return response.json()


def _sentence(link: dict[str, Any], names: dict[str, str]) -> str:
    first, second = (names.get(link[end], link[end]) for end in ("first", "second"))
    by = "a person: " if link["by"] == "person" else ""
    score = "" if link["by"] == "person" else f", {link['score']:g}"
    return f"{first} is {second} ({by}{link['reason']}{score})"
