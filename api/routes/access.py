"""Logging in, keys, and the audit log."""

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from api import pools
from api.access.access import Access
from api.access.audit import Act
from api.access.keys import Key, NewKey
from api.access.principals import Principal, set_principal
from api.access.rules import AUDIT, KEYS, LOGIN
from api.access.store import Usage
from api.access.users import MAX_PASSWORD, UserName
from api.admission import Slots
from api.problems import Problem

_HASHING_THREADS = 2  # a password's hash takes 32 MiB
_MAX_LOGINS = 32

KeyId = Annotated[str, Path(max_length=64, description="As `GET /api/v1/keys` lists it.")]


class Login(BaseModel):
    """Who wants in."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"user": "ada", "password": "correct horse battery"}},  # nosec B105  # an example
    )

    user: UserName
    password: SecretStr = Field(max_length=MAX_PASSWORD)


class Token(BaseModel):
    """A token to send as `Authorization: Bearer`, in the words of OAuth 2."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: float


class Created(Key):
    """A new key; `token` is told only now."""

    token: str


class KeyUsage(BaseModel):
    """When a key was used last, and how often on each of the last 90 days (UTC)."""

    id: str
    last_used: float | None
    requests: dict[str, int]


def router(access: Access) -> APIRouter:
    """The routes of access."""
    routes = APIRouter(tags=["access"])
    routes.include_router(_logins(access))
    routes.include_router(_keys(access))

    @routes.get(AUDIT, summary="Who did what")
    async def audit(limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> list[Act]:
        """The latest writes and acts of administrators that this machine has seen, the newest first."""
        return await to_thread.run_sync(access.audit.last, limit)

    return routes


def _logins(access: Access) -> APIRouter:
    routes = APIRouter()
    hashing = pools.threads("passwords", _HASHING_THREADS)
    logins = Slots(_MAX_LOGINS, "logins")

    @routes.post(LOGIN, summary="Log in")
    async def log_in(request: Request, response: Response, login: Login) -> Token:
        """A token for a user's name and password. Attempts are limited, by name and by address."""
        address = request.client.host if request.client else ""
        await to_thread.run_sync(access.limits.take_login, login.user, address)
        set_principal(request.scope, Principal(name=f"user:{login.user}"))  # whom the audit log names
        with logins.one():
            user = await to_thread.run_sync(access.users.verified, login.user, login.password, limiter=hashing)
        if user is None:
            raise Problem(401, "unauthorized", "no user has this name and password")
        response.headers["Cache-Control"] = "no-store"
        token, lifetime = await to_thread.run_sync(access.tokens.issue, user)
        return Token(access_token=token, expires_in=lifetime)

    return routes


def _keys(access: Access) -> APIRouter:
    routes = APIRouter()

    @routes.get(KEYS, summary="List keys")
    async def keys() -> list[Key]:
        """Every key, revoked ones too, without its secret."""
        return await to_thread.run_sync(access.keys.list)

    @routes.post(KEYS, status_code=201, summary="Create a key")
    async def create_key(response: Response, wanted: NewKey) -> Created:
        """Create a key. Its token is in this answer and nowhere else."""
        key, token = await to_thread.run_sync(access.keys.create, wanted)
        response.headers["Location"] = f"{KEYS}/{key.id}"
        response.headers["Cache-Control"] = "no-store"
        return Created(**key.model_dump(), token=token.get_secret_value())

    @routes.delete(KEYS + "/{key_id}", summary="Revoke a key")
    async def revoke_key(key_id: KeyId) -> Key:
        """Revoke a key: from now on, and for good."""
        key = await to_thread.run_sync(access.keys.revoke, key_id)
        if key is None:
            raise _unknown(key_id)
        return key

    @routes.get(KEYS + "/{key_id}/usage", summary="How often a key was used")
    async def key_usage(key_id: KeyId) -> KeyUsage:
        """Requests by day, and when the last one was."""

        def found() -> Usage | None:
            return access.keys.usage(key_id) if access.keys.get(key_id) else None

        usage = await to_thread.run_sync(found)
        if usage is None:
            raise _unknown(key_id)
        return KeyUsage(id=key_id, last_used=usage.last_used, requests=dict(usage.requests))

    return routes


def _unknown(key_id: str) -> Problem:
    return Problem(404, "unknown-key", f"there is no key {key_id!r}")
