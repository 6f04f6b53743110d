"""Conversations, in this process's memory: bounded in number, length and age."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from processors.answers.prompts import Exchange
from schemas.settings import Answers

_CHARS_PER_TOKEN = 4


@dataclass
class _Session:
    exchanges: tuple[Exchange, ...]
    used_at: float


class Sessions:
    """What was said, by who asked and session id."""

    def __init__(self, settings: Answers, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()  # the longest silent first

    def history(self, who: str, session_id: str) -> Sequence[Exchange]:
        """What was said so far, oldest first; nothing if the conversation is new or forgotten."""
        self._forget()
        session = self._sessions.get((who, session_id))
        return session.exchanges if session else ()

    def add(self, who: str, session_id: str, exchange: Exchange) -> None:
        """Remember an exchange, and of those before it as many as there is room for."""
        if not session_id:
            return
        before = self._sessions.pop((who, session_id), _Session((), 0.0)).exchanges
        exchanges = (*before, exchange)[-self._settings.session_turns :]
        room = self._settings.session_tokens * _CHARS_PER_TOKEN
        while len(exchanges) > 1 and sum(map(_chars, exchanges)) > room:
            exchanges = exchanges[1:]
        if _chars(exchanges[-1]) > room:
            exchanges = (Exchange(exchange.question, exchange.answer[: max(0, room - len(exchange.question))]),)
        self._sessions[who, session_id] = _Session(exchanges, self._clock())
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock() - self._settings.session_ttl
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            if session.used_at >= oldest and len(self._sessions) <= self._settings.max_sessions:
                return
            del self._sessions[key]


def _chars(exchange: Exchange) -> int:
    return len(exchange.question) + len(exchange.answer)
