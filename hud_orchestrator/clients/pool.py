"""Requests that may be repeated, over a pool of kept connections: the only importer of aiohttp.

A rollout pays for every request it makes, and httpx looks at each of its connections and parses each
address anew; ``benchmarks/http_clients.py`` has what that costs. aiohttp's errors do not tell an unsent
request from an unanswered one, though, so training calls do not come this way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from aiohttp import (
    BasicAuth,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    InvalidURL,
    NonHttpUrlClientError,
    TCPConnector,
)
from pydantic_core import to_json

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""Sampling a long answer on a slow machine takes minutes; a rollout's deadline bounds it anyway."""

KEPT_S = 30.0
"""Seconds that an idle connection is kept."""


class NoAnswer(Exception):
    """A request got no answer; ``connected`` says whether there was a connection to send it over."""

    def __init__(self, reason: str, *, connected: bool) -> None:
        super().__init__(reason)
        self.connected = connected


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300


class Pool:
    """Connections to one service. Opened by the first request; :meth:`close` closes them."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str], connections: int, direct: bool) -> None:
        """Keep *connections* at most; *direct* takes no proxy from the environment."""
        self._base_url = base_url
        self._headers = headers
        self._connections = connections
        self._proxy, self._proxy_auth = (None, None) if direct else _proxy(base_url)
        self._session: ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and read its whole answer; bytes are sent as they are, all else as JSON.

        Raises:
            NoAnswer: there is none.
        """
        async with self.streamed(method, path, body=body, params=params, headers=headers) as response:
            return await whole(response)

    @asynccontextmanager
    async def streamed(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[ClientResponse, None]:
        """Send one request; the block reads its answer.

        Raises:
            NoAnswer: there is none, or it broke off.
        """
        content = body if body is None or isinstance(body, bytes) else to_json(body, exclude_none=True)
        typed = {"Content-Type": "application/json"} if content is not None else {}
        try:
            async with self._opened().request(
                method,
                f"{self._base_url}{path}",
                data=content,
                params=params,
                headers={**typed, **(headers or {})},
                proxy=self._proxy,
                proxy_auth=self._proxy_auth,
                allow_redirects=False,
            ) as response:
                yield response
        except (ClientConnectorError, InvalidURL, NonHttpUrlClientError) as error:
            raise NoAnswer(_reason(error), connected=False) from error
        except (ClientError, TimeoutError, ConnectionError) as error:
            raise NoAnswer(_reason(error), connected=True) from error

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> ClientSession:
        if self._session is None:
            # trust_env would also look into ~/.netrc, and refuse to send our key where that has another.
            self._session = ClientSession(
                connector=TCPConnector(limit=self._connections, keepalive_timeout=KEPT_S),
                cookie_jar=DummyCookieJar(),
                headers=self._headers,
                timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
            )
        return self._session


async def whole(response: ClientResponse) -> Reply:
    """Read the rest of an answer."""
    return Reply(status=response.status, headers=response.headers, content=await response.read())


def _proxy(url: str) -> tuple[str | None, BasicAuth | None]:
    """The environment's proxy for *url* and what it wants to be told, if it has one."""
    target = urlsplit(url)
    proxies = getproxies()
    named = proxies.get(target.scheme) or proxies.get("all")
    if named is None or proxy_bypass(target.hostname or ""):
        return None, None
    parts = urlsplit(named if "://" in named else f"http://{named}")
    if parts.username is None:
        return parts.geturl(), None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, BasicAuth(unquote(parts.username), unquote(parts.password or ""))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
