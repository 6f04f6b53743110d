"""Tokens of those who logged in (ours, HS256), and of another issuer (signed with its private key)."""

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
from pydantic import SecretStr, TypeAdapter

from api.access.principals import SCOPES, TIERS, Principal, Tenant
from api.access.users import User
from schemas.settings import Issuer

_NAME = "aegis-streams"
_OURS = "HS256"
_THEIRS = ("RS256", "PS256", "ES256", "EdDSA")
_TENANT: TypeAdapter[str | None] = TypeAdapter(Tenant | None)
_REQUIRED = ["exp", "iat", "iss", "sub"]


class Tokens:
    """Issues and reads tokens. ``secret`` is asked for when it is first needed."""

    def __init__(self, secret: Callable[[], SecretStr], *, lifetime: float, issuer: Issuer) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._issuer = issuer
        self._keys = _public_keys(issuer)

    def issue(self, user: User) -> tuple[str, float]:
        """A token of that user, and the seconds that it is valid."""
        now = int(time.time())
        claims = {"iss": _NAME, "aud": _NAME, "iat": now, "exp": now + self._lifetime, "jti": uuid.uuid4().hex}
        granted = {"sub": user.name, "scope": " ".join(sorted(user.scopes)), "tenant": user.tenant, "tier": user.tier}
        return jwt.encode(claims | granted, self._secret().get_secret_value(), _OURS), self._lifetime

    def principal(self, token: str) -> Principal | None:
        """Who shows this token; None if it is not valid now. Raises what ``secret`` raises."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") == _OURS:
                return self._of_ours(token)
            return self._of_theirs(token, header.get("kid"))
        except (jwt.PyJWTError, ValueError, TypeError):  # a key of another kind, a tenant that can be none
            return None

    def _of_ours(self, token: str) -> Principal:
        claims = _decoded(token, self._secret().get_secret_value(), [_OURS], issuer=_NAME, audience=_NAME)
        return _principal(claims, kind="user", tenant=claims["tenant"])

    def _of_theirs(self, token: str, key_id: str | None) -> Principal:
        key = self._keys.get(key_id) or (next(iter(self._keys.values())) if len(self._keys) == 1 else None)
        if key is None:
            raise jwt.InvalidKeyError("signed with a key that is not known here")
        claims = _decoded(token, key, _THEIRS, issuer=self._issuer.name, audience=self._issuer.audience)
        where = self._issuer.tenant_claim
        if where and not isinstance(claims.get(where), str):
            raise jwt.MissingRequiredClaimError(where)
        return _principal(claims, kind=self._issuer.name, tenant=claims[where] if where else None)


def _decoded(token: str, key: Any, algorithms: Any, *, issuer: str, audience: str) -> dict[str, Any]:
    options: Any = {"require": _REQUIRED}
    return jwt.decode(token, key, algorithms, options, issuer=issuer, audience=audience)


def _principal(claims: Mapping[str, Any], *, kind: str, tenant: str | None) -> Principal:
    """Of the scopes and tiers that the token names, those that there are here; and never admin to a tenant."""
    given = str(claims.get("scope", "")).split()
    return Principal(
        name=f"{kind}:{claims['sub']}",
        scopes=frozenset(scope for scope in SCOPES if scope in given and (tenant is None or scope != "admin")),
        tenant=_TENANT.validate_python(tenant),
        tier=next((tier for tier in TIERS if tier == claims.get("tier")), "free"),
    )


def _public_keys(issuer: Issuer) -> dict[str | None, Any]:
    """The other issuer's keys by id.

    Raises:
        ValueError: They cannot be read, or the settings do not say whose and for whom.
    """
    if issuer.keys is None:
        return {}
    if not (issuer.name and issuer.audience):
        raise ValueError(
            "AEGIS_ACCESS__ISSUER__KEYS needs AEGIS_ACCESS__ISSUER__NAME and AEGIS_ACCESS__ISSUER__AUDIENCE"
        )
    try:
        return _keys_in(issuer.keys)
    except (OSError, jwt.PyJWTError, ValueError) as error:
        raise ValueError(f"{issuer.keys} is neither a JWKS file nor a public key in PEM: {error}") from error


def _keys_in(file: Path) -> dict[str | None, Any]:
    text = file.read_text()
    if text.lstrip().startswith("{"):
        return {key.key_id: key.key for key in jwt.PyJWKSet.from_json(text).keys if key.key_type != "oct"}
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return {None: load_pem_public_key(text.encode())}
