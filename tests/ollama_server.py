"""An Ollama server as its API documentation describes it (docs/api.md, docs/openai.md, errors), that can misbehave.

It embeds with the packaged model, and chats with what a test gives it as a language model.
"""

import enum
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

Embed = Callable[[list[str]], NDArray[np.float32]]
Chat = Callable[[list[dict[str, str]]], str]


class Odd(enum.Enum):
    """What may go wrong once an answer has begun."""

    ERROR_INSIDE = enum.auto()  # status 200, then a line that says what went wrong
    BREAKS_OFF = enum.auto()  # the connection ends before the answer does
    ENDS_EARLY = enum.auto()  # a whole response, but no line says that it is done
    TRICKLES = enum.auto()  # goes on for ever, a piece at a time


@dataclass
class OllamaServer:
    """What it was asked, and what the next answers are instead of the right one.

    ``misbehave``: a status, a body, seconds late, or an ``Odd`` way to answer; None answers rightly.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    misbehave: list[int | str | float | Odd | None] = field(default_factory=list)
    retry_after: int = 7
    under_way: int = 0
    most_under_way: int = 0
    connections: set[tuple[str, int]] = field(default_factory=set)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def ollama_server(embed: Embed | None = None, chat: Chat | None = None) -> Iterator[OllamaServer]:
    """A server on a free port."""
    server = _Server(embed, chat)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.seen
    finally:
        server.seen.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, embed: Embed | None, chat: Chat | None) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.seen = OllamaServer(f"http://127.0.0.1:{self.server_port}")
        self.embed = embed
        self.chat = chat
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client does not wait any more
            super().handle_error(request, client_address)


class _Answers(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = self.server.seen
        with self.server.lock:
            seen.requests.append(body)
            seen.paths.append(self.path)
            seen.connections.add(self.client_address)
            seen.under_way += 1
            seen.most_under_way = max(seen.most_under_way, seen.under_way)
            odd = seen.misbehave.pop(0) if seen.misbehave else None
        try:
            self.answer(body, odd)
        finally:
            with self.server.lock:
                seen.under_way -= 1

    def answer(self, body: dict[str, Any], odd: float | str | Odd | None) -> None:
        if isinstance(odd, float):
            self.server.seen.closing.wait(odd)
        if isinstance(odd, str):
            self.send(200, odd)
        elif isinstance(odd, int):
            self.refuse(odd, f"as told: {odd}")
        else:
            self.answer_rightly(body, odd if isinstance(odd, Odd) else None)

    def answer_rightly(self, body: dict[str, Any], odd: Odd | None) -> None:
        embed, chat = self.server.embed, self.server.chat
        if self.path == "/api/embed" and embed:
            self.send(200, json.dumps({"model": body["model"], "embeddings": embed(body["input"]).tolist()}))
        elif self.path == "/api/chat" and chat:
            self.chat_as_ollama(chat, body, odd)
        elif self.path == "/v1/chat/completions" and chat:
            self.chat_as_openai(chat, body, odd)
        else:
            self.refuse(404, "404 page not found")

    def chat_as_ollama(self, chat: Chat, body: dict[str, Any], odd: Odd | None) -> None:
        schema = body.get("format")
        if schema:
            Draft202012Validator.check_schema(schema)
        said, cut = _within(chat(body["messages"]), body.get("options", {}).get("num_predict"))
        lines = [self.line(body, message={"role": "assistant", "content": piece}, done=False) for piece in said]
        end = self.line(
            body,
            message={"role": "assistant", "content": ""},
            done=True,
            done_reason="length" if cut else "stop",
            prompt_eval_count=_words(body),
            eval_count=len(said),
        )
        if not body.get("stream", True):
            whole = {**json.loads(end), "message": {"role": "assistant", "content": "".join(said)}}
            return self.send(200, json.dumps(whole))
        if odd is Odd.TRICKLES:
            return self.stream(self.endless(lines[0]))
        if odd is Odd.ERROR_INSIDE:
            end = json.dumps({"error": "an error was encountered while running the model"})
        if odd is not None:
            lines = lines[: len(lines) // 2]
        ends = odd in (None, Odd.ERROR_INSIDE)
        return self.stream(iter([*lines, end] if ends else lines), breaks_off=odd is Odd.BREAKS_OFF)

    def chat_as_openai(self, chat: Chat, body: dict[str, Any], odd: Odd | None) -> None:
        shape = body.get("response_format", {"type": "text"})
        if shape["type"] == "json_schema":
            Draft202012Validator.check_schema(shape["json_schema"]["schema"])
        said, cut = _within(chat(body["messages"]), body.get("max_tokens"))
        if body.get("stream"):
            return self.stream_as_openai(said, "length" if cut else "stop", body, odd)
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(said)},
                    "finish_reason": "length" if cut else "stop",
                }
            ],
            "usage": _usage(body, said),
        }
        content = json.dumps(answer)
        if odd is Odd.ERROR_INSIDE:
            return self.refuse(500, "an error was encountered while running the model")
        self.send(200, content if odd is None else content[: len(content) // 2])

    def stream_as_openai(self, said: list[str], reason: str, body: dict[str, Any], odd: Odd | None) -> None:
        def event(delta: dict[str, str], finish_reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": body["model"], "choices": [choice]}
            return f"data: {json.dumps(chunk)}\n"

        lines = [event({"role": "assistant", "content": ""}), *(event({"content": piece}) for piece in said)]
        if odd is Odd.TRICKLES:
            return self.stream(self.endless(lines[-1]))
        if odd is not None:
            failed = 'data: {"error": {"message": "an error was encountered while running the model"}}\n'
            half = lines[: len(lines) // 2]
            rest = [failed] if odd is Odd.ERROR_INSIDE else []
            return self.stream(iter([*half, *rest]), breaks_off=odd is Odd.BREAKS_OFF)
        lines.append(event({}, reason))
        if body.get("stream_options", {}).get("include_usage"):
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": body["model"], "choices": []}
            lines.append(f"data: {json.dumps(chunk | {'usage': _usage(body, said)})}\n")
        return self.stream(iter([*lines, "data: [DONE]\n"]))

    def line(self, body: dict[str, Any], **rest: Any) -> str:
        return json.dumps({"model": body["model"], "created_at": "2026-11-21T18:00:00.000000Z", **rest})

    def endless(self, line: str) -> Iterator[str]:
        while not self.server.seen.closing.wait(0.02):
            yield line

    def stream(self, lines: Iterator[str], *, breaks_off: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            piece = line.encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if breaks_off:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int, why: str) -> None:
        as_openai = {"message": why, "type": "api_error", "param": None, "code": None}
        self.send(status, json.dumps({"error": as_openai if self.path.startswith("/v1/") else why}))

    def send(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", str(self.server.seen.retry_after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _words(body: dict[str, Any]) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


def _usage(body: dict[str, Any], said: list[str]) -> dict[str, int]:
    prompt, completion = _words(body), len(said)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _within(answer: str, max_tokens: int | None) -> tuple[list[str], bool]:
    """The answer in tokens of 4 characters, as far as they may go, and whether it was cut."""
    tokens = [answer[start : start + 4] for start in range(0, len(answer), 4)] or [""]
    return tokens[:max_tokens], max_tokens is not None and len(tokens) > max_tokens
