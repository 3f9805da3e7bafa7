"""A WebSocket spliced to a connection of an environment: bytes in, bytes out, until either side ends."""

from __future__ import annotations

import anyio
import anyio.abc
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from hud_orchestrator.local.hosting.host import Hosting
from hud_orchestrator.local.replies import Refused

CHUNK = 65536
NO_LEASE = 4404
"""Close code: what HTTP answers 404 to."""
NOT_SERVING = 4503
"""Close code: the environment does not answer."""


def tunnel_route(hosting: Hosting) -> WebSocketRoute:
    """The route of tunnels; OpenAPI has no word for it."""

    async def tunnel(websocket: WebSocket) -> None:
        try:
            with hosting.leases.connection(websocket.path_params["id"]) as port:
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await websocket.accept()
                    await _splice(websocket, stream)
        except Refused as refusal:
            await websocket.close(NO_LEASE, refusal.detail[:100])
        except OSError as error:
            await websocket.close(NOT_SERVING, f"the environment does not answer: {error.strerror}"[:100])

    return WebSocketRoute("/runtime/tunnels/{id}", tunnel)


async def _splice(websocket: WebSocket, stream: anyio.abc.ByteStream) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_inward, websocket, stream, group.cancel_scope)
        try:
            async for data in stream:
                await websocket.send_bytes(data)
        except (anyio.BrokenResourceError, WebSocketDisconnect):
            pass  # either side is gone, which is how tunnels end
        group.cancel_scope.cancel()
    if websocket.client_state is WebSocketState.CONNECTED:
        with anyio.move_on_after(1, shield=True):
            await websocket.close()


async def _inward(websocket: WebSocket, stream: anyio.abc.ByteStream, scope: anyio.CancelScope) -> None:
    while (message := await websocket.receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        try:
            await stream.send(message["text"].encode() if data is None else data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            break
    scope.cancel()
