"""API keys: ``aegis_<id>_<secret>``, of which only the id and the secret's SHA-256 are kept.

A secret of 256 random bits needs no slow hash: there is nothing to guess.
"""

import hashlib
import hmac
import re
import secrets
import time

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from api.access.principals import Principal, Scopes, Tenant, TierName
from api.access.store import AccessStore, Usage

_TOKEN = re.compile(r"aegis_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


class Grant(BaseModel):
    """What a key or a user may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: Scopes = Field(frozenset({"read", "write"}), description="What it may do; each is for itself.")
    tenant: Tenant | None = Field(None, description="Whose documents it reaches; none means all of them.")
    tier: TierName = Field("free", description="How many requests it may make.")

    @model_validator(mode="after")
    def _admins_are_of_no_tenant(self) -> "Grant":
        if self.tenant is not None and "admin" in self.scopes:
            raise ValueError("admin is for the whole installation and cannot be given to a tenant's keys and users")
        return self


class NewKey(Grant):
    """What a key is made from."""

    name: str = Field(min_length=1, max_length=100, description="Whose it is, for people.")
    expires_in_days: float | None = Field(None, gt=0, le=36_500, description="None: until it is revoked.")


class Key(Grant):
    """A key as it is shown: all but the secret."""

    id: str
    name: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def is_valid(self) -> bool:
        """Whether it lets in now."""
        return self.revoked_at is None and (self.expires_at is None or time.time() < self.expires_at)


class _StoredKey(Key):
    digest: str


class Keys:
    """The keys of an installation. Each method raises what its store raises."""

    def __init__(self, store: AccessStore) -> None:
        self._store = store

    def create(self, wanted: NewKey) -> tuple[Key, SecretStr]:
        """A new key and its token, which nobody can be told again."""
        now = time.time()
        secret = secrets.token_urlsafe(32)
        expires_at = None if wanted.expires_in_days is None else now + wanted.expires_in_days * 86_400
        while True:
            key = _StoredKey(
                **wanted.model_dump(exclude={"expires_in_days"}),
                id=secrets.token_hex(4),
                digest=_digest(secret),
                created_at=now,
                expires_at=expires_at,
            )
            if self._store.add("key", key.id, key.model_dump_json()):
                return _shown(key), SecretStr(f"aegis_{key.id}_{secret}")

    def list(self) -> list[Key]:
        """Every key, revoked ones too, the oldest first."""
        keys = map(_StoredKey.model_validate_json, self._store.all("key").values())
        return sorted(map(_shown, keys), key=lambda key: key.created_at)

    def get(self, id_: str) -> Key | None:
        """The key of that id."""
        stored = self._stored(id_)
        return stored and _shown(stored)

    def revoke(self, id_: str) -> Key | None:
        """End a key now, and for good; None if there is none."""
        key = self._stored(id_)
        if key is None:
            return None
        if key.revoked_at is None:
            key = key.model_copy(update={"revoked_at": time.time()})
            self._store.put("key", id_, key.model_dump_json())
        return _shown(key)

    def usage(self, id_: str) -> Usage:
        """How often a key was used."""
        return self._store.usage(id_)

    def principal(self, token: str) -> Principal | None:
        """Who shows this token, and note that it was used; None if it opens nothing."""
        match = _TOKEN.fullmatch(token)
        key = self._stored(match[1]) if match else None
        if match is None or key is None or not hmac.compare_digest(_digest(match[2]), key.digest) or not key.is_valid:
            return None
        self._store.count(key.id)
        return Principal(name=f"key:{key.id}", scopes=key.scopes, tenant=key.tenant, tier=key.tier)

    def _stored(self, id_: str) -> _StoredKey | None:
        text = self._store.get("key", id_)
        return _StoredKey.model_validate_json(text) if text else None


def looks_like_key(token: str) -> bool:
    """Whether this is meant to be a key, and no other kind of token."""
    return token.startswith("aegis_")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _shown(key: _StoredKey) -> Key:
    return Key(**key.model_dump(exclude={"digest"}))
