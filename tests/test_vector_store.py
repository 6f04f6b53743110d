"""One contract for both sides of the vector store, on every store there is; then what is each one's own."""

import math
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from api.retrievers.edge import EdgeRetriever
from api.retrievers.hits import DocumentState, Hit, Retriever, hits_along
from processors.bridges import GRAPH_WEIGHT, Step
from processors.errors import PermanentError, UnavailableError
from processors.fuse import BM25_WEIGHT
from schemas.ids import chunk_id
from schemas.records import EmbeddedChunk, Revision
from schemas.storage import DENSE, GRAPH, SPARSE
from streams.sinks.edge import EdgeVectorStore, open_shard
from streams.sinks.index import Head
from streams.sinks.qdrant import open_collection
from tests import killed_writer
from tests.vector_stores import (
    DIMENSION,
    KINDS,
    MODEL,
    Sides,
    bm25,
    embedded,
    opened,
    opened_edge,
    vector_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

OLD, NEW = Revision(1, 7), Revision(2, 3)
NOISE = [f"{word} filler number {number}" for number in range(16) for word in ("river", "stone", "cloud")]


@pytest.fixture(params=KINDS)
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sides]:
    with opened(request.param, tmp_path) as sides:
        yield sides


def ask(retriever: Retriever, text: str, **options: Any) -> list[Hit]:
    return retriever.search(vector_of(text), bm25.query(text), **{"limit": 10, **options})


def places(hits: list[Hit]) -> list[tuple[str, int]]:
    return [(hit.document_id, hit.chunk_index) for hit in hits]


def complete(revision: Revision, chunk_count: int) -> Head:
    return Head(latest=revision, live=revision, complete=True, chunk_count=chunk_count, content_hash="h")


def test_heads_come_back_as_written_and_only_those_that_exist(sides: Sides) -> None:
    heads = {
        "a": Head(latest=Revision(2**62, 5), live=OLD, chunk_count=3, content_hash="x"),
        "ü/ '\"": Head(latest=NEW, deleted=True),
    }
    sides.sink.write(heads, [], live=False)
    assert sides.sink.heads([*heads, "absent"]) == heads
    sides.sink.write({"a": complete(NEW, 1)}, [], live=False)
    assert sides.sink.heads(["a"]) == {"a": complete(NEW, 1)}


def test_heads_are_never_found_nor_counted_as_chunks(sides: Sides) -> None:
    sides.sink.write({name: complete(OLD, 1) for name in "abc"}, embedded("a", ["kafka"], OLD), live=True)
    assert places(ask(sides.retriever, "kafka")) == [("a", 0)]
    assert sides.retriever.search(np.zeros(DIMENSION, np.float32), None, limit=10)[0].document_id == "a"
    assert sides.retriever.count() == 1
    assert [chunk.document_id for chunk in sides.sink.dump()] == ["a"]


def test_staged_chunks_are_held_but_do_not_answer(sides: Sides) -> None:
    sides.sink.write({}, embedded("a", ["old", "text"], OLD), live=True)
    sides.sink.write({}, embedded("a", ["new", "words", "here"], NEW), live=False)
    assert (sides.sink.held("a", OLD), sides.sink.held("a", NEW)) == (2, 3)
    assert sides.retriever.count() == 2
    assert {hit.text for hit in ask(sides.retriever, "new")} == {"old", "text"}
    sides.sink.make_live("a", NEW)
    assert (sides.sink.held("a", OLD), sides.sink.held("a", NEW)) == (0, 3)
    assert {hit.text for hit in ask(sides.retriever, "new")} == {"new", "words", "here"}


def test_while_two_revisions_are_live_only_the_newer_one_answers(sides: Sides) -> None:
    sides.sink.write({}, embedded("a", ["kafka", "broker"], OLD) + embedded("a", ["kafka log"], NEW), live=True)
    assert [(hit.version, hit.text) for hit in ask(sides.retriever, "kafka")] == [(2, "kafka log")]


