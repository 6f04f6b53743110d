"""The HTTP API, asked over HTTP with the key of whoever sits before the page: the console may do no more than they."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import Request

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ApiError(Exception):
    """What the API, or the way to it, says is wrong; ``status`` is None where there was no answer."""

    def __init__(self, told: str, status: int | None = None) -> None:
        super().__init__(told)
        self.status = status


class Client:
    """Asks the server that sent the page, under the name that the browser knows it by.

    Raises (all methods):
        ApiError: The API refuses, or does not answer.
    """

    def __init__(self, request: Request) -> None:
        host, port = request.scope["server"]  # where the page's request arrived: its own API is there, too
        self._http = httpx.AsyncClient(
            base_url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}",
            headers={"Host": request.headers.get("Host", host)},
            timeout=_TIMEOUT,
            trust_env=False,
        )

    @property
    def credentials(self) -> dict[str, str]:
        """Headers that say who asks."""
        return {name: self._http.headers[name] for name in ("Authorization",) if name in self._http.headers}

    def use_key(self, key: str) -> None:
        """Send this key from now on; empty means none."""
        self._http.headers.pop("Authorization", None)
        if key:
            self._http.headers["Authorization"] = f"Bearer {key}"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(self, path: str, **parameters: Any) -> Any:
        """What a GET answers, from JSON."""
        return await self._ask("GET", path, params=parameters)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """What a POST of a JSON object answers."""
        return await self._ask("POST", path, json=body)

    async def delete(self, path: str) -> Any:
        """What a DELETE answers."""
        return await self._ask("DELETE", path)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncIterator[tuple[str, Any]]:
        """Server-sent events of a POST: their names, and what they hold."""
        try:
            async with self._http.stream("POST", path, json=body) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                name = ""
                async for line in response.aiter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        yield name, json.loads(value)
        except httpx.HTTPError as error:
            raise ApiError(f"the API does not answer ({type(error).__name__})") from error

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ApiError(f"the API does not answer ({type(error).__name__})") from error
        if response.is_error:
            raise _refusal(response)
        return response.json()


def _refusal(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    wrong = "; ".join(f"{error['loc'][-1]}: {error['msg']}" for error in problem.get("errors", []))
    told = wrong or problem.get("detail") or problem.get("title") or response.reason_phrase
    hint = " Enter an access key under “Access”." if response.status_code in (401, 403) else ""
    return ApiError(f"{told} ({response.status_code}).{hint}", response.status_code)
