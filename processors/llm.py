"""A chat with a language model: on an Ollama server (docs/api.md there), or on any that speaks as OpenAI's does."""

import hashlib
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, Protocol

import httpx
from pydantic import SecretStr

from processors.errors import UnavailableError
from processors.llm_stream import Reply
from schemas.settings import Llm

ChatProtocol = Literal["openai", "ollama"]
Turn = Mapping[str, str]
Schema = Mapping[str, Any]

_REFUSALS = (400, 413, 422)


class RefusedError(UnavailableError):
    """The server refuses this very request (too long, filtered, not understood), and would refuse it again."""


class RateLimitedError(UnavailableError):
    """The server has been asked too often, and says so."""


class Chat(Protocol):
    """Who answers: a model, or one of several."""

    @property
    def name(self) -> str:
        """What it is called."""

    def ask(self, turns: Sequence[Turn], *, schema: Schema | None = None, max_tokens: int | None = None) -> str:
        """What is said next.

        Raises:
            UnavailableError: Nothing is.
        """

    def close(self) -> None:
        """Close the connections."""


class ChatModel:
    """A language model that answers at temperature 0, in one try. May be shared by threads.

    Args:
        url: Up to and with ``/v1`` for ``openai``, the server's root for ``ollama``.
        model: The model's name there.
        protocol: What the server speaks. ``openai``: Ollama, vLLM and llama.cpp do too.
        api_key: Sent as a bearer token where given.
        timeout: Seconds one answer may take.
        context_tokens: Tokens of question and answer that an Ollama server makes room for. All who use a model have to
            ask for as many, or the server loads it anew for each; without, it cuts long questions as it is set up.
        counted: Ask for the number of tokens in streams too; not every server knows that option.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        protocol: ChatProtocol = "openai",
        api_key: SecretStr | None = None,
        timeout: float = 30.0,
        context_tokens: int | None = None,
        counted: bool = False,
    ) -> None:
        self.name = model
        self._options = {"stream_options": {"include_usage": True}} if counted and protocol == "openai" else {}
        self._protocol = protocol
        self._timeout = timeout
        self._context_tokens = context_tokens
        headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._client = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=timeout,
            verify=_authorities(),
            limits=httpx.Limits(max_keepalive_connections=0),  # see Reply
        )

    @classmethod
    def of(cls, settings: Llm) -> "ChatModel":
        """The one that the settings name."""
        return cls(
            settings.url,
            model=settings.model,
            protocol=settings.protocol,
            api_key=settings.api_key,
            timeout=settings.timeout,
            context_tokens=settings.context_tokens,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, turns: Sequence[Turn], *, schema: Schema | None = None, max_tokens: int | None = None) -> str:
        """What the model says next; not every model keeps to the JSON schema, and ``max_tokens`` may cut it short.

        Raises:
            RefusedError: The server does not take these turns.
            UnavailableError: It cannot be reached, fails, or does not answer in time or as documented.
        """
        return "".join(self.stream(turns, schema=schema, max_tokens=max_tokens))

    def stream(
        self,
        turns: Sequence[Turn],
        *,
        schema: Schema | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        first: float | None = None,
    ) -> Reply:
        """What the model says next, piece by piece; ``timeout`` (seconds) is for all of it, by default the model's own.

        Reading it raises what ``ask`` raises, also when no piece comes within ``first`` seconds, and none for as long.
        """
        is_ollama = self._protocol == "ollama"
        path, body = (
            self._to_ollama(turns, schema, max_tokens) if is_ollama else self._to_openai(turns, schema, max_tokens)
        )
        seconds = self._timeout if timeout is None else timeout
        silence = seconds if first is None else min(first, seconds)
        body = {**body, "stream": True, **self._options}
        now = time.monotonic()
        return Reply(
            self._client,
            self._client.build_request("POST", path, json=body, timeout=silence),
            model=self.name,
            protocol=self._protocol,
            deadline=now + seconds,
            first_by=now + silence,
            refused=self._refused,
        )

    def _to_ollama(self, turns: Sequence[Turn], schema: Schema | None, tokens: int | None) -> tuple[str, Any]:
        options = _given(temperature=0, num_ctx=self._context_tokens, num_predict=tokens)
        # A model that thinks spends its tokens on that, and its answer is empty.
        shape = _given(model=self.name, messages=turns, stream=True, think=False, format=schema, options=options)
        return "api/chat", shape

    def _to_openai(self, turns: Sequence[Turn], schema: Schema | None, tokens: int | None) -> tuple[str, Any]:
        named = schema and {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        shape = _given(model=self.name, messages=turns, temperature=0, max_tokens=tokens, response_format=named)
        return "chat/completions", shape

    def _refused(self, response: httpx.Response, said: str) -> UnavailableError:
        limited = RateLimitedError if response.status_code == 429 else UnavailableError
        kind = RefusedError if response.status_code in _REFUSALS else limited
        wait = _seconds(response.headers.get("Retry-After"))
        return kind(f"the language model {self.name} answers {response.status_code}: {said}", retry_after=wait)


@cache
def _authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes half a second


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None  # it may be absent, or a date


def turn(role: Literal["system", "user", "assistant"], content: str) -> Turn:
    """One turn of a chat."""
    return {"role": role, "content": content}


def fence(texts: Sequence[str]) -> str:
    """A mark between texts that none of them can hold, since every text is part of it."""
    return "==" + hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def json_object(answer: str) -> str:
    """The part of an answer that may be a JSON object, without what a model wraps around it."""
    return answer[answer.find("{") : answer.rfind("}") + 1]
