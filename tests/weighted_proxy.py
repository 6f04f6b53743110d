"""What a gateway does: connections to one of two servers, by percentage."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_CHUNK = 65_536


@dataclass
class WeightedProxy:
    """Of 100 connections exactly ``percent`` go to ``candidate``, evenly spread, the others to ``live``."""

    live: int
    candidate: int = 0
    percent: int = 0
    port: int = 0
    taken: list[int] = field(default_factory=list)
    """The port that each connection went to."""

    def _next(self) -> int:
        number = len(self.taken)
        turn = (number + 1) * self.percent // 100 > number * self.percent // 100
        self.taken.append(self.candidate if turn else self.live)
        return self.taken[-1]

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        async with await asyncio.start_server(self._connected, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await stop.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            backend_reader, backend_writer = await asyncio.open_connection("127.0.0.1", self._next())
        except OSError:
            writer.close()  # as a gateway without a backend: the client's request fails
            return
        await asyncio.gather(_pump(reader, backend_writer), _pump(backend_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(_CHUNK):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@contextmanager
def proxying(live: int) -> Iterator[WeightedProxy]:
    """A proxy with everything on ``live``, in a thread of its own."""
    proxy, started, loop, stop = WeightedProxy(live), threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.serve(started, stop)), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=20)
