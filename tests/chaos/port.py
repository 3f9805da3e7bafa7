"""A port in front of a service that can be closed and opened again, while the service goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

TURNS_UNTIL_BEGUN = 5
"""Of an event loop, from its look at a listening socket to the first line that serves who has connected."""


class Port:
    """Forwards connections to ``upstream``; whoever connects while it is closed is refused."""

    def __init__(self) -> None:
        self.upstream = 0
        """The port on 127.0.0.1 that the service listens on."""
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.number = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.open()

    def open(self) -> None:
        """Listen, on the same port as ever."""
        self._run(self._open())

    def close(self) -> None:
        """Listen no more, and break what is connected."""
        self._run(self._close())

    def end(self) -> None:
        """Close for good."""
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.number)
            self.number = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            # A server that is closed while it accepts leaves that connection open for ever: so no more come
            # first, and then there are some turns of the loop, until each is one of ours.
            for listener in self._server.sockets:
                self._loop.remove_reader(listener)
            for _ in range(TURNS_UNTIL_BEGUN):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        # So that what was broken has noticed before anybody goes on.
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError):
                upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
                try:
                    await asyncio.gather(_pump(reader, upstream), _pump(upstream_reader, writer))
                finally:
                    upstream.transport.abort()
        except asyncio.CancelledError:
            """Closed: the connection is broken and nothing else is to be said."""
        finally:
            writer.transport.abort()
            self._connections.discard(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Bytes until one side is gone; then neither goes on."""
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()
