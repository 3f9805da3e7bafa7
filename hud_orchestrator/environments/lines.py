"""Lines over a connection, as the client's side of the control protocol sends and reads them."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol, Self

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from hud_orchestrator.environments.rpc import FRAME_LIMIT

UNREAD = 64
"""Lines that are kept for somebody who does not read; then the other side has to wait."""


class Lines(Protocol):
    """One line after the other, both ways."""

    async def send(self, line: bytes) -> None:
        """Send *line*, which ends with a newline.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError: nobody is there any more.
        """
        ...

    async def receive(self) -> bytes:
        """The next line, without its newline.

        Raises:
            anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError:
                there is none.
            anyio.DelimiterNotFound: it is longer than a frame may be.
        """
        ...


class StreamLines:
    """Lines over any byte stream."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.send = stream.send
        self._buffered = BufferedByteReceiveStream(stream)

    async def receive(self) -> bytes:
        """The next line."""
        return await self._buffered.receive_until(b"\n", FRAME_LIMIT)


class SocketLines(asyncio.Protocol):
    """Lines over a socket of this machine.

    A stream of anyio's yields to the loop with every send and every receive; a rollout does many, and here
    it wakes once a line.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._lines: deque[bytes] = deque()
        self._part = bytearray()
        self._ended = self._paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def over(cls, connection: socket.socket) -> Self:
        """Take *connection* over; it is closed if that is cut off."""
        try:
            _, lines = await asyncio.get_running_loop().create_connection(cls, sock=connection)
        except BaseException:
            connection.close()
            raise
        return lines

    async def send(self, line: bytes) -> None:
        """Send *line*; waits while the other side does not read."""
        if self._ended or self._transport is None:
            raise anyio.BrokenResourceError
        self._transport.write(line)
        if not self._writable.is_set():
            await self._writable.wait()

    async def receive(self) -> bytes:
        """The next line."""
        while not self._lines:
            if len(self._part) > FRAME_LIMIT:
                raise anyio.DelimiterNotFound(FRAME_LIMIT)
            if self._ended:
                raise anyio.EndOfStream
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        line = self._lines.popleft()
        if self._paused and not self._lines:
            self._read_on()
        if len(line) > FRAME_LIMIT:
            raise anyio.DelimiterNotFound(FRAME_LIMIT)
        return line

    def close(self) -> None:
        """Hang up, without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Keep what came, and wake who waits for it."""
        first, *others = data.split(b"\n")
        self._part += first
        for begun in others:
            self._lines.append(bytes(self._part))
            self._part = bytearray(begun)
        if self._transport is not None and (len(self._lines) > UNREAD or len(self._part) > FRAME_LIMIT):
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (it is gone either way)
        """Nothing comes any more; what has come is still read."""
        self._ended = True
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        """The other side does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()

    def _read_on(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
