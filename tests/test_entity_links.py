"""Links between names of different documents, in every graph store: in every order, by many workers, and taken back."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from api.retrievers.entities import Entities
from api.retrievers.graph import Graph, LadybugGraph
from api.retrievers.neo4j import Neo4jGraph
from deploy.digest import digest_of
from schemas.ids import entity_id, entity_pair_id
from schemas.records import Decision, Extraction, Mark, Mention, Relation, Revision
from schemas.settings import Kafka, Settings
from schemas.topics import EXTRACTIONS
from streams.kafka import read_all
from streams.publisher import Publisher
from streams.sinks.index import index
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from streams.stages import index_graph_stage
from streams.topics import create_topics
from tests.graph_stores import V1, GraphStore, connected, driver_of_tests, extraction, neo4j_store
from tests.neo4j_server import DATABASE, TIMEOUT
from tests.test_neo4j import index_until_done

pytestmark = pytest.mark.timeout(TIMEOUT)

NAVY = ("united states navy", "us navy")
HEALTH = ("world health organisation", "world health organization")
NAMES = (*NAVY, *HEALTH, "iffhs", "international federation of football history and statistics", "nato")
PEOPLE = ("miyamoto shigeru", "shigeru miyamoto", "j r r tolkien", "john ronald reuel tolkien", "tolkien")
ORDERS = 20
LINKS = 3
Both = tuple[GraphStore, Graph]


@contextmanager
def ladybug(folder: Path) -> Iterator[Both]:
    with open_graph(folder, buffer_pool_mb=64) as database, closing(LadybugGraphStore(database)) as store:
        yield store, LadybugGraph(database)


@contextmanager
def neo4j(folder: Path) -> Iterator[Both]:
    graph = Neo4jGraph(driver_of_tests(), database=DATABASE, timeout=240)
    with neo4j_store(folder) as store, closing(graph):
        yield store, graph


Opened = Callable[[Path], AbstractContextManager[Both]]


@pytest.fixture(params=[ladybug, neo4j])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    opened: Opened = request.param
    with opened(tmp_path) as both:
        yield both


def of_type(item: Extraction, type_: str) -> Extraction:
    """The extraction with entities of a type that has names."""
    ids = {entity_id(of.type, of.name): entity_id(type_, of.name) for of in item.mentions}
    return Extraction(
        chunk=item.chunk,
        mentions=tuple(Mention(**of.model_dump() | {"type": type_}) for of in item.mentions),
        relations=tuple(
            Relation(**of.model_dump() | {"source": ids[of.source], "target": ids[of.target]}) for of in item.relations
        ),
    )


def naming(document_id: str, names: Sequence[str], type_: str = "ORG", revision: Revision = V1) -> Extraction:
    return of_type(extraction(document_id, names, revision=revision), type_)


def add(store: GraphStore, *items: Extraction | Mark) -> None:
    index(store, "index-graph", items)


def org(name: str) -> str:
    return entity_id("ORG", name)


def entities(graph: Graph, **scores: float) -> Entities:
    return Entities(graph, score=0.95, scores=scores)


def link_rows(store: GraphStore) -> list[tuple[object, ...]]:
    return [row for row in store.dump() if row[0] == "link"]


def test_names_of_two_documents_are_linked_and_unlinked_with_them(both: Both) -> None:
    store, _ = both
    add(store, naming("a", [NAVY[0], "nato"]), naming("b", [NAVY[1]]), naming("c", [NAVY[1]]))
    add(store, naming("d", [NAVY[1]], "PRODUCT"))
    link = ("link", "ORG", NAVY[1], NAVY[0], "spelling", 0.99)
    assert link_rows(store) == [link]
    delete = [Mark(document_id=of, version=2, sequence=2, operation="delete") for of in "bca"]
    for mark, left in zip(delete, ([link], [], []), strict=True):
        add(store, mark)
        assert (link_rows(store), store.orphans()) == (left, 0)
    add(store, naming("b", [NAVY[1]], revision=Revision(3, 3)), naming("a", [NAVY[0]], revision=Revision(3, 3)))
    assert link_rows(store) == [link]


def test_an_entity_answers_for_all_its_names(both: Both) -> None:
    store, graph = both
    add(store, naming("a", [NAVY[0], "nato"]), naming("b", [NAVY[1], "nato"]), naming("c", [*NAVY, "nato"]))
    read = entities(graph)
    (found,) = read.named([NAVY[1]])
    assert found == read.entity(org(NAVY[0])) == read.entity(org(NAVY[1]).upper())
    assert (found.name, found.mention_count, found.chunk_count) == (NAVY[0], 4, 3)
    assert [of.name for of in found.aliases] == [NAVY[1]]
    chunks = read.chunks(org(NAVY[1]), limit=5)
    assert [(of.document_id, of.mention_count) for of in chunks] == [("c", 2), ("a", 1), ("b", 1)]
    around = read.neighbourhood(org(NAVY[1]), limit=5)
    assert [(of.source, of.target, of.weight) for of in around.relations] == [(org(NAVY[0]), org("nato"), 3)]
    assert {of.name for of in around.entities} == {NAVY[0], "nato"}
    (to_navy,) = read.neighbourhood(org("nato"), limit=5).relations
    assert (to_navy.source, to_navy.weight) == (org(NAVY[0]), 3)
    assert (read.entity(org("unknown")), read.entity("nonsense"), read.chunks("nonsense", limit=1)) == (None, None, [])


def test_a_short_form_is_followed_where_it_is_clear_and_sure_enough(both: Both) -> None:
    store, graph = both
    add(store, naming("a", NAMES[4:6]), naming("b", ["bbc", "bethany bible college"]))
    assert entities(graph).explain(org("iffhs"), org(NAMES[5])).chain[0].reason == "acronym"
    apart = entities(graph).explain(org("bbc"), org("bethany bible college"))
    assert apart.reasons == ("short acronym of score 0.85 is below the threshold of 0.95 for ORG",)
    assert entities(graph, ORG=0.8).explain(org("bbc"), org("bethany bible college")).together
    add(store, naming("c", ["british broadcasting corporation"]))
    explained = entities(graph, ORG=0.8).explain(org("bbc"), org("bethany bible college"))
    assert (explained.together, "it can be short for several" in explained.reasons[0]) == (False, True)


def test_decisions_overrule_links_and_can_be_taken_back(both: Both) -> None:
    store, graph = both
    read = entities(graph)
    store.decide([_decision(*NAVY, "apart", 2), _decision(NAVY[0], "nato", "same", 2)])  # before there is any
    add(store, naming("a", [*NAVY, "nato"]))
    assert not read.explain(org(NAVY[0]), org(NAVY[1])).together
    assert read.explain(org(NAVY[1]), org(NAVY[0])).reasons[0].endswith("apart: because")
    assert [link.by for link in read.explain(org("nato"), org(NAVY[0])).chain] == ["person"]
    store.decide([_decision(NAVY[1], NAVY[0], "same", 1)])  # late
    assert not read.explain(org(NAVY[0]), org(NAVY[1])).together
    store.decide([_decision(NAVY[1], NAVY[0], "open", 3)])
    assert read.explain(org(NAVY[1]), org("nato")).together
    assert [of.verdict for of in read.decisions(limit=5)] == ["same"]
    assert [row[3:] for row in store.dump() if row[0] == "decision"] == [("same", "because")]
    add(store, Mark(document_id="a", version=9, operation="delete"))
    assert (len(read.decisions(limit=5)), store.orphans()) == (1, 0)


def _decision(first: str, second: str, verdict: str, version: int) -> Decision:
    return Decision.model_validate(
        {"first": org(first), "second": org(second), "verdict": verdict, "reason": "because", "version": version}
    )


@pytest.mark.integration
def test_a_decision_reaches_the_graph_through_its_topic(bootstrap_servers: str, tmp_path: Path) -> None:
    create_topics(bootstrap_servers, Kafka())
    settings = Settings(data_dir=tmp_path)
    with Publisher(bootstrap_servers, settings) as publisher:
        publisher.decide(org(NAVY[0]), org(NAVY[1]), "same", "first thought")
        sent = publisher.decide(org(NAVY[0]), org(NAVY[1]), "apart", "second thought")
    pair = entity_pair_id(org(NAVY[1]), org(NAVY[0])).encode()
    records = [of for of in read_all(bootstrap_servers, [EXTRACTIONS.name]) if of.key == pair]
    with ladybug(tmp_path) as (store, graph):
        stage = index_graph_stage(store, settings)
        batch = [naming("a", NAVY), *map(stage.decode, records)]
        assert [len(outputs) for outputs in stage.process(batch)] == [1, 0, 0]
        (made,) = entities(graph).decisions(limit=5)
        assert (made.verdict, made.reason, made.version) == ("apart", "second thought", sent.version)


def history() -> list[list[Extraction | Mark]]:
    """Records by document: some are updated, some deleted, and names of one thing lie apart."""
    names = [(name, "ORG") for name in NAMES] + [(name, "PERSON") for name in PEOPLE]
    of_documents: list[list[Extraction | Mark]] = []
    for number, ((name, type_), (other, other_type)) in enumerate(itertools.pairwise(names)):
        records: list[Extraction | Mark] = [naming(f"d{number}", [name], type_)]
        if number % 3 == 1:
            records.append(naming(f"d{number}", [other], other_type, Revision(2, 2)))
        if number % 4 == 2:
            records.append(Mark(document_id=f"d{number}", version=3, sequence=3, operation="delete"))
        of_documents += [records, [naming(f"again{number}", [name], type_)]] if number % 2 else [records]
    return of_documents


def test_twenty_orders_give_one_graph(tmp_path: Path) -> None:
    dice, found = random.Random(1), set[str]()
    for number in range(ORDERS):
        records = [record for of in history() for record in of]
        dice.shuffle(records)
        with ladybug(tmp_path / str(number)) as (store, _):
            size = dice.randint(1, 6)
            for first in range(0, len(records), size):
                add(store, *records[first : first + size])
            digest = digest_of(store.dump())
            assert (digest.rows["link"], store.orphans()) == (LINKS, 0)
            found.add(digest.digest)
    assert len(found) == 1


def test_four_workers_give_the_graph_of_one(tmp_path: Path) -> None:
    with ladybug(tmp_path) as (one, _):
        add(one, *(record for of in history() for record in of))
        expected = digest_of(one.dump())
    for seed in range(3):
        documents = history()
        random.Random(seed).shuffle(documents)

        def work(worker: int, documents: list[list[Extraction | Mark]] = documents) -> None:
            with closing(connected()) as own:
                for records in documents[worker::4]:
                    for record in records:
                        index_until_done(own, [record])

        with neo4j(tmp_path) as (store, _), ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
            assert (digest_of(store.dump()), store.orphans()) == (expected, 0)
