"""A client of the HTTP API that needs httpx and tenacity, and nothing of what the server is made of."""

from api.client.calls import Aegis
from api.client.errors import AegisError, NotInTimeError, NotSearchableError, RefusedError, UnreachableError

__all__ = ["Aegis", "AegisError", "NotInTimeError", "NotSearchableError", "RefusedError", "UnreachableError"]
