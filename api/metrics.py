"""Every metric of the query side; names are a contract with dashboards."""

import time

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_SECONDS = Histogram(
    "aegis_http_request_duration_seconds",
    "From a request's headers to the end of its response.",
    ["route", "method", "status"],
)
REQUESTS_IN_FLIGHT = Gauge("aegis_http_requests_in_flight", "Requests that are being answered.")
SEARCH_SECONDS = Histogram(
    "aegis_search_duration_seconds",
    "Search by phase: embed, retrieve, rerank, arrange, total (without wait_for).",
    ["phase"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ANSWER_SECONDS = Histogram(
    "aegis_answer_duration_seconds",
    "Answers by step: rewrite, search, evidence, generate, total.",
    ["step"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30),
)
ANSWERS = Counter("aegis_answers", "Answers by outcome: generated, partial, extractive, unknown, cached.", ["outcome"])
DEGRADED = Counter("aegis_search_degraded", "Searches answered without a part that did not answer in time.", ["part"])
PUBLISHED = Counter("aegis_api_published_records", "Records published through the API.", ["operation"])
BREAKER_STATE = Gauge(
    "aegis_circuit_breaker_state", "What the API asks: 0 it is asked, 1 it is tried once, 2 it is left alone.", ["name"]
)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """ASGI middleware. Labels are route templates, so that no client can make up new ones."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with REQUESTS_IN_FLIGHT.track_inprogress():
                await self._app(scope, receive, send_noting_status)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUEST_SECONDS.labels(route_of(scope) or "unmatched", method, status).observe(
                time.perf_counter() - started
            )


def route_of(scope: Scope) -> str | None:
    """The template of the route that took the request, once one has."""
    return getattr(scope.get("route"), "path_format", None)
