"""From hits to what an answer may stand on."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from anyio import to_thread

from api import pools
from api.answers.shapes import AnswerSource
from api.ports import Ports
from api.search import RankedHit
from processors.answers.checks import CheckedClaim, check
from processors.answers.claims import Claim
from processors.answers.evidence import Evidence, Words
from processors.answers.injection import Suspicion, suspicions
from processors.answers.sources import Source, sentences_of
from processors.micro_batcher import Priority
from schemas.records import Vector

_THREADS = 8


@dataclass(frozen=True)
class Material:
    """The sources with their sentences, and the question as it is compared with them."""

    sources: Sequence[Source]
    shown: Sequence[AnswerSource]
    evidence: Evidence
    words: Words
    vector: Vector


class Reader:
    """Reads hits, and checks claims against them; the model's work goes before bulk work."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._threads = pools.threads("answers", _THREADS)

    async def embed(self, texts: Sequence[str]) -> Vector:
        """float32[len(texts), dimension]."""
        if not texts:
            return np.zeros((0, self._ports.embeddings.dimension), np.float32)
        future = await to_thread.run_sync(self._submit, texts, limiter=self._threads)
        return await asyncio.wrap_future(future)

    async def read(self, question: str, vector: Vector, hits: Sequence[RankedHit]) -> Material:
        """The hits as sources, their suspicious parts marked."""
        found = await to_thread.run_sync(_sources, hits, limiter=self._threads)
        sources = [source for source, _ in found]
        sentences = sentences_of(sources)
        vectors = await self.embed([sentence.text for sentence in sentences])

        def compare() -> Material:
            evidence = Evidence(sentences, vectors, self._ports.encode_query)
            shown = [_shown(hit, *one) for hit, one in zip(hits, found, strict=True)]
            return Material(sources, shown, evidence, evidence.words(question), vector)

        return await to_thread.run_sync(compare, limiter=self._threads)

    async def check(self, claim: Claim, material: Material) -> CheckedClaim:
        """Whether the sources say so."""
        [vector] = await self.embed([claim.statement])
        return await to_thread.run_sync(check, claim, material.evidence, vector, limiter=self._threads)

    async def still_live(self, documents: Mapping[str, int]) -> bool:
        """Whether these versions are what the index answers with."""
        return await to_thread.run_sync(self._are_live, documents, limiter=self._threads)

    def _are_live(self, documents: Mapping[str, int]) -> bool:
        for document_id, version in documents.items():
            state = self._ports.retriever.document(document_id)
            if state is None or state.deleted or state.live_version != version:
                return False
        return True

    def _submit(self, texts: Sequence[str]) -> Future[Vector]:
        return self._ports.embeddings.submit(texts, priority=Priority.INTERACTIVE, caller="answers")


def _sources(hits: Sequence[RankedHit]) -> list[tuple[Source, list[Suspicion]]]:
    found = []
    for number, hit in enumerate(hits, start=1):
        suspicious = suspicions(hit.text)
        source = Source(
            number=number,
            document_id=hit.document_id,
            version=hit.version,
            chunk_index=hit.chunk_index,
            start=hit.start,
            text=hit.text,
            title=None if hit.title and suspicions(hit.title) else hit.title,
            suspicious=tuple((one.start, one.end) for one in suspicious),
        )
        found.append((source, suspicious))
    return found


def _shown(hit: RankedHit, source: Source, suspicious: Sequence[Suspicion]) -> AnswerSource:
    return AnswerSource(
        number=source.number,
        document_id=hit.document_id,
        version=hit.version,
        chunk_index=hit.chunk_index,
        start=hit.start,
        end=hit.end,
        title=hit.title,
        source=hit.source,
        text=hit.text,
        score=hit.score,
        suspicious=list(dict.fromkeys(one.kind for one in suspicious)),
    )
