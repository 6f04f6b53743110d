"""Where keys, users and usage are kept: a file that the processes of one machine share, or Redis."""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import redis

from processors.errors import UnavailableError

Kind = Literal["key", "user", "secret"]

_DAY = 86_400
_USAGE_DAYS = 90
_TIMEOUT = 5.0
_LOCK_TIMEOUT = 15.0  # others write for a millisecond, on a machine that has one to give

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (kind TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (day INTEGER, name TEXT, requests INTEGER NOT NULL, last_used REAL NOT NULL,
                                  PRIMARY KEY (day, name)) WITHOUT ROWID;
"""
_COUNT = """
INSERT INTO usage VALUES (?, ?, 1, ?)
ON CONFLICT DO UPDATE SET requests = requests + 1, last_used = excluded.last_used
"""


@dataclass(frozen=True)
class Usage:
    """When the last request was, and how many there were by day (``2026-11-21``, UTC) of the last 90."""

    last_used: float | None
    requests: Mapping[str, int]


class AccessStore(Protocol):
    """Small texts by kind and name, and counters. From any thread.

    Raises (all methods):
        UnavailableError: The store does not answer.
    """

    def get(self, kind: Kind, name: str) -> str | None:
        """The text of that name."""

    def put(self, kind: Kind, name: str, value: str) -> None:
        """Keep a text, in place of another of that name."""

    def add(self, kind: Kind, name: str, value: str) -> bool:
        """Keep a text unless there is one of that name; whether it was kept."""

    def remove(self, kind: Kind, name: str) -> bool:
        """Forget a text; whether there was one."""

    def all(self, kind: Kind) -> Mapping[str, str]:
        """Every text of a kind by its name."""

    def count(self, name: str) -> None:
        """Note one request of ``name`` now."""

    def usage(self, name: str) -> Usage:
        """What was noted of ``name``."""


class SqliteStore:
    """A database file, made when something is first kept; nobody else on the machine can read it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._local = threading.local()
        self._swept_on = -1

    def get(self, kind: Kind, name: str) -> str | None:
        """The text of that name."""
        rows = self._read("SELECT value FROM records WHERE kind = ? AND name = ?", kind, name)
        return rows[0][0] if rows else None

    def put(self, kind: Kind, name: str, value: str) -> None:
        """Keep a text, in place of another of that name."""
        self._write("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", kind, name, value)

    def add(self, kind: Kind, name: str, value: str) -> bool:
        """Keep a text unless there is one of that name; whether it was kept."""
        return self._write("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", kind, name, value) == 1

    def remove(self, kind: Kind, name: str) -> bool:
        """Forget a text; whether there was one."""
        return self._write("DELETE FROM records WHERE kind = ? AND name = ?", kind, name) == 1

    def all(self, kind: Kind) -> Mapping[str, str]:
        """Every text of a kind by its name."""
        return dict(self._read("SELECT name, value FROM records WHERE kind = ? ORDER BY name", kind))

    def count(self, name: str) -> None:
        """Note one request of ``name`` now."""
        today = _today()
        if self._swept_on != today:
            self._swept_on = today
            self._write("DELETE FROM usage WHERE day <= ?", today - _USAGE_DAYS)
        self._write(_COUNT, today, name, time.time())

    def usage(self, name: str) -> Usage:
        """What was noted of ``name``."""
        rows = self._read("SELECT day, requests, last_used FROM usage WHERE name = ? ORDER BY day", name)
        return Usage(rows[-1][2] if rows else None, {_date(day): requests for day, requests, _ in rows})

    def _read(self, query: str, *values: object) -> list[Any]:
        with _sqlite_translated():
            if not self._file.exists():
                return []
            return self._connection().execute(query, values).fetchall()

    def _write(self, query: str, *values: object) -> int:
        with _sqlite_translated():
            return self._connection().execute(query, values).rowcount

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with locked(self._file.with_suffix(".lock")):  # turning the log on does not wait for who does the same
                os.close(os.open(self._file, os.O_CREAT, mode=0o600))
                connection = sqlite3.connect(self._file, timeout=_LOCK_TIMEOUT, isolation_level=None)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(_SCHEMA)
            self._local.connection = connection
        return connection


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Be alone on this machine for as long as the block takes; makes the file's folder, for nobody else to read."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class RedisStore:
    """Hashes under ``aegis:access:`` in the Redis that the API processes of an installation share."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
        )

    def get(self, kind: Kind, name: str) -> str | None:
        """The text of that name."""
        text: str | None = self._run("HGET", _name(kind), name)
        return text

    def put(self, kind: Kind, name: str, value: str) -> None:
        """Keep a text, in place of another of that name."""
        self._run("HSET", _name(kind), name, value)

    def add(self, kind: Kind, name: str, value: str) -> bool:
        """Keep a text unless there is one of that name; whether it was kept."""
        return bool(self._run("HSETNX", _name(kind), name, value))

    def remove(self, kind: Kind, name: str) -> bool:
        """Forget a text; whether there was one."""
        return bool(self._run("HDEL", _name(kind), name))

    def all(self, kind: Kind) -> Mapping[str, str]:
        """Every text of a kind by its name."""
        return dict(sorted(self._run("HGETALL", _name(kind)).items()))

    def count(self, name: str) -> None:
        """Note one request of ``name`` now."""
        day = _name("usage", _today())
        with _redis_translated(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hincrby(day, name, 1)
            pipeline.expire(day, _USAGE_DAYS * _DAY)
            pipeline.hset(_name("last-used"), name, str(time.time()))
            pipeline.execute()

    def usage(self, name: str) -> Usage:
        """What was noted of ``name``."""
        days = range(_today() - _USAGE_DAYS + 1, _today() + 1)
        with _redis_translated(), self._redis.pipeline(transaction=False) as pipeline:
            for day in days:
                pipeline.hget(_name("usage", day), name)
            pipeline.hget(_name("last-used"), name)
            *counts, last_used = pipeline.execute()
        requests = {_date(day): int(count) for day, count in zip(days, counts, strict=True) if count}
        return Usage(float(last_used) if last_used else None, requests)

    def _run(self, *command: str) -> Any:
        with _redis_translated():
            return self._redis.execute_command(*command)  # type: ignore[no-untyped-call]


def _name(*parts: object) -> str:
    return ":".join(("aegis:access", *map(str, parts)))


def _today() -> int:
    return int(time.time() // _DAY)


def _date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * _DAY))


@contextmanager
def _sqlite_translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(f"the file of keys and users fails: {error}") from error


@contextmanager
def _redis_translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise UnavailableError(f"Redis fails: {type(error).__name__}") from error
