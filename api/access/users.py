"""People who log in with a password."""

import base64
import hashlib
import hmac
import os
from typing import Annotated

from pydantic import SecretStr, StringConstraints

from api.access.keys import Grant
from api.access.store import AccessStore

MIN_PASSWORD, MAX_PASSWORD = 12, 1024
UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]

# OWASP's Password Storage Cheat Sheet: scrypt with N = 2^15, r = 8, p = 3; 32 MiB and a quarter of a second.
_N, _R, _P = 2**15, 8, 3
_SALT_BYTES = 16


class User(Grant):
    """A user as shown: all but the password's hash."""

    name: UserName


class _StoredUser(User):
    salt: str
    digest: str


class Users:
    """The users of an installation. Each method raises what its store raises."""

    def __init__(self, store: AccessStore) -> None:
        self._store = store

    def create(self, user: User, password: SecretStr) -> None:
        """Add a user.

        Raises:
            ValueError: The name is taken, or the password too short or too long.
        """
        text = password.get_secret_value()
        if not MIN_PASSWORD <= len(text) <= MAX_PASSWORD:
            raise ValueError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        salt = os.urandom(_SALT_BYTES)
        stored = _StoredUser(**user.model_dump(), salt=_text(salt), digest=_text(_digest(text, salt)))
        if not self._store.add("user", user.name, stored.model_dump_json()):
            raise ValueError(f"there is a user {user.name} already; remove it first, or choose another name")

    def list(self) -> list[User]:
        """Every user by name."""
        return [_shown(_StoredUser.model_validate_json(text)) for text in self._store.all("user").values()]

    def remove(self, name: str) -> bool:
        """Remove a user; whether there was one. Tokens already given live until they expire."""
        return self._store.remove("user", name)

    def verified(self, name: str, password: SecretStr) -> User | None:
        """The user of that name and password. As slow for names that nobody has."""
        text = self._store.get("user", name)
        user = _StoredUser.model_validate_json(text) if text else None
        salt = base64.b64decode(user.salt) if user else bytes(_SALT_BYTES)
        digest = _text(_digest(password.get_secret_value(), salt))
        return _shown(user) if user and hmac.compare_digest(digest, user.digest) else None


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=2 * 128 * _N * _R)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _shown(user: _StoredUser) -> User:
    return User(**user.model_dump(exclude={"salt", "digest"}))
