"""A router between two real servers, and an observer that remembers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processors.errors import UnavailableError
from processors.llm import turn
from processors.llm_stream import Usage
from processors.routing.budgets import Alert, Limit
from processors.routing.ledger import SqliteLedger
from processors.routing.router import Router
from schemas.settings import Llm
from tests.ollama_server import OllamaServer, ollama_server

ASK = [turn("user", "How much leave is there?")]  # 5 words
SAID = "Leave is 30 days. It is paid."  # 8 tokens of the server's


@dataclass
class Seen:
    """An observer that remembers."""

    outcomes: list[tuple[str, str]] = field(default_factory=list)
    used_: list[tuple[str, Usage, float]] = field(default_factory=list)
    alerts: list[tuple[str, str, int]] = field(default_factory=list)
    limits: Sequence[Limit] = ()
    share: Callable[[Limit], float] = lambda limit: 0.0

    def watch(self, limits: Sequence[Limit], share: Callable[[Limit], float]) -> None:
        self.limits, self.share = limits, share

    def tried(self, model: str, outcome: str, problem: UnavailableError | None = None) -> None:
        self.outcomes.append((model, outcome))

    def first(self, model: str, seconds: float) -> None:
        assert seconds > 0

    def used(self, model: str, usage: Usage, money: float) -> None:
        self.used_.append((model, usage, money))

    def alert(self, alert: Alert) -> None:
        self.alerts.append((alert.limit.name, alert.limit.period, alert.percent))


@dataclass
class Bench:
    """A router between a paid model on one server, which is better, and a free one on another."""

    router: Router
    seen: Seen
    paid: OllamaServer
    free: OllamaServer

    def ask(self, timeout: float = 10.0) -> str:
        """Who answers."""
        reply = self.router.stream(ASK, max_tokens=20, timeout=timeout)
        assert "".join(reply) == SAID
        assert reply.model is not None
        return reply.model

    @property
    def asked(self) -> tuple[int, int]:
        return len(self.paid.requests), len(self.free.requests)


@contextmanager
def bench(folder: Path, *, budget: Any = None, spending: Any = None, **paid: Any) -> Iterator[Bench]:
    with ExitStack() as closing:
        servers = [closing.enter_context(ollama_server(chat=lambda turns: SAID)) for _ in range(2)]
        models = [
            {
                "name": "paid",
                "url": f"{servers[0].url}/v1",
                "output_price": 1000.0,
                "input_price": 100.0,
                "quality": 0.9,
            }
            | {"budget": spending or {}, **paid},
            {"name": "free", "url": servers[1].url, "protocol": "ollama", "model": "gemma"},
        ]
        seen = Seen()
        llm = Llm.model_validate({"models": models, "strategy": "quality", "budget": budget or {}})
        router = Router(llm, task="answers", ledger=SqliteLedger(folder / "llm.sqlite"), observe=seen)
        closing.callback(router.close)
        yield Bench(router, seen, *servers)
