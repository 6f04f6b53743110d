"""What language models have cost, kept where restarts and other processes find it.

Money is counted in billionths of whatever currency the prices are in, so that sums are exact. An *account* is a period
(``2026-11-22`` or ``2026-11``, UTC) and who spends in it: a model, or ``all``. What a call may cost is reserved before
it is made; a process that dies in between leaves its reservation, which then counts to the end of the period.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from processors.errors import UnavailableError

UNIT = 1_000_000_000
_LOCK_TIMEOUT = 10.0


class Account(NamedTuple):
    """Who spends, and when."""

    period: str
    name: str


class Balance(NamedTuple):
    """What an account has spent, and what calls under way may add."""

    spent: int = 0
    reserved: int = 0


class Ledger(Protocol):
    """Balances of accounts. From any thread, and several processes at once.

    Raises (all methods):
        UnavailableError: It cannot be read or written now.
    """

    def reserve(self, accounts: Sequence[Account], amount: int, limits: Mapping[Account, int]) -> Account | None:
        """Reserve in all of these accounts, or in none; the account whose limit is in the way."""

    def settle(self, accounts: Sequence[Account], *, reserved: int, spent: int) -> None:
        """In place of what was reserved, note what was spent."""

    def balances(self, accounts: Sequence[Account]) -> list[Balance]:
        """The balance of each."""

    def claim(self, account: Account, percent: int) -> bool:
        """Whether this is the first time that anybody asks this of this account."""


_TABLES = (
    "balances (period TEXT, name TEXT, spent INTEGER, reserved INTEGER, PRIMARY KEY (period, name)) WITHOUT ROWID",
    "claims (period TEXT, name TEXT, percent INTEGER, PRIMARY KEY (period, name, percent)) WITHOUT ROWID",
)
_RESERVE = """
INSERT INTO balances VALUES (?, ?, 0, ?) ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved
"""
_SETTLE = "UPDATE balances SET spent = spent + ?, reserved = reserved - ? WHERE period = ? AND name = ?"
_BALANCE = "SELECT spent, reserved FROM balances WHERE period = ? AND name = ?"


class SqliteLedger:
    """A database file that the processes of one machine share. The last year is kept."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def reserve(self, accounts: Sequence[Account], amount: int, limits: Mapping[Account, int]) -> Account | None:
        """Reserve in all of these accounts, or in none; the account whose limit is in the way."""
        with self._opened() as connection:
            for account in accounts:
                if account in limits and sum(_balance(connection, account)) + amount > limits[account]:
                    return account
            connection.executemany(_RESERVE, [(*account, amount) for account in accounts])
            for forget in ("DELETE FROM balances WHERE period < ?", "DELETE FROM claims WHERE period < ?"):
                connection.execute(forget, (_year_before(accounts[0]),))
        return None

    def settle(self, accounts: Sequence[Account], *, reserved: int, spent: int) -> None:
        """In place of what was reserved, note what was spent."""
        with self._opened() as connection:
            connection.executemany(_SETTLE, [(spent, reserved, *account) for account in accounts])

    def balances(self, accounts: Sequence[Account]) -> list[Balance]:
        """The balance of each."""
        with self._opened() as connection:
            return [_balance(connection, account) for account in accounts]

    def claim(self, account: Account, percent: int) -> bool:
        """Whether this is the first time that anybody asks this of this account."""
        with self._opened() as connection:
            return connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", (*account, percent)).rowcount > 0

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes in."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._file, timeout=_LOCK_TIMEOUT, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                for table in _TABLES:
                    connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"the ledger of language models fails: {error}") from error


def _balance(connection: sqlite3.Connection, account: Account) -> Balance:
    row = connection.execute(_BALANCE, account).fetchone()
    return Balance(*row) if row else Balance()


def _year_before(account: Account) -> str:
    return f"{int(account.period[:4]) - 1}{account.period[4:7]}"
