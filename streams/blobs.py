"""The claim check: content above the record limit lies in a blob store, named by its hash."""

import hashlib
import re

import fsspec

from processors.errors import PermanentError, UnavailableError

_HASHED = re.compile(r"^.*/(?=[0-9a-f]{64}$)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # no folder, and nothing that a URL or fsspec ("::") reads


class Blobs:
    """Content-addressed blobs under one fsspec URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def put(self, content: bytes) -> str:
        """Store once; the URI to put into a document record.

        Raises:
            UnavailableError: The blob store cannot be written.
        """
        uri = f"{self._url}/{hashlib.sha256(content).hexdigest()}"
        filesystem, path = fsspec.url_to_fs(uri)
        try:
            if not filesystem.exists(path):
                filesystem.makedirs(filesystem._parent(path), exist_ok=True)
                with filesystem.transaction, filesystem.open(path, "wb") as file:  # whole or not at all
                    file.write(content)
        except OSError as error:
            raise UnavailableError(f"the blob store {self._url} cannot be written: {error}") from error
        return uri

    def get(self, uri: str, *, max_bytes: int) -> bytes:
        """Read a blob of this store; no other address is ever fetched.

        A hash is looked up here whatever address it comes with: a restored data folder may lie elsewhere than when
        its documents were published.

        Raises:
            PermanentError: The URI is not of this store, the blob is missing or too large.
            UnavailableError: The blob store cannot be read.
        """
        name = _HASHED.sub("", uri).removeprefix(f"{self._url}/")
        if name == uri or not _NAME.fullmatch(name):
            raise PermanentError(
                f"content_uri {uri!r} is not in the blob store {self._url}; publish the content itself"
            )
        try:
            filesystem, path = fsspec.url_to_fs(f"{self._url}/{name}")
            size = int(filesystem.size(path))
            if size > max_bytes:
                raise PermanentError(f"the content is {size:,} bytes; the limit is {max_bytes:,}")
            content: bytes = filesystem.cat_file(path)
        except FileNotFoundError as error:
            raise PermanentError(f"content_uri {uri!r}: there is no such blob; publish the document again") from error
        except OSError as error:
            raise UnavailableError(f"the blob store {self._url} cannot be read: {error}") from error
        return content
