"""What a track answered lately, as Prometheus saw it."""

import math
from dataclasses import dataclass

import httpx

_COUNT = "aegis_http_request_duration_seconds_count"
_BUCKET = "aegis_http_request_duration_seconds_bucket"
_WRONG = ',status=~"5.."'
# Probes and scrapes would thin out the errors of requests; streams last as long as their readers like.
_ROUTES = 'route!~"/health.*|/metrics|.*/events|.*/stream"'


@dataclass(frozen=True)
class Observed:
    """Answers in a time: how many, which share of them were 5xx, and the seconds that 95 % stayed below."""

    requests: float
    errors: float
    p95: float


class Prometheus:
    """A server that scrapes the API with the label `track`; ``selector`` narrows further, as `namespace="x"`.

    Raises:
        httpx.HTTPError: It does not answer (from every call).
    """

    def __init__(self, url: str, *, selector: str = "", timeout: float = 10.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout)
        self._selector = f",{selector}" if selector else ""

    def observed(self, track: str, seconds: float) -> Observed:
        """The track's answers of the last ``seconds``."""
        of = f'track="{track}",{_ROUTES}{self._selector}'
        requests = self._value(f"sum({_gained(_COUNT, of, seconds)})")
        wrong = self._value(f"sum({_gained(_COUNT, of + _WRONG, seconds)})")
        p95 = self._value(f"histogram_quantile(0.95, sum by (le) ({_gained(_BUCKET, of, seconds)}))")
        return Observed(requests, wrong / requests if requests else 0.0, p95)

    def _value(self, query: str) -> float:
        """The query's one number; 0 where there is no series, or nothing in it."""
        response = self._http.get("/api/v1/query", params={"query": query})
        response.raise_for_status()
        result = response.json()["data"]["result"]
        value = float(result[0]["value"][1]) if result else 0.0
        return 0.0 if math.isnan(value) else value


def _gained(name: str, labels: str, seconds: float) -> str:
    """What a counter grew by; of one that is new or began anew, all of it, which `increase` would not see."""
    counter = f"{name}{{{labels}}}"
    return f"({counter} - {counter} offset {max(1, round(seconds))}s >= 0) or {counter}"