def test_everything_may_be_repeated(sides: Sides) -> None:
    for _ in range(3):
        sides.sink.write({"a": complete(NEW, 2)}, embedded("a", ["one", "two"], NEW), live=False)
        sides.sink.make_live("a", NEW)
    assert sides.sink.held("a", NEW) == sides.retriever.count() == 2
    for _ in range(2):
        sides.sink.erase("a")
    assert sides.sink.held("a", NEW) == sides.retriever.count() == 0
    assert sides.sink.heads(["a"]) == {"a": complete(NEW, 2)}


def test_nothing_to_write_is_no_error(sides: Sides) -> None:
    sides.sink.write({}, [], live=True)
    assert sides.sink.heads([]) == {}


def test_erasing_spares_other_documents(sides: Sides) -> None:
    sides.sink.write({}, embedded("a", ["one"], OLD) + embedded("a2", ["two"], OLD), live=True)
    sides.sink.erase("a")
    assert [chunk.document_id for chunk in sides.sink.dump()] == ["a2"]


def test_a_document_s_state_is_its_head(sides: Sides) -> None:
    assert sides.retriever.document("a") is None
    sides.sink.write({"a": Head(latest=NEW, live=OLD, chunk_count=4)}, [], live=False)
    assert sides.retriever.document("a") == DocumentState("a", 2, 1, complete=False, deleted=False, chunk_count=4)
    sides.sink.write({"a": Head(latest=NEW, deleted=True)}, [], live=False)
    assert sides.retriever.document("a") == DocumentState("a", 2, None, complete=False, deleted=True, chunk_count=0)


def test_a_hit_carries_its_chunk(sides: Sides) -> None:
    deep: Mapping[str, Any] = {}
    for _ in range(150):
        deep = {"deeper": deep}
    metadata: dict[str, Any] = {
        "n": 2**70,
        "f": 0.1,
        "none": None,
        "list": [1, True, "ü\x00"],
        "a.b": {"": []},
        "deep": deep,
    }
    fields = {"title": "T", "source": None, "media_type": "text/html", "headings": ("A", "B"), "metadata": metadata}
    sides.sink.write({}, embedded("a", ["first text"], OLD, **fields), live=True)
    (hit,) = ask(sides.retriever, "first")
    assert (hit.document_id, hit.version, hit.chunk_index, hit.text) == ("a", 1, 0, "first text")
    assert (hit.start, hit.end) == (0, 10)
    assert {name: getattr(hit, name) for name in fields} == fields
    (chunk,) = sides.sink.dump()
    assert chunk.metadata == metadata


def test_hybrid_hits_say_which_search_found_them(sides: Sides) -> None:
    sides.sink.write({}, embedded("noise", NOISE, OLD) + embedded("a", ["a kafka topic"], OLD), live=True)
    best = ask(sides.retriever, "a kafka topic")[0]
    assert (best.document_id, best.ranks) == ("a", {DENSE: 1, SPARSE: 1})
    assert math.isclose(best.score, best.scores[DENSE] + BM25_WEIGHT * math.sqrt(best.scores[SPARSE]), abs_tol=1e-5)
    assert math.isclose(best.scores[DENSE], 1, abs_tol=1e-5)
    by_word = sides.retriever.search(None, bm25.query("kafka"), limit=10)
    assert [(hit.document_id, hit.ranks) for hit in by_word] == [("a", {SPARSE: 1})]
    by_vector = sides.retriever.search(vector_of(NOISE[3]), None, limit=70)
    assert len(by_vector) == 49
    assert by_vector[0].text == NOISE[3]
    assert [hit.score for hit in by_vector] == sorted((hit.score for hit in by_vector), reverse=True)
    assert sides.retriever.search(None, None, limit=10) == []
    assert sides.retriever.search(None, ([], []), limit=10) == []


def test_a_search_can_be_kept_to_some_documents(sides: Sides) -> None:
    for name in "abc":
        sides.sink.write({}, embedded(name, [f"kafka {name}"], OLD), live=True)
    assert {hit.document_id for hit in ask(sides.retriever, "kafka", document_ids=["a", "c", "absent"])} == {"a", "c"}
    assert ask(sides.retriever, "kafka", document_ids=[]) == []
    assert len(ask(sides.retriever, "kafka", limit=2)) == 2


