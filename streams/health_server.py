"""Health and metrics of a worker that has no API."""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.records import StageName
from streams.health import StageHealth

Summary = Callable[[], Mapping[str, object]]


def serve_health(
    healths: Mapping[StageName, StageHealth], *, host: str, port: int, extraction: Summary | None = None
) -> ThreadingHTTPServer:
    """Answer in a daemon thread; port 0 takes any free one (``server_port`` tells).

    ``extraction`` is what ``/health/extraction`` says where the extract stage runs and is ready.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content_type, body = _answer(self.path, healths, extraction)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _answer(path: str, healths: Mapping[StageName, StageHealth], extraction: Summary | None) -> tuple[int, str, bytes]:
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    if path == "/health/live":
        return 200, "application/json", b'{"status":"live"}'
    if path == "/health/extraction" and extraction:
        health = healths["extract"]
        now = {**extraction(), **({} if health.is_ready else {"status": "down", "reason": health.summary()["reason"]})}
        return 200, "application/json", json.dumps(now).encode()
    if path not in ("/health", "/health/ready"):
        return 404, "application/json", b'{"status":404,"title":"Not Found"}'
    ready = all(health.is_ready for health in healths.values())
    summary = {"ready": ready, "stages": {stage: health.summary() for stage, health in healths.items()}}
    return 200 if ready or path == "/health" else 503, "application/json", json.dumps(summary).encode()
