"""What is in the stores at the end, against what has to be."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from deploy.stores import open_graph_store, open_vectors
from schemas.settings import Settings
from streams.dead_letters import DeadLetters
from tests.fault.cluster import Cluster
from tests.fault.scenarios import Expected


@dataclass
class Verdict:
    """The counts that have to be 0, and how much was checked."""

    scenario: str = ""
    documents: int = 0
    lost: int = 0
    duplicated: int = 0
    stale: int = 0
    lag: int = 0
    unexpected_dead_letters: int = 0
    missing_dead_letters: int = 0
    orphans: int = 0
    restarts: int = 0
    harmless: int = 0  # a fault that was to be and was not
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether every promise held."""
        return not any(
            value
            for name, value in asdict(self).items()
            if name not in ("scenario", "documents", "restarts", "seconds")
        )


def verify(cluster: Cluster, expected: Expected, verdict: Verdict) -> Verdict:
    """Stop the workers, open both stores and count."""
    letters = Counter(letter.document_id for letter in DeadLetters(cluster.servers).find())
    verdict.documents = len(expected.texts)
    verdict.missing_dead_letters = len(expected.dead - letters.keys())
    verdict.unexpected_dead_letters = len(letters.keys() - expected.dead)
    verdict.restarts = sum(child.restarts for child in cluster.children.values())
    verdict.harmless = sum(not (cluster.flags / trace).exists() for trace in expected.traces)
    verdict.harmless += verdict.restarts < expected.restarts
    cluster.stop_workers()
    held = _vector_texts(cluster.settings, verdict)
    graphed = _graph_texts(cluster.settings, verdict)
    for texts in (held, graphed):
        for document_id, text in expected.texts.items():
            found = texts.pop(document_id, None)
            verdict.lost += text is not None and found is None
            verdict.stale += found is not None and found != text
        verdict.stale += len(texts)
    return verdict


def _vector_texts(settings: Settings, verdict: Verdict) -> dict[str, str]:
    sides = open_vectors(settings)
    try:
        rows = list(sides.store.dump())
        verdict.stale += sides.store.staged()  # chunks that nobody will complete
    finally:
        sides.store.close()
    keys = Counter((row.document_id, row.chunk_index) for row in rows)
    verdict.duplicated += sum(count - 1 for count in keys.values())
    return _joined([(row.document_id, row.chunk_index, row.text) for row in rows])


def _graph_texts(settings: Settings, verdict: Verdict) -> dict[str, str]:
    graph = open_graph_store(settings)
    try:
        rows = Counter(graph.dump())
        verdict.orphans += graph.orphans()
    finally:
        graph.close()
    verdict.duplicated += sum(count - 1 for count in rows.values())
    return _joined([row[1:] for row in rows if row[0] == "chunk"])


def _joined(rows: list[tuple[Any, ...]]) -> dict[str, str]:
    """The text of each document, from its chunks in order."""
    texts: dict[str, str] = {}
    for document_id, _, text in sorted(rows):
        texts[document_id] = f"{texts[document_id]} {text}" if document_id in texts else text
    return texts
