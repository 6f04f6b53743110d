"""A chat with a language model: on an Ollama server (docs/api.md there), or on any that speaks as OpenAI's does."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
from pydantic import SecretStr
from pydantic_core import from_json

from processors.errors import UnavailableError
from processors.llm_stream import Reply
from schemas.settings import Llm

ChatProtocol = Literal["openai", "ollama"]
Turn = Mapping[str, str]
Schema = Mapping[str, Any]

_MAX_ANSWER_BYTES = 4_000_000  # a stream takes about 150 bytes per token
_REFUSALS = (400, 413, 422)


class RefusedError(UnavailableError):
    """The server refuses this very request (too long, filtered, not understood), and would refuse it again."""


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
    ) -> None:
        self.name = model
        self._protocol = protocol
        self._timeout = timeout
        self._context_tokens = context_tokens
        headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        shared: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}
        shared["verify"] = httpx.create_ssl_context()  # half a second each
        self._client = httpx.Client(**shared)
        self._streams = httpx.Client(**shared, limits=httpx.Limits(max_keepalive_connections=0))  # see Reply

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
        self._streams.close()

    def ask(self, turns: Sequence[Turn], *, schema: Schema | None = None, max_tokens: int | None = None) -> str:
        """What the model says next; not every model keeps to the JSON schema, and ``max_tokens`` may cut it short.

        Raises:
            RefusedError: The server does not take these turns.
            UnavailableError: It cannot be reached, fails, or does not answer in time or as documented.
        """
        is_ollama = self._protocol == "ollama"
        path, body = (
            self._to_ollama(turns, schema, max_tokens) if is_ollama else self._to_openai(turns, schema, max_tokens)
        )
        content = self._post(path, body)
        try:
            return _from_ollama(content) if is_ollama else _from_openai(content)
        except (ValueError, LookupError, TypeError) as error:
            said = content[:200].decode(errors="replace")
            raise UnavailableError(f"the language model {self.name} fails: {error}, in {said!r}") from error

    def stream(self, turns: Sequence[Turn], *, max_tokens: int | None = None, timeout: float | None = None) -> Reply:
        """What the model says next, piece by piece; ``timeout`` (seconds) is for all of it, by default the model's own.

        Reading it raises what ``ask`` raises.
        """
        is_ollama = self._protocol == "ollama"
        path, body = self._to_ollama(turns, None, max_tokens) if is_ollama else self._to_openai(turns, None, max_tokens)
        seconds = self._timeout if timeout is None else timeout
        request = self._streams.build_request("POST", path, json={**body, "stream": True}, timeout=seconds)
        deadline = time.monotonic() + seconds
        return Reply(self._streams, request, protocol=self._protocol, deadline=deadline, refused=self._refused)

    def _to_ollama(self, turns: Sequence[Turn], schema: Schema | None, tokens: int | None) -> tuple[str, Any]:
        options = _given(temperature=0, num_ctx=self._context_tokens, num_predict=tokens)
        # A model that thinks spends its tokens on that, and its answer is empty.
        shape = _given(model=self.name, messages=turns, stream=True, think=False, format=schema, options=options)
        return "api/chat", shape

    def _to_openai(self, turns: Sequence[Turn], schema: Schema | None, tokens: int | None) -> tuple[str, Any]:
        named = schema and {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        shape = _given(model=self.name, messages=turns, temperature=0, max_tokens=tokens, response_format=named)
        return "chat/completions", shape

    def _post(self, path: str, body: Any) -> bytes:
        deadline = time.monotonic() + self._timeout
        content = bytearray()
        try:
            with self._client.stream("POST", path, json=body) as response:
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _MAX_ANSWER_BYTES or time.monotonic() > deadline:
                        raise UnavailableError(f"the language model {self.name} fails: its answer does not end")
        except httpx.HTTPError as error:
            raise UnavailableError(f"the language model {self.name} fails: {error!r}") from error
        if response.is_success:
            return bytes(content)
        raise self._refused(response, content[:200].decode(errors="replace"))

    def _refused(self, response: httpx.Response, said: str) -> UnavailableError:
        kind = RefusedError if response.status_code in _REFUSALS else UnavailableError
        wait = _seconds(response.headers.get("Retry-After"))
        return kind(f"the language model {self.name} answers {response.status_code}: {said}", retry_after=wait)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _from_ollama(content: bytes) -> str:
    """The pieces of a stream together. An error may come after a status of 200, as its last line."""
    lines = [from_json(line) for line in content.splitlines()]
    errors = [line["error"] for line in lines if "error" in line]
    if errors:
        raise ValueError(errors[0])
    if not lines[-1]["done"]:
        raise ValueError("the stream ends before the answer does")
    return "".join(line["message"]["content"] for line in lines if "message" in line)


def _from_openai(content: bytes) -> str:
    return str(from_json(content)["choices"][0]["message"]["content"] or "")


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
