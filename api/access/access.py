"""Who is let in: everything that decides about it, over one store."""

import secrets
import time
from pathlib import Path

from pydantic import SecretStr

from api.access.audit import AuditLog
from api.access.keys import Keys, looks_like_key
from api.access.limits import Limits
from api.access.principals import ANONYMOUS, NOBODY, Principal
from api.access.rules import is_loopback
from api.access.store import AccessStore, RedisStore, SqliteStore
from api.access.tokens import Tokens
from api.access.users import Users
from api.problems import Problem
from schemas.settings import Settings

_LOOK_EVERY = 1.0  # seconds until the first key closes an open server
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="aegis"'}


class Access:
    """Keys, users, tokens, limits and the audit log of an installation.

    Raises (all methods):
        UnavailableError: The store does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError where the settings do not fit each other."""
        folder, access = settings.data_dir / "access", settings.access
        self._store = _store(folder, access.redis_url)
        self._secret = access.jwt_secret
        self._has_issuer = access.issuer.keys is not None
        self._open_until = 0.0
        self._is_closed = not is_loopback(settings.api.host)
        self.keys = Keys(self._store)
        self.users = Users(self._store)
        self.tokens = Tokens(self._signing_secret, lifetime=access.token_lifetime, issuer=access.issuer)
        self.limits = Limits(access)
        self.audit = AuditLog(folder, max_mb=access.audit_file_mb)

    def check(self) -> None:
        """Refuse to serve the network with nobody who could be let in.

        Raises:
            ValueError: There is neither a key nor a user, nor an issuer, and the server is not bound to the loopback.
        """
        if self._is_closed and self._knows_nobody():
            raise ValueError(
                "beyond the loopback (AEGIS_API__HOST) nobody is let in without a key, and there is none; make "
                "one with `aegis keys create NAME`, or a user with `aegis users create NAME`"
            )

    @property
    def is_open(self) -> bool:
        """Whether anybody may do anything, as was seen a moment ago; see ``look``."""
        return time.monotonic() < self._open_until

    def look(self) -> bool:
        """Whether anybody may do anything: on the loopback, until the first key, even if it is revoked."""
        self._is_closed = self._is_closed or not self._knows_nobody()
        if not self._is_closed:
            self._open_until = time.monotonic() + _LOOK_EVERY
        return not self._is_closed

    def principal(self, credential: str | None, *, required: bool) -> Principal:
        """Who shows this key or token.

        Raises:
            Problem: 401, it is required and not there, or opens nothing.
        """
        if self.look():
            return ANONYMOUS
        if credential is None:
            if required:
                raise Problem(401, "unauthorized", "send a key as `Authorization: Bearer`", headers=_CHALLENGE)
            return NOBODY
        known = self.keys if looks_like_key(credential) else self.tokens
        principal = known.principal(credential)
        if principal is None and required:
            raise Problem(401, "unauthorized", "this key or token is not valid, or no longer", headers=_CHALLENGE)
        return principal or NOBODY

    def _knows_nobody(self) -> bool:
        return not (self._has_issuer or self._store.all("key") or self._store.all("user"))

    def _signing_secret(self) -> SecretStr:
        if self._secret is None:
            self._store.add("secret", "jwt", secrets.token_hex(32))
            self._secret = SecretStr(self._store.get("secret", "jwt") or "")
        return self._secret


def _store(folder: Path, redis_url: SecretStr | None) -> AccessStore:
    return RedisStore(redis_url.get_secret_value()) if redis_url else SqliteStore(folder / "access.db")
