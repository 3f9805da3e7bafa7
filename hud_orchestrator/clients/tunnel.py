"""A stream of bytes through a WebSocket."""

from __future__ import annotations

import json
from contextlib import suppress

import anyio
import anyio.abc
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

CONNECT_S = 30.0
"""For the handshake."""

CLOSE_S = 2.0
"""For the other side to answer a close."""


async def open_tunnel(url: str, headers: dict[str, str], *, proxied: bool) -> anyio.abc.ByteStream:
    """Connect to *url*.

    Args:
        url: ``ws://`` or ``wss://``.
        headers: of the handshake, the key among them.
        proxied: whether the environment's proxy is used.

    Raises:
        OSError: it is not there, does not answer, or says no.
    """
    try:
        connection = await connect(
            url,
            additional_headers=headers,
            open_timeout=CONNECT_S,
            close_timeout=CLOSE_S,
            max_size=None,
            # Frames of the control protocol are short, and compressing them costs more than it saves.
            compression=None,
            proxy=True if proxied else None,
        )
    except InvalidStatus as error:
        raise OSError(f"the tunnel does not open: {_refusal(error.response)}") from error
    except (InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise OSError(f"the tunnel does not open: {error or type(error).__name__}") from error
    return Tunnel(connection)


def _refusal(response: Response) -> str:
    """The status, and what is said beside it where that is ours or HUD's way to say it."""
    try:
        said = json.loads(response.body or b"").get("detail")
    except (ValueError, AttributeError):
        said = None
    return f"{response.status_code}: {said or response.reason_phrase}"


class Tunnel(anyio.abc.ByteStream):
    """Bytes of binary messages; text is taken as well. Where messages begin and end says nothing."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._left = b""
        """Of the message that is being read."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes, *max_bytes* at most."""
        while not self._left:
            try:
                message = await self._connection.recv()
            except ConnectionClosed as error:
                raise anyio.EndOfStream from error
            self._left = message.encode() if isinstance(message, str) else message
        data, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        """Send *item* as one message."""
        try:
            await self._connection.send(item)
        except ConnectionClosed as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Close it: a WebSocket has no half that could be closed."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close it; does not wait for long."""
        with anyio.move_on_after(CLOSE_S + 1, shield=True), suppress(ConnectionClosed):
            await self._connection.close()
