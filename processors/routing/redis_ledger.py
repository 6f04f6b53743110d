"""The ledger in a Redis that several machines share: a hash per period."""

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from processors.errors import UnavailableError
from processors.routing.ledger import Account, Balance

_TIMEOUT = 5.0
_KEPT = 400 * 86_400
# KEYS: an account's hash, one after the other. ARGV: amount, seconds to keep, then of each its name and limit, or -1.
# Lua's numbers are exact up to 2^53, nine million of a currency.
_RESERVE = """
local amount = tonumber(ARGV[1])
for place, key in ipairs(KEYS) do
  local name, limit = ARGV[2 * place + 1], tonumber(ARGV[2 * place + 2])
  local taken = tonumber(redis.call('HGET', key, name .. ':spent') or 0)
              + tonumber(redis.call('HGET', key, name .. ':reserved') or 0)
  if limit >= 0 and taken + amount > limit then return place end
end
for place, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, ARGV[2 * place + 1] .. ':reserved', ARGV[1])
  redis.call('EXPIRE', key, ARGV[2])
end
return 0
"""


class RedisLedger:
    """As ``processors.routing.ledger.Ledger``. Written with Redis' own durability: where it forgets, so do budgets."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
        )

    def reserve(self, accounts: Sequence[Account], amount: int, limits: Mapping[Account, int]) -> Account | None:
        """Reserve in all of these accounts, or in none; the account whose limit is in the way."""
        given = [part for one in accounts for part in (one.name, limits.get(one, -1))]
        keys = [_key(account) for account in accounts]
        [refused] = self._run([("EVAL", _RESERVE, len(keys), *keys, amount, _KEPT, *given)])
        return accounts[refused - 1] if refused else None

    def settle(self, accounts: Sequence[Account], *, reserved: int, spent: int) -> None:
        """In place of what was reserved, note what was spent."""
        changes = {"spent": spent, "reserved": -reserved}
        self._run(
            [("HINCRBY", _key(one), f"{one.name}:{kind}", by) for one in accounts for kind, by in changes.items()]
        )

    def balances(self, accounts: Sequence[Account]) -> list[Balance]:
        """The balance of each."""
        found = self._run(
            [("HMGET", _key(one), *(f"{one.name}:{kind}" for kind in Balance._fields)) for one in accounts]
        )
        return [Balance(*(int(amount or 0) for amount in amounts)) for amounts in found]

    def claim(self, account: Account, percent: int) -> bool:
        """Whether this is the first time that anybody asks this of this account."""
        [is_first] = self._run([("HSETNX", _key(account), f"{account.name}:{percent}%", 1)])
        return bool(is_first)

    def _run(self, commands: Sequence[tuple[object, ...]]) -> list[Any]:
        try:
            with self._redis.pipeline(transaction=True) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                return pipeline.execute()
        except redis.RedisError as error:
            raise UnavailableError(f"the ledger of language models fails: {type(error).__name__}") from error


def _key(account: Account) -> str:
    return f"aegis:llm:{account.period}"
