"""Who asks: what they may do, and which documents are theirs.

A tenant's documents are those whose id begins with ``<tenant>/``. Whoever is of a tenant names documents without that
beginning and is shown them without it; whoever is of none names them whole and sees all.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, PlainSerializer, StringConstraints
from starlette.types import Scope as AsgiScope

from schemas.ids import document_prefix
from schemas.records import MAX_DOCUMENT_ID

Scope = Literal["read", "write", "admin"]
TierName = Literal["free", "pro", "enterprise"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
TIERS: tuple[TierName, ...] = get_args(TierName)
Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Scopes = Annotated[frozenset[Scope], Field(min_length=1), PlainSerializer(sorted, return_type=list[Scope])]

_KEY = "aegis.principal"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """``name`` is for limits and the audit log, such as ``key:3f9c20ab``; without a tier nothing is limited."""

    name: str
    scopes: frozenset[Scope] = frozenset()
    tenant: str | None = None
    tier: TierName | None = None

    def stored_id(self, document_id: str) -> str:
        """The id in topics and stores of what this one calls ``document_id``.

        Raises:
            RequestValidationError: It is too long with the tenant before it.
        """
        stored = document_prefix(self.tenant) + document_id
        if len(stored) > MAX_DOCUMENT_ID:
            problem = f"longer than {MAX_DOCUMENT_ID} characters with {document_prefix(self.tenant)!r} before it"
            raise RequestValidationError([{"loc": ("document_id",), "msg": problem, "type": "string_too_long"}])
        return stored

    def shown_id(self, stored: str) -> str:
        """What this one calls a document of the stores."""
        return stored.removeprefix(document_prefix(self.tenant))


ANONYMOUS = Principal(name="anonymous", scopes=frozenset(SCOPES))
NOBODY = Principal(name="nobody")


def set_principal(scope: AsgiScope, principal: Principal) -> None:
    """Say whose request this is."""
    scope[_KEY] = principal


def principal_of(scope: AsgiScope) -> Principal:
    """Whose request this is."""
    principal: Principal = scope[_KEY]
    return principal


async def _caller(request: Request) -> Principal:
    return principal_of(request.scope)


Caller = Annotated[Principal, Depends(_caller)]
