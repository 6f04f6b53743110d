"""Records, ids, status and settings."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.ids import chunk_id, entity_id, normalised_name
from schemas.records import (
    STAGES,
    Chunk,
    DocumentRecord,
    EmbeddedChunk,
    EmbeddingRecord,
    Mark,
    Revision,
    StageName,
    State,
    StatusRecord,
)
from schemas.settings import Settings, settings_from_environment, variable_names
from schemas.status import DocumentStatus
from schemas.topics import ALL, SOURCES, TARGETS

CHUNK = Chunk(document_id="d", version=1, chunk_index=0, chunk_count=1, text="x", start=0, end=1, content_hash="h")


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=64))
def test_a_vector_survives_its_record_bit_for_bit(values: list[float]) -> None:
    vector = np.array(values, dtype=np.float32)
    json_text = EmbeddedChunk.of(CHUNK, vector, "m").model_dump_json()
    decoded = TypeAdapter(EmbeddingRecord).validate_json(json_text)
    assert isinstance(decoded, EmbeddedChunk)
    assert decoded.vector.tobytes() == vector.tobytes()


def test_a_mark_and_an_embedding_share_a_topic() -> None:
    mark = Mark(document_id="d", version=1, operation="delete")
    assert TypeAdapter(EmbeddingRecord).validate_json(mark.model_dump_json()) == mark


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "none of them"),
        ({"text": "x", "content_uri": "file:///x"}, "text and content_uri"),
        ({"text": "x", "colour": "red"}, "colour"),
        ({"operation": "delete", "text": "x"}, "a delete carries no content"),
        ({"text": "x", "version": -1}, "version"),
        ({"text": "x", "document_id": "a\nb"}, "document_id"),
    ],
)
def test_a_document_that_does_not_fit_says_what_is_wrong(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        DocumentRecord.model_validate({"document_id": "d"} | fields)


def test_ids_are_the_same_for_ever() -> None:
    """They are in stores: changing one orphans what is there."""
    assert chunk_id("d", Revision(1, 0), 0) == "28f4122a-00a8-5bab-a4fb-a4f750fe3551"
    assert entity_id("PERSON", "ada") == "067f6a05-bdc4-5b8a-a184-da30da11ab71"


@given(st.text())
def test_normalising_a_name_twice_changes_nothing(text: str) -> None:
    assert normalised_name(normalised_name(text)) == normalised_name(text)


def test_every_stage_reads_what_another_writes() -> None:
    names = {topic.name for topic in ALL}
    assert {SOURCES[stage].name for stage in STAGES} <= names
    assert SOURCES["index-vectors"] is TARGETS["embed"]
    assert SOURCES["index-graph"] is TARGETS["extract"]
    assert len(names) == len(ALL)


def status(stage: StageName, state: State, version: int = 1, *, at: float = 0, **fields: str) -> StatusRecord:
    return StatusRecord(document_id="d", version=version, stage=stage, state=state, at=at, **fields)


def fold(*records: StatusRecord) -> DocumentStatus:
    folded = DocumentStatus(document_id="d", stages={})
    for record in records:
        folded = folded.with_record(record)
    return folded


def test_a_documents_state_follows_both_indexes() -> None:
    chunked, vectors, graph = (
        status("chunk", "chunked"),
        status("index-vectors", "indexed"),
        status("index-graph", "indexed"),
    )
    assert fold(chunked).state == "processing"
    assert fold(chunked, vectors).state == "searchable"
    assert fold(chunked, graph).state == "processing"
    assert fold(chunked, vectors, graph).state == "indexed"
    assert fold(chunked, vectors, graph, status("chunk", "chunked", 2)).state == "processing"
    assert fold(chunked, vectors, status("index-graph", "dead-lettered")).state == "dead-lettered"
    assert fold(status("chunk", "chunked", 2), status("chunk", "chunked", 1)).revision.version == 2


def test_a_failure_is_over_once_the_store_behind_it_holds_the_document() -> None:
    embed, extract = status("embed", "dead-lettered", error="x"), status("extract", "retrying", error="y")
    vectors, graph = status("index-vectors", "indexed"), status("index-graph", "indexed")
    assert (fold(embed, extract).state, fold(embed, graph).error) == ("dead-lettered", "x")
    assert fold(embed, extract, vectors).state == "retrying"
    assert (fold(embed, extract, vectors, graph).state, fold(embed, extract, vectors, graph).error) == ("indexed", None)


def test_the_old_version_counts_as_searchable_until_the_new_one_is() -> None:
    seen = fold(status("index-vectors", "indexed", 1), status("chunk", "chunked", 2))
    assert (seen.state, seen.searchable_version) == ("processing", 1)


def test_only_the_newest_content_in_both_stores_is_unchanged() -> None:
    stages: tuple[StageName, ...] = ("chunk", "index-vectors", "index-graph")
    whole = [status(stage, "chunked" if stage == "chunk" else "indexed", content_hash="h") for stage in stages]
    assert fold(*whole).is_indexed_as("h")
    assert not fold(*whole).is_indexed_as("other")
    assert not fold(*whole, status("chunk", "chunked", 2, content_hash="other")).is_indexed_as("h")
    assert not fold(*whole[:2]).is_indexed_as("h")


def test_an_unknown_setting_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_KAFKA__BOOTSTRAP_SERVER", "typo:9092")
    with pytest.raises(ValueError, match="AEGIS_KAFKA__BOOTSTRAP_SERVER"):
        settings_from_environment()


def test_a_variable_that_only_begins_like_an_allowed_one_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_DATADIR", "/somewhere")
    with pytest.raises(ValueError, match="AEGIS_DATADIR"):
        settings_from_environment()


def test_a_setting_that_does_not_fit_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_KAFKA__PARTITIONS", "many")
    with pytest.raises(ValueError, match=r"kafka\.partitions"):
        settings_from_environment()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_KAFKA__PARTITIONS", "7")
    monkeypatch.setenv("AEGIS_RETRY__DELAYS", json.dumps(["5s"]))
    settings = settings_from_environment()
    assert (settings.kafka.partitions, settings.retry.delays) == (7, ("5s",))
    assert "AEGIS_KAFKA__PARTITIONS" in variable_names()
    assert isinstance(settings, Settings)


def test_one_setting_of_a_group_is_set_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_EMBEDDING__BATCH__MAX_RECORDS", "4")
    batch, default = settings_from_environment().embedding.batch, Settings.model_fields["embedding"].default.batch
    assert (batch.max_records, batch.max_wait) == (4, default.max_wait)


def test_flags_of_other_systems_are_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_BACKEND", "ollama")
    monkeypatch.setenv("EMBEDDING_DEVICE", "cuda")
    monkeypatch.setenv("RERANKING_BACKEND", "llm")
    settings = settings_from_environment()
    assert (settings.embedding.backend, settings.embedding.device) == ("ollama", "cuda")
    assert settings.reranking.backend == "llm"
    monkeypatch.setenv("AEGIS_EMBEDDING__BACKEND", "native")
    assert settings_from_environment().embedding.backend == "native", "the full name wins"
    monkeypatch.setenv("EMBEDDING_DEVICE", "gpu")
    with pytest.raises(ValueError, match=r"embedding\.device"):
        settings_from_environment()