def test_chunks_that_the_graph_reached_join_the_hits(sides: Sides) -> None:
    for name in "abc":
        sides.sink.write({}, embedded(name, [f"kafka {name}"], OLD), live=True)
    sides.sink.write({}, embedded("staged", ["kafka staged"], OLD), live=False)
    named = [chunk_id(name, OLD, 0) for name in ("a", "b", "staged", "absent")]
    kept = sides.retriever.chunks(named[::3])
    hits = [hit for hit in ask(sides.retriever, "kafka b") if hit.document_id != "a"]
    steps = [Step(named[0], "kafka", 1.0), Step(named[3], "kafka", 1.0)]
    first, second, third = hits_along(steps, hits, kept)
    assert [first.document_id, second.document_id, third.document_id] == ["b", "a", "c"]
    assert (first.ranks, second.ranks) == ({DENSE: 1, SPARSE: 1}, {GRAPH: 1})
    assert second.score == third.score + GRAPH_WEIGHT
    assert (third, hits_along(steps, [], {})) == (hits[1], [])


def test_a_dump_has_every_live_chunk_once(sides: Sides) -> None:
    texts = [f"chunk {number}" for number in range(600)]
    sides.sink.write({}, embedded("a", texts, OLD), live=True)
    sides.sink.write({}, embedded("b", ["staged"], OLD), live=False)
    chunks = sorted(sides.sink.dump(), key=lambda chunk: chunk.chunk_index)
    assert [chunk.text for chunk in chunks] == texts
    vector = vector_of(texts[9])
    assert np.allclose(chunks[9].vector, vector / np.linalg.norm(vector), atol=1e-6)
    assert chunks[9].vector.dtype == np.float32


def test_vectors_of_another_model_are_refused_for_good(sides: Sides) -> None:
    (item,) = embedded("a", ["text"], OLD)
    foreign = item.model_copy(update={"model": "another"})
    longer = EmbeddedChunk.of(item.chunk, np.ones(DIMENSION + 1, np.float32), MODEL)
    broken = EmbeddedChunk.of(item.chunk, np.full(DIMENSION, np.nan, np.float32), MODEL)
    for bad in (foreign, longer, broken):
        with pytest.raises(PermanentError, match="chunk 0 of document 'a'"):
            sides.sink.write({"a": complete(OLD, 1)}, [item, bad], live=True)
    assert sides.retriever.count() == 0
    assert sides.sink.heads(["a"]) == {}


def test_all_stores_answer_alike(tmp_path: Path) -> None:
    documents = {f"d{number}": NOISE[number::7] for number in range(7)}
    answers = []
    for kind in KINDS:
        with opened(kind, tmp_path) as sides:
            for document_id, texts in documents.items():
                sides.sink.write({document_id: complete(OLD, len(texts))}, embedded(document_id, texts, OLD), live=True)
            answers.append([ask(sides.retriever, query) for query in ("stone number 7", "cloud", *NOISE[:10])])
    for others in answers[1:]:
        for mine, theirs in zip(answers[0], others, strict=True):
            assert [replace(hit, score=0, scores={}) for hit in mine] == [
                replace(hit, score=0, scores={}) for hit in theirs
            ]
            for hit, other in zip(mine, theirs, strict=True):
                assert hit.scores == pytest.approx(other.scores, abs=1e-4)
                assert hit.score == pytest.approx(other.score, abs=1e-5)


# Qdrant Edge's own.


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-m", "tests.killed_writer", str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    sides = opened_edge(tmp_path)
    names = [f"d{number}" for number in range(killed_writer.DOCUMENTS)]
    assert sides.sink.heads(names) == dict.fromkeys(names, killed_writer.HEAD)
    assert {hit.text for hit in ask(sides.retriever, "one", document_ids=["d7"])} == set(killed_writer.TEXTS)
    assert sides.retriever.count() == killed_writer.DOCUMENTS * len(killed_writer.TEXTS)
    sides.sink.close()


