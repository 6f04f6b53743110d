"""Sentence encoders on an Ollama server, by ``POST /api/embed`` (Ollama's API documentation, docs/api.md)."""

import threading
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from processors.errors import FatalError, PermanentError, UnavailableError
from processors.runtimes.runtime import Tokenised, Vectors
from schemas.settings import Ollama


class OllamaRuntime:
    """One model on a server that others may use too.

    Connections are pooled and kept; at most ``connections`` requests are under way. The server keeps the model loaded
    for ``keep_alive`` and cuts texts at the model's limit itself.
    """

    def __init__(self, settings: Ollama, *, dimension: int) -> None:
        self._settings = settings
        self._dimension = dimension
        limits = httpx.Limits(max_connections=settings.connections, max_keepalive_connections=settings.connections)
        self._client = httpx.Client(base_url=settings.url, timeout=settings.timeout, limits=limits)
        self._slots = threading.BoundedSemaphore(settings.connections)

    def encode(self, batch: Sequence[Tokenised]) -> Vectors:
        """As ``Runtime.encode``.

        Raises:
            PermanentError: The server refuses the texts.
            FatalError: The server's model is another one: its vectors have another length.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(UnavailableError),
            stop=stop_after_attempt(self._settings.attempts),
            wait=wait_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        with self._slots:
            rows = attempts(self._ask, [text.text for text in batch])
        if len(rows) != len(batch) or any(len(row) != self._dimension for row in rows):
            raise FatalError(
                f"Ollama's {self._settings.model} gave {len(rows)} vectors of {len(rows[0]) if rows else 0} dimensions "
                f"for {len(batch)} texts of a {self._dimension}-dimensional index: "
                "AEGIS_EMBEDDING__OLLAMA__MODEL has to name the index's model"
            )
        vectors = np.asarray(rows, np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise UnavailableError(f"Ollama's {self._settings.model} returned a vector without a direction")
        unit: Vectors = vectors / lengths
        return unit

    def _ask(self, texts: list[str]) -> list[list[float]]:
        body = {"model": self._settings.model, "input": texts, "keep_alive": self._settings.keep_alive}
        try:
            answer = self._client.post("/api/embed", json=body)
        except httpx.HTTPError as error:
            raise UnavailableError(f"Ollama at {self._settings.url} does not answer: {error!r}") from error
        if answer.is_success:
            return _embeddings(answer)
        said = f"Ollama at {self._settings.url} answered {answer.status_code}: {answer.text[:300]}"
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise PermanentError(said)
        raise UnavailableError(said, retry_after=_seconds(answer.headers.get("retry-after")))


def _embeddings(answer: httpx.Response) -> list[list[float]]:
    try:
        found: Any = answer.json()["embeddings"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"Ollama's answer is not as documented: {answer.text[:300]}") from error
    return list(found)


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
