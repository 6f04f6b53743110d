"""An Ollama server as its API documentation describes it (docs/api.md), over the packaged model, that can misbehave."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[list[str]], NDArray[np.float32]]


@dataclass
class OllamaServer:
    """What it was asked, and what the next answers are instead of the right one: a status, a body, or seconds late."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    misbehave: list[int | str | float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    connections: set[tuple[str, int]] = field(default_factory=set)


@contextmanager
def ollama_server(embed: Embed) -> Iterator[OllamaServer]:
    """A server on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    seen = OllamaServer(f"http://127.0.0.1:{server.server_port}")
    lock = threading.Lock()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.requests.append(body)
                seen.connections.add(self.client_address)
                seen.under_way += 1
                seen.most_under_way = max(seen.most_under_way, seen.under_way)
                odd = seen.misbehave.pop(0) if seen.misbehave else None
            try:
                self.answer(body, odd)
            finally:
                with lock:
                    seen.under_way -= 1

        def answer(self, body: dict[str, Any], odd: float | str | None) -> None:
            if isinstance(odd, float):
                time.sleep(odd)
            if isinstance(odd, str):
                return self.send(200, odd)
            if isinstance(odd, int):
                return self.send(odd, json.dumps({"error": f"as told: {odd}"}))
            vectors = embed(body["input"])
            return self.send(200, json.dumps({"model": body["model"], "embeddings": vectors.tolist()}))

        def send(self, status: int, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server.RequestHandlerClass = Answers
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
