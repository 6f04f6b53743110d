"""Content fetched from a web address, so that the log holds content and not promises; ADR 23.

Whoever publishes chooses the address, and must not reach through the API what they could not reach themselves. So each
request, redirects too, is checked where it connects: the name is resolved once, all its addresses have to be allowed,
and the connection goes to those very addresses, whatever the name means a moment later.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import httpx

from api.addresses import is_reachable
from api.admission import Slots
from api.problems import Problem
from processors.media_types import OCTET_STREAM, canonical, media_type_of
from schemas.settings import Api

_AT_ONCE = 4
_MAX_REDIRECTS = 3
_MAX_ADDRESSES = 4
_CONNECT_TIMEOUT = 5.0
_MAX_PORT = 65535
MAX_URI = 2048


@dataclass(frozen=True)
class Fetched:
    """A file, with its media type as the server says or as its bytes show."""

    content: bytes
    media_type: str


class Fetcher:
    """Fetches by http and https, a few at once, each bounded in size and in time altogether."""

    def __init__(self, settings: Api) -> None:
        self._settings = settings
        self._max_bytes = settings.max_body_mb * 1024 * 1024
        self._slots = Slots(_AT_ONCE, "fetches")

    async def fetch(self, uri: str) -> Fetched:
        """What lies there.

        Raises:
            Problem: 403, fetching is off; 422, the address is none, or may not be fetched; 413, it is too large;
                502, the server fails; 504, it is late; 429, too many are fetched.
        """
        if not self._settings.fetch:
            raise Problem(403, "fetching-is-off", "documents are not fetched here; AEGIS_API__FETCH=true allows it")
        with self._slots.one():
            try:
                async with asyncio.timeout(self._settings.fetch_timeout):
                    return await self._fetch(uri)
            except TimeoutError as error:
                detail = f"{uri} was not there within {self._settings.fetch_timeout:g} s"
                raise Problem(504, "not-fetched-in-time", detail) from error
            except (httpx.InvalidURL, UnicodeError) as error:
                raise _refused(uri, f"it is no web address: {error}") from error
            except httpx.HTTPError as error:
                raise _failed(uri, type(error).__name__) from error

    async def _fetch(self, uri: str) -> Fetched:
        if len(uri) > MAX_URI:
            raise _refused(f"{uri[:100]}…", f"it is longer than {MAX_URI:,} characters")
        transport = _Pinned(self._settings, self._tls)
        headers = {"Accept-Encoding": "identity", "User-Agent": "aegis-streams"}
        timeout = httpx.Timeout(self._settings.fetch_timeout, connect=_CONNECT_TIMEOUT)
        # No proxy, which would resolve the name again, and no .netrc, which holds passwords.
        client = httpx.AsyncClient(transport=transport, headers=headers, timeout=timeout, trust_env=False)
        async with client:
            request = client.build_request("GET", uri)
            for _ in range(1 + _MAX_REDIRECTS):
                response = await client.send(request, stream=True)
                if response.next_request is None:
                    return await self._file(uri, response)
                request = response.next_request
                await response.aclose()  # its body, perhaps endless, is not read
        raise _failed(uri, f"it redirects more than {_MAX_REDIRECTS} times")

    async def _file(self, uri: str, response: httpx.Response) -> Fetched:
        if not response.is_success:
            raise _failed(uri, f"status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity") != "identity":  # it may be a bomb
            raise _failed(uri, "it is sent compressed, though that was not asked for")
        content = await self._content(response)
        return Fetched(content, _media_type(response, content))

    async def _content(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > self._max_bytes:
                raise Problem(413, "content-too-large", f"{response.url} is larger than {self._max_bytes:,} bytes")
        return bytes(content)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)  # half a second


class _Pinned(httpx.AsyncBaseTransport):
    """Connects to the addresses that were checked; Host and the certificate stay those of the name."""

    def __init__(self, settings: Api, tls: ssl.SSLContext) -> None:
        self._settings = settings
        # No connection outlives its request: it would serve another name of the same address.
        self._inner = httpx.AsyncHTTPTransport(verify=tls, limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        addresses = await self._checked(request.url)
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_to(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_to(addresses[-1], request))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _checked(self, url: httpx.URL) -> Sequence[str]:
        if url.scheme not in ("http", "https") or not url.host:
            raise _refused(str(url), "only http and https are fetched")
        if (url.port or 0) > _MAX_PORT:
            raise _refused(str(url), "there is no such port")
        if url.userinfo:
            raise _refused(f"{url.scheme}://…@{url.host}", "it holds a user's name")
        if self._settings.fetch_hosts and url.host.lower() not in self._settings.fetch_hosts:
            raise _refused(str(url), f"{url.host} is not in AEGIS_API__FETCH_HOSTS")
        try:
            addresses = await resolve(url.raw_host.decode(), url.port)
        except OSError as error:
            raise _failed(str(url), f"{url.host} has no address") from error
        if not all(is_reachable(address, self._settings.fetch_private) for address in addresses):
            raise _refused(str(url), f"{url.host} has an address that is not public")
        return addresses[:_MAX_ADDRESSES]


async def resolve(host: str, port: int | None) -> list[str]:
    """Every address of a name; decimal, octal and hexadecimal spellings of one mean what they mean to the system.

    Raises:
        OSError: There is no such name.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _to(address: str, request: httpx.Request) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # with the Host
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode()},
    )


def _media_type(response: httpx.Response, content: bytes) -> str:
    said = canonical(response.headers.get("Content-Type", OCTET_STREAM).partition(";")[0].strip())
    return media_type_of(response.url.path, content) if said == OCTET_STREAM else said


def _refused(uri: str, why: str) -> Problem:
    return Problem(422, "uri-refused", f"{uri} is not fetched: {why}")


def _failed(uri: str, why: str) -> Problem:
    return Problem(502, "not-fetched", f"{uri} cannot be fetched: {why}")
