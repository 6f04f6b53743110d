"""A request's body becomes a document record: JSON, or a file in a form; content may be fetched from where it lies."""

import base64
import binascii
import copy
import json
from collections.abc import Mapping
from typing import Any

from anyio import to_thread
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile

from api.fetching import MAX_URI, Fetched, Fetcher
from api.problems import Problem
from processors.media_types import OCTET_STREAM, canonical, media_type_of
from schemas.ids import content_hash
from schemas.records import DocumentRecord

MAX_METADATA_BYTES = 64 * 1024
_CONTENTS = ("text", "content_base64", "content_uri")
_FORM_FIELDS = DocumentRecord.model_fields.keys() - {*_CONTENTS, "operation"}


async def document_of(request: Request, fetcher: Fetcher) -> DocumentRecord:
    """The document in the body. Without a ``document_id`` it is the URI, the file's name or the content's hash.

    Raises:
        Problem: 415, the body is neither JSON nor a form; or as ``Fetcher.fetch``.
        RequestValidationError: The document is not valid.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        fields = await to_thread.run_sync(_json_object, await request.body(), "body")
        if (uri := _uri_of(fields)) is None:
            return await to_thread.run_sync(_document_from_json, fields)
        return await to_thread.run_sync(_document_from_fetched, await fetcher.fetch(uri), uri, fields)
    if media_type == "multipart/form-data":
        return await _document_from_form(request)
    detail = (
        f"send application/json or multipart/form-data with a part named file, not {media_type or 'an untyped body'}"
    )
    raise Problem(415, "unsupported-media-type", detail)


def request_schema() -> dict[str, Any]:
    """OpenAPI's description of what ``document_of`` reads."""
    document = copy.deepcopy(DocumentRecord.model_json_schema())
    document["properties"].pop("operation")
    document.pop("required")
    document["properties"]["uri"] = {
        "type": "string",
        "maxLength": MAX_URI,
        "description": "Where to fetch the content, over http or https, if AEGIS_API__FETCH allows it.",
    }
    form = {name: document["properties"][name] for name in sorted(_FORM_FIELDS - {"metadata"})}
    form["file"] = {"type": "string", "format": "binary"}
    form["metadata"] = {"type": "string", "contentMediaType": "application/json", "description": "A JSON object."}
    example = {"document_id": "handbook/leave", "text": "Leave is 30 days.", "metadata": {"team": "people"}}
    file = {"file": "(the file)", "document_id": "reports/2025.pdf", "metadata": '{"team": "people"}'}
    described = {"type": "object", "required": ["file"], "properties": form}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": document | {"title": "Document", "description": ""}, "example": example},
            "multipart/form-data": {"schema": described, "example": file},
        },
    }


def _uri_of(fields: dict[str, Any]) -> str | None:
    """Take out the URI to fetch from, if there is one, once all else is known to be valid."""
    uri = fields.pop("uri", None)
    if uri is None:
        return None
    if not isinstance(uri, str):
        raise _invalid("string_type", "not a string", "uri")
    if given := [name for name in _CONTENTS if fields.get(name) is not None]:
        raise _invalid("value_error", f"a document with a uri has no {' and '.join(given)}", "uri")
    _document_from_fetched(Fetched(b"", OCTET_STREAM), uri, fields)
    return uri


def _document_from_fetched(fetched: Fetched, uri: str, fields: Mapping[str, Any]) -> DocumentRecord:
    _refuse_operation(fields)
    given = {name: value for name, value in fields.items() if value is not None}
    defaults = {"document_id": uri, "source": uri, "media_type": fetched.media_type}
    return _checked(defaults | given | {"content_base64": base64.b64encode(fetched.content).decode()})


def _document_from_json(fields: dict[str, Any]) -> DocumentRecord:
    _refuse_operation(fields)
    content = next((fields[name] for name in _CONTENTS if isinstance(fields.get(name), str)), "")
    if fields.get("document_id") is None:
        fields["document_id"] = content_hash(content.encode())
    document = _checked(fields)
    try:
        base64.b64decode(document.content_base64 or "", validate=True)
    except binascii.Error as error:
        raise _invalid("base64", f"not base64: {error}", "content_base64") from error
    return document


async def _document_from_form(request: Request) -> DocumentRecord:
    async with request.form(max_files=1, max_fields=len(_FORM_FIELDS), max_part_size=MAX_METADATA_BYTES) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise _invalid("missing", "the form has no file in a part named file", "file")
        fields = {name: value for name, value in form.items() if name != "file"}
        content = await file.read()
        return await to_thread.run_sync(
            _document_from_file, content, file.filename or "", file.content_type or "", fields
        )


def _document_from_file(content: bytes, name: str, media_type: str, form: Mapping[str, Any]) -> DocumentRecord:
    fields = dict(form)
    for forbidden in fields.keys() - _FORM_FIELDS:
        raise _invalid("extra_forbidden", "a form has no such field", forbidden)
    if "metadata" in fields:
        fields["metadata"] = _json_object(str(fields["metadata"]).encode(), "metadata")
    said = canonical(media_type)
    defaults = {
        "document_id": name or content_hash(content),
        "source": name or None,
        "media_type": media_type_of(name, content) if said == OCTET_STREAM else said,
    }
    return _checked(defaults | fields | {"content_base64": base64.b64encode(content).decode()})


def _refuse_operation(fields: Mapping[str, Any]) -> None:
    if "operation" in fields:
        raise _invalid("extra_forbidden", "DELETE removes a document; POST only publishes one", "operation")


def _checked(fields: Mapping[str, Any]) -> DocumentRecord:
    try:
        document = DocumentRecord.model_validate(fields)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in errors]) from error
    if len(json.dumps(document.metadata)) > MAX_METADATA_BYTES:
        raise _invalid("too_long", f"the metadata is larger than {MAX_METADATA_BYTES:,} bytes of JSON", "metadata")
    return document


def _json_object(text: bytes, name: str) -> dict[str, Any]:
    try:
        parsed = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _invalid("json_invalid", f"not JSON: {error}", *(() if name == "body" else (name,))) from error
    if not isinstance(parsed, dict):
        raise _invalid("dict_type", "not a JSON object", *(() if name == "body" else (name,)))
    return parsed


def _invalid(kind: str, what: str, *where: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", *where), "msg": what, "type": kind}])