def test_a_folder_remembers_its_model(tmp_path: Path) -> None:
    opened_edge(tmp_path).sink.close()
    for model, dimension in (("another", DIMENSION), (MODEL, DIMENSION + 1)):
        with pytest.raises(ValueError, match=r"holds vectors of tests/tiny \(8 dimensions\)"):
            open_shard(tmp_path, model=model, dimension=dimension)
    opened_edge(tmp_path).sink.close()


def test_a_shard_has_one_process(tmp_path: Path) -> None:
    sides = opened_edge(tmp_path)
    with pytest.raises(UnavailableError, match="another process"):
        open_shard(tmp_path, model=MODEL, dimension=DIMENSION)
    sides.sink.close()


def test_a_creation_cut_short_is_begun_anew(tmp_path: Path) -> None:
    opened_edge(tmp_path).sink.close()
    (tmp_path / "shard").rename(tmp_path / "shard.new")
    (tmp_path / "shard.new" / "edge_config.json").unlink()
    sides = opened_edge(tmp_path)
    assert sides.retriever.count() == 0
    sides.sink.close()


def test_a_disk_that_runs_full_makes_the_store_unavailable(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, model=MODEL, dimension=DIMENSION)
    sink = EdgeVectorStore(
        shard, bm25.document, folder=tmp_path, model=MODEL, dimension=DIMENSION, reserved_bytes=2**60
    )
    with pytest.raises(UnavailableError, match="MiB left"):
        sink.write({}, embedded("a", ["text"], OLD), live=True)
    assert EdgeRetriever(shard).count() == 0
    sink.close()


def test_a_closed_shard_is_unavailable_on_both_sides(tmp_path: Path) -> None:
    sides = opened_edge(tmp_path)
    sides.sink.close()
    with pytest.raises(UnavailableError):
        sides.sink.write({}, embedded("a", ["text"], OLD), live=True)
    with pytest.raises(UnavailableError):
        sides.retriever.count()


def test_writing_and_searching_in_several_threads(tmp_path: Path) -> None:
    sides = opened_edge(tmp_path)
    sides.sink.write({}, embedded("always", ["kafka"], OLD), live=True)

    def write(thread: int) -> None:
        for number in range(30):
            sides.sink.write({}, embedded(f"d{thread}-{number}", [f"text {thread} {number}"] * 4, OLD), live=True)

    def search(_: int) -> int:
        return sum(ask(sides.retriever, "kafka")[0].document_id == "always" for _ in range(60))

    with ThreadPoolExecutor(6) as threads:
        writes = [threads.submit(write, thread) for thread in range(3)]
        found = list(threads.map(search, range(3)))
        for done in writes:
            done.result()
    assert found == [60, 60, 60]
    assert sides.retriever.count() == 1 + 3 * 30 * 4
    sides.sink.close()


def test_deleted_points_are_cleared_away_when_the_shard_is_opened(tmp_path: Path) -> None:
    sides = opened_edge(tmp_path)
    for version in range(4):
        items = embedded("a", [f"text {version} {number}" for number in range(600)], Revision(version, 0))
        sides.sink.write({"a": complete(Revision(version, 0), 600)}, items, live=False)
        sides.sink.make_live("a", Revision(version, 0))
    sides.sink.close()
    before = _size(tmp_path)
    sides = opened_edge(tmp_path)
    assert sides.retriever.count() == 600
    assert ask(sides.retriever, "text 3 77")[0].text == "text 3 77"
    assert sides.sink.heads(["a"])["a"].latest == Revision(3, 0)
    sides.sink.close()
    assert _size(tmp_path) < before


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.rglob("segments/**/*") if path.is_file())


# A server's own.


def test_a_collection_of_another_model_under_the_same_name_is_refused() -> None:
    client = QdrantClient(":memory:")
    assert open_collection(client, model="org/Model v1", dimension=8) == "aegis-model-v1-8"
    assert open_collection(client, model="org/Model v1", dimension=8) == "aegis-model-v1-8"
    with pytest.raises(ValueError, match="holds vectors of org/Model v1"):
        open_collection(client, model="other/model-v1", dimension=8)
