"""Bytes of a topic to its records; what does not fit is said by field and never half understood."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from processors.errors import PermanentError
from streams.record import Record

T = TypeVar("T")


def decoder(model: Any) -> Callable[[Record], Any]:
    """A decoder of a topic's records; whatever does not fit is a ``PermanentError`` that names the field."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    return lambda record: decoded(adapter, record.value)


def decoded(adapter: TypeAdapter[T], value: bytes | None) -> T:
    """Validate JSON.

    Raises:
        PermanentError: It does not fit; the message names the first field that does not.
    """
    try:
        return adapter.validate_json(value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise PermanentError(f"the record does not fit its schema: {where}: {first['msg']}{more}") from error
