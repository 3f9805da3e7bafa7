"""A WebSocket spliced to a connection of an environment: bytes in, bytes out, until either side ends."""

from __future__ import annotations

import anyio
import anyio.abc
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from hud_orchestrator.environments.link import Dial
from hud_orchestrator.errors import EnvironmentLost
from hud_orchestrator.local.hosting.host import Hosting
from hud_orchestrator.local.replies import Refused, refuse


def tunnel_route(hosting: Hosting) -> WebSocketRoute:
    """The route of tunnels; OpenAPI has no word for it."""

    async def tunnel(websocket: WebSocket) -> None:
        try:
            with hosting.leases.connection(websocket.path_params["id"]) as dial:
                async with await _dialled(dial) as stream:
                    await websocket.accept()
                    await _splice(websocket, stream)
        except Refused as refusal:
            # As any other request: a close code would be told to nobody before the handshake is over.
            await websocket.send_denial_response(refuse(websocket, refusal))

    return WebSocketRoute("/runtime/tunnels/{id}", tunnel)


async def _dialled(dial: Dial) -> anyio.abc.ByteStream:
    try:
        return await dial()
    except (EnvironmentLost, OSError) as error:
        raise Refused(503, f"the environment cannot be reached: {error}") from error


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
