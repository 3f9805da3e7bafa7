"""HTTP whose connections are tunnels: a transport for httpx, which the mcp package takes."""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import anyio
import anyio.abc
import httpcore
import httpx
from anyio.streams.tls import TLSStream

Open = Callable[[], Awaitable[anyio.abc.ByteStream]]
Broken = Callable[[Exception], None]


CONNECT_S = 30
"""Seconds to connect and to send. An answer may take until the rollout's deadline."""


def tunnel_client(open_stream: Open, *, broken: Broken, token: str | None) -> httpx.AsyncClient:
    """An HTTP client whose connections are what *open_stream* opens; *token* authorises it.

    It calls *broken* when the answer to a POST breaks off.
    """
    return httpx.AsyncClient(
        transport=_TunnelTransport(open_stream, broken),
        headers={"Authorization": f"Bearer {token}"} if token else None,
        timeout=httpx.Timeout(CONNECT_S, read=None),
    )


class _TunnelTransport(httpx.AsyncBaseTransport):
    # A listening port on this machine would do too: at twice the sockets, open to everybody here, and
    # asked for through an HTTP proxy where the user's surroundings name one.

    def __init__(self, open_stream: Open, broken: Broken) -> None:
        self._pool = httpcore.AsyncConnectionPool(network_backend=_Backend(open_stream))
        self._broken = broken

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer, self._broken if request.method == "POST" else None),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response, broken: Broken | None) -> None:
        self._answer = answer
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._answer.aiter_stream():
                yield part
        except Exception as error:
            if self._broken is not None:
                self._broken(error)
            raise

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, open_stream: Open) -> None:
        self._open = open_stream

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002  (the tunnel knows where it leads)
        port: int,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore's signatures)
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        with anyio.fail_after(timeout):
            return _Stream(await self._open())


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            with anyio.fail_after(timeout):
                return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.ReadError("the connection broke") from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if not buffer:
            return
        try:
            with anyio.fail_after(timeout):
                await self._stream.send(buffer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.WriteError("the connection broke") from error

    async def aclose(self) -> None:
        await anyio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        with anyio.fail_after(timeout):
            secured = await TLSStream.wrap(
                self._stream,
                ssl_context=ssl_context,
                hostname=server_hostname,
                standard_compatible=False,
                server_side=False,
            )
        return _Stream(secured)

    def get_extra_info(self, info: str) -> Any:
        # Asked of an idle connection, to know whether the other side has closed it.
        raw = self._stream.extra(anyio.abc.SocketAttribute.raw_socket, None)  # noqa: S610  (no Django)
        if info != "is_readable" or raw is None:
            return None
        poll = select.poll()
        poll.register(raw.fileno(), select.POLLIN)
        return bool(poll.poll(0))
