"""The stages after ``streams.chunking``, in the order a document meets them."""

from collections.abc import Sequence

from processors.embed import Embedder
from processors.extract import Found, Pipeline
from schemas.records import (
    Chunk,
    ChunkRecord,
    Decision,
    EmbeddedChunk,
    EmbeddingRecord,
    Extraction,
    ExtractionRecord,
    Mark,
    StageName,
    State,
    StatusRecord,
)
from schemas.settings import Settings
from streams.decode import decoder
from streams.reports import status_of
from streams.sinks.index import Store, index
from streams.sinks.links import GraphStore
from streams.stage import Outputs, Stage

_MAX_REASON = 500


def embed_stage(embedder: Embedder, settings: Settings) -> Stage[Chunk | Mark]:
    """Chunks to vectors, in token-budget batches."""

    def process(batch: Sequence[Chunk | Mark]) -> list[Outputs]:
        chunks = [record for record in batch if isinstance(record, Chunk)]
        vectors = iter(embedder.embed([chunk.contextual_text for chunk in chunks]))
        return [
            [record]
            if isinstance(record, Mark)
            else [EmbeddedChunk.of(record, next(vectors), embedder.name), *_progress(record, "embed", "embedded")]
            for record in batch
        ]

    return Stage("embed", settings.embedding.batch, decoder(ChunkRecord), process)


def extract_stage(extractor: Pipeline, settings: Settings) -> Stage[Chunk | Mark]:
    """Chunks to mentions and relations."""

    def process(batch: Sequence[Chunk | Mark]) -> list[Outputs]:
        found = iter(extractor.extract([record.text for record in batch if isinstance(record, Chunk)]))
        return [[record] if isinstance(record, Mark) else _extracted(record, next(found)) for record in batch]

    return Stage("extract", settings.extraction.batch, decoder(ChunkRecord), process)


def index_vectors_stage(store: Store[EmbeddedChunk], settings: Settings) -> Stage[EmbeddedChunk | Mark]:
    """Vectors into the vector store."""
    return Stage(
        "index-vectors",
        settings.vectors.batch,
        decoder(EmbeddingRecord),
        lambda batch: index(store, "index-vectors", batch),
        store.close,
    )


def index_graph_stage(store: GraphStore, settings: Settings) -> Stage[Extraction | Mark | Decision]:
    """Mentions, relations and what people decided into the graph store."""

    def process(batch: Sequence[Extraction | Mark | Decision]) -> list[Outputs]:
        if decisions := [record for record in batch if isinstance(record, Decision)]:
            store.decide(decisions)
        of_documents = [record for record in batch if not isinstance(record, Decision)]
        statuses = iter(index(store, "index-graph", of_documents))
        return [[] if isinstance(record, Decision) else next(statuses) for record in batch]

    return Stage("index-graph", settings.graph.batch, decoder(ExtractionRecord), process, store.close)


def _extracted(chunk: Chunk, found: Found) -> Outputs:
    extraction = Extraction(chunk=chunk, mentions=found.mentions, relations=found.relations, pipeline=found.pipeline)
    degraded = "; ".join(f"{phase}: {why}" for phase, why in found.degraded.items())[:_MAX_REASON] or None
    read = {"pipeline": found.pipeline, "degraded": degraded}
    return [extraction, *(one.model_copy(update=read) for one in _progress(chunk, "extract", "extracted"))]


def _progress(chunk: Chunk, stage: StageName, state: State) -> list[StatusRecord]:
    """A status with a document's last chunk: the chunks of a document pass a stage in order."""
    if chunk.chunk_index + 1 < chunk.chunk_count:
        return []
    count, digest = chunk.chunk_count, chunk.content_hash
    return [status_of(chunk.document_id, chunk.revision, stage, state, chunk_count=count, content_hash=digest)]
