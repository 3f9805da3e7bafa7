"""Requests that must not be repeated, each over a connection of its own: the only importer of httpx here.

httpx says which phase of a request failed, so what was provably not sent is told from what may have been.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from hud_orchestrator.clients.pool import CONNECT_TIMEOUT_S, NoAnswer, Reply

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Submissions:
    """Sends to one service."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str], direct: bool) -> None:
        """Send to *base_url*; *direct* takes no proxy from the environment."""
        self._base_url = base_url
        self._headers = headers
        self._direct = direct
        self._client: httpx.AsyncClient | None = None

    async def post(self, path: str, content: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """Send JSON text once.

        Raises:
            NoAnswer: there is none; without a connection nothing was sent.
        """
        try:
            answer = await self._opened().post(
                path,
                content=content,
                headers={"Content-Type": "application/json", **headers},
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            )
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            raise NoAnswer(reason, connected=not isinstance(error, UNSENT)) from error
        return Reply(status=answer.status_code, headers=answer.headers, content=answer.content)

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            # A fresh connection per submission: a kept one may be closed by the other side just as the
            # bytes leave, and then nobody knows whether they arrived.
            self._client = httpx.AsyncClient(
                base_url=self._base_url,
                headers=self._headers,
                trust_env=not self._direct,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._client
