"""An environment process of the daemon's: serves episodes over one inherited socket. Standard library only.

Run as ``python -m hud_orchestrator.environments.host SOURCE FD``. The bytes are HUD's control protocol, as
:mod:`hud_orchestrator.environments.session` answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from pathlib import Path

from hud_orchestrator.environments.rpc import FAILED, FRAME_LIMIT, RpcError, error_frame
from hud_orchestrator.environments.session import Session
from hud_orchestrator.environments.sessions import Sessions
from hud_orchestrator.environments.source import SourceMistake, environments
from hud_orchestrator.environments.tether import end_with_parent


async def _serve(sessions: Sessions, connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection, limit=FRAME_LIMIT)
    with contextlib.suppress(ConnectionError):
        await Session(sessions, writer, tells_ends=True).serve(reader)


def main() -> None:
    """Import the source and serve until the daemon goes away."""
    source, fd = Path(sys.argv[1]), int(sys.argv[2])
    # A template stuck in a loop never reads that the daemon is gone; the kernel tells it.
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=fd)
    try:
        known = environments(source)
    except SourceMistake as error:
        connection.sendall(error_frame(1, RpcError(FAILED, str(error))))
        sys.exit(1)
    gc.freeze()  # what was imported is there to stay
    # What a template prints is for people; the protocol has a socket of its own.
    sys.stdout = sys.stderr
    import uvloop

    uvloop.run(_serve(Sessions(known), connection))


if __name__ == "__main__":
    main()
