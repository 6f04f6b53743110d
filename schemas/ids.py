"""Deterministic ids: the same content has the same id wherever and however often it is processed."""

import hashlib
import unicodedata
import uuid

from schemas.records import Revision

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:aegis-streams")


def _id_of(kind: str, *parts: object) -> str:
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join((kind, *map(str, parts)))))


def tenant_of(document_id: str) -> str:
    """Whose document it is: what stands before the first slash; empty where there is none.

    >>> tenant_of("acme/handbook/leave")
    'acme'
    """
    tenant, slash, _ = document_id.partition("/")
    return tenant if slash else ""


def document_prefix(tenant: str | None) -> str:
    """How the ids of a tenant's documents begin; all documents' ids begin like no tenant's."""
    return "" if tenant is None else f"{tenant}/"


def head_id(document_id: str) -> str:
    """Id of the point that remembers a document's newest revision."""
    return _id_of("head", document_id)


def chunk_id(document_id: str, revision: Revision, chunk_index: int) -> str:
    """Id of a chunk in both stores. Two revisions never share one, so the old answers until the new is whole."""
    return _id_of("chunk", document_id, revision, chunk_index)


def entity_id(entity_type: str, name: str) -> str:
    """Exact key of an entity: its type and its normalised name."""
    return _id_of("entity", entity_type, name)


def entity_pair_id(one: str, other: str) -> str:
    """Id of two entities together, whichever is named first."""
    return _id_of("pair", *sorted((one, other)))


def name_key_id(entity_type: str, key: str) -> str:
    """Id of a form by which names of a type meet."""
    return _id_of("name-key", entity_type, key)


def normalised_name(text: str) -> str:
    """Unicode NFKC, case folded, white space folded, outer punctuation off.

    >>> normalised_name("  Jay  KREPS' ")
    'jay kreps'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = " ".join(folded.split())
    return folded.strip(" .,;:!?\"'()[]{}<>«»„“”‘’`*_-–—/\\|")


def content_hash(content: bytes, *settings: object) -> str:
    """BLAKE2b-128 of a content and of the settings that decide what is made of it."""
    digest = hashlib.blake2b(content, digest_size=16)
    for setting in settings:
        digest.update(b"\x1f" + str(setting).encode())
    return digest.hexdigest()
