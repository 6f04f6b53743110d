"""Entities under all their names over HTTP and on the command line, and decisions about them, on a real graph."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.retrievers.graph import LadybugGraph
from deploy.cli import app
from deploy.running import Running, announce
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from tests.api_server import Stack, serving
from tests.test_entity_links import HEALTH, NAVY, add, naming, org

NATO = org("nato")


@dataclass
class Served:
    """An API, and the store behind it."""

    stack: Stack
    store: LadybugGraphStore

    def apply(self) -> None:
        """Do with the published decisions what the graph stage does."""
        self.store.decide(self.stack.publisher.decided)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    database = open_graph(tmp_path / "graph", buffer_pool_mb=64)
    store = LadybugGraphStore(database)
    add(store, naming("a", [NAVY[0], "nato"]), naming("b", [NAVY[1], HEALTH[0]]), naming("p", ["nato"], "PRODUCT"))

    def with_graph(stack: Stack) -> None:
        stack.graph = LadybugGraph(database)

    with serving(change=with_graph) as running:
        monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
        monkeypatch.delenv("AEGIS_KAFKA__BOOTSTRAP_SERVERS", raising=False)
        announce(tmp_path, Running(bootstrap_servers="", api_url=f"http://127.0.0.1:{running.port}", pid=os.getpid()))
        yield Served(running, store)
    store.close()


def aegis(*arguments: str, fails: bool = False) -> Any:
    done = CliRunner().invoke(app, ["entities", *arguments, "--json"])
    assert done.exit_code == int(fails), done.output
    return done.output if fails else json.loads(done.output)


def applied(served: Served, *arguments: str) -> Any:
    """A decision by command, as the graph stage applies it."""
    answer = aegis(*arguments)
    served.apply()
    return answer


def test_any_id_answers_for_all_names(served: Served) -> None:
    whole = served.stack.http.get(f"/api/v1/entities/{org(NAVY[1])}").json()
    assert (whole["id"], whole["mention_count"], whole["chunk_count"]) == (org(NAVY[0]), 2, 2)
    assert [of["name"] for of in whole["aliases"]] == [NAVY[1]]
    links = served.stack.http.get(f"/api/v1/entities/{org(NAVY[0])}/links").json()
    assert [(of["first"], of["second"], of["reason"], of["score"], of["by"]) for of in links["links"]] == [
        (org(NAVY[1]), org(NAVY[0]), "spelling", 0.99, "rule")
    ]
    assert {
        of["document_id"] for of in served.stack.http.get(f"/api/v1/entities/{org(NAVY[1])}/chunks").json()["chunks"]
    } == {
        "a",
        "b",
    }
    around = served.stack.http.get(f"/api/v1/entities/{org(NAVY[1])}/graph").json()
    assert {of["source"] for of in around["relations"]} == {org(NAVY[0])}
    assert {of["target"] for of in around["relations"]} == {NATO, org(HEALTH[0])}


def test_people_merge_split_and_take_back_by_name(served: Served) -> None:
    (found,) = aegis("list", "The U.S. Navy")["entities"]
    assert found["name"] == NAVY[0]
    assert applied(served, "split", *NAVY, "--reason", "two navies")["verdict"] == "apart"
    explained = aegis("explain", *NAVY)
    assert (explained["together"], "two navies" in explained["reasons"][0]) == (False, True)
    applied(served, "merge", NAVY[1], HEALTH[0], "--reason", "for a test")
    shown = aegis("show", HEALTH[0])
    assert {of["name"] for of in (shown, *shown["aliases"])} == {NAVY[1], HEALTH[0]}
    assert [of["by"] for of in shown["links"]] == ["person"]
    assert [of["verdict"] for of in aegis("decisions")["decisions"]] == ["same", "apart"]
    applied(served, "forget", *NAVY)
    applied(served, "forget", NAVY[1], HEALTH[0])
    assert aegis("decisions")["decisions"] == []
    assert aegis("explain", *NAVY)["chain"][0]["reason"] == "spelling"


@pytest.mark.parametrize("command", ["list", "show", "explain", "decisions", "merge"])
def test_commands_say_it_to_people(served: Served, command: str) -> None:
    arguments = {
        "list": NAVY[:1],
        "show": NAVY[:1],
        "explain": NAVY,
        "decisions": (),
        "merge": (*NAVY, "--reason", "x"),
    }
    served.stack.publisher.decide(org(NAVY[0]), org(NAVY[1]), "same", "so it is")
    served.apply()
    done = CliRunner().invoke(app, ["entities", command, *arguments[command]])
    assert done.exit_code == 0
    assert {"list": "nited", "merge": "Decided"}.get(command, "so it is") in done.output


def test_what_cannot_be_decided_says_so(served: Served) -> None:
    product = served.stack.http.get("/api/v1/entities", params={"name": "nato"}).json()["entities"]
    other = next(of["id"] for of in product if of["type"] == "PRODUCT")
    assert "different types" in aegis("merge", NATO, other, "--reason", "x", fails=True)
    assert "names several" in aegis("merge", "nato", NAVY[0], "--reason", "x", fails=True)
    assert "no document mentions" in aegis("split", "nobody", NAVY[0], "--reason", "x", fails=True)
    assert applied(served, "merge", NATO, other, "--reason", "x", "--force")["verdict"] == "same"
    for body, status in (
        ({"first": NATO, "second": NATO}, 422),
        ({"first": NATO, "second": "nonsense"}, 422),
        ({"first": NATO, "second": org("nobody")}, 404),
    ):
        answer = served.stack.http.post("/api/v1/decisions", json=body | {"verdict": "same", "reason": "x"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
