"""The one way to a service: ``read`` retries, ``submit`` cannot.

``submit`` takes a :data:`~hud_orchestrator.records.CallId`, which only the ledger hands out after
its row is on disk, and has no parameter for a retry. Which answer proves what is one table:

    no connection, no room in the pool      nothing was sent            ServiceUnreachable
    401, 403                                 refused                     KeyRefused
    400 402 404 405 409 410 411 413 415 422  refused, nothing changed    RequestRejected
    429 before any work                      refused, nothing changed    RequestRejected
    anything else, and no answer             sent                        OutcomeUnknown
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx
from aiohttp import ClientConnectorError, ClientError, ClientSession, DummyCookieJar, TCPConnector
from anyio.abc import ByteStream
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from hud_orchestrator.clients.retry import Retry
from hud_orchestrator.clients.tunnel import open_tunnel
from hud_orchestrator.errors import (
    KeyRefused,
    OutcomeUnknown,
    RequestRejected,
    ServiceBusy,
    ServiceError,
    ServiceUnreachable,
)
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import CallId

T = TypeVar("T")

REFUSALS = frozenset({400, 402, 404, 405, 409, 410, 411, 413, 415, 422, 429})
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
RETRIED = frozenset({408, 429, 500, 502, 503, 504})

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""Sampling a long answer on a slow machine takes minutes; a rollout's deadline bounds it anyway."""

log = get_logger()


class Transport:
    """HTTP to one base URL with one key. Use as an async context manager."""

    def __init__(self, base_url: str, api_key: SecretStr, *, connections: int = 20) -> None:
        self.base_url = base_url.rstrip("/")
        self._key = api_key.get_secret_value()
        headers = {"Authorization": f"Bearer {self._key}"}
        # A proxy from the environment is for the outside; it must not see loopback.
        trust_env = not _is_loopback(self.base_url)
        # httpx's own pool looks at every connection for every request; benchmarks/http_clients.py has
        # what that costs. aiohttp's errors do not tell an unsent request from an unanswered one, though,
        # so its pool serves reads alone.
        self._reading = httpx.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            transport=AiohttpTransport(client=partial(_session, connections), proxy=_proxy(self.base_url)),
        )
        # A fresh connection per submission: a kept one may be closed by the other side just as the
        # bytes leave, and then nobody knows whether they arrived.
        self._submitting = httpx.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            trust_env=trust_env,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.move_on_after(5, shield=True):
            await self._reading.aclose()
            await self._submitting.aclose()

    async def read(
        self,
        method: str,
        path: str,
        *,
        reply: type[T],
        retry: Retry,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Send a request that may be repeated, and return its validated answer.

        Raises:
            ServiceUnreachable, ServiceBusy: no usable answer in ``retry.attempts`` tries.
            KeyRefused, RequestRejected: the service said no.
        """
        failures = 0
        while True:
            failure: ServiceUnreachable | ServiceBusy
            asked_s: float | None = None
            try:
                response = await self._reading.request(
                    method, path, json=body, params=params, headers=headers
                )
            except (httpx.RequestError, ClientError) as error:
                failure = self._no_answer(method, path, error)
            else:
                if response.status_code not in RETRIED:
                    return self._answer(method, path, response, reply)
                asked_s = _retry_after(response)
                failure = ServiceBusy(self._said(method, path, response))
            failures += 1
            if failures >= retry.attempts:
                raise failure
            log.debug("request.retried", request=f"{method} {path}", failures=failures, reason=str(failure))
            await anyio.sleep(retry.wait_s(failures, asked_s=asked_s))

    async def events(self, path: str, body: BaseModel, *, reply: type[T]) -> AsyncGenerator[T, None]:
        """Send a request once, and yield every server-sent event of its answer as it arrives.

        A service that does not stream answers with one body, and that alone is yielded then.

        Raises:
            ServiceUnreachable, ServiceBusy: no usable answer, or it broke off.
            KeyRefused, RequestRejected: the service said no.
        """
        try:
            async with self._reading.stream(
                "POST", path, json=body.model_dump(mode="json", exclude_none=True)
            ) as response:
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    await response.aread()
                    if response.status_code in RETRIED:
                        raise ServiceBusy(self._said("POST", path, response))
                    yield self._answer("POST", path, response, reply)
                    return
                async for line in response.aiter_lines():
                    field, _, data = line.partition(":")
                    if field == "data" and data.strip() != "[DONE]":
                        yield self._validated("POST", path, data.encode(), reply)
        except (httpx.RequestError, ClientError) as error:
            raise self._no_answer("POST", path, error) from error

    async def tunnel(self, path: str) -> ByteStream:
        """Open a WebSocket, as a stream of bytes.

        Raises:
            OSError: it does not open.
        """
        return await open_tunnel(
            f"ws{self.base_url.removeprefix('http')}{path}",
            {"Authorization": f"Bearer {self._key}"},
            proxied=not _is_loopback(self.base_url),
        )

    async def submit(
        self, path: str, body: BaseModel, *, reply: type[T], call: CallId, timeout_s: float
    ) -> T:
        """Send a training call once.

        Raises:
            ServiceUnreachable: nothing was sent.
            KeyRefused, RequestRejected: refused, nothing changed.
            OutcomeUnknown: sent, and no trustworthy answer.
        """
        content = body.model_dump_json(exclude_none=True)
        facts: dict[str, object] = {"url": f"{self.base_url}{path}", "call": call, "bytes": len(content)}
        request = f"POST {self.base_url}{path} (call {call})"
        try:
            response = await self._submitting.post(
                path,
                content=content,
                headers={"Content-Type": "application/json", "Idempotency-Key": call},
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            )
        except UNSENT as error:
            raise ServiceUnreachable(f"{request}: nothing was sent: {_reason(error)}", **facts) from error
        except httpx.RequestError as error:
            raise OutcomeUnknown(f"{request}: sent, no answer ({_reason(error)})", **facts) from error
        facts["status"] = response.status_code
        if response.status_code in REFUSALS or response.status_code in (401, 403) or response.is_success:
            try:
                return self._answer("POST", path, response, reply)
            except ServiceBusy as error:
                raise OutcomeUnknown(
                    f"{request}: sent, and the answer is not readable: {error}", **facts
                ) from error
            except ServiceError as error:
                error.facts = facts
                raise
        raise OutcomeUnknown(
            f"{request}: sent, answered {response.status_code}: {self._detail(response)}", **facts
        )

    def _answer(self, method: str, path: str, response: httpx.Response, reply: type[T]) -> T:
        if response.status_code in (401, 403):
            raise KeyRefused(
                f"{self._said(method, path, response)}; set HUD_API_KEY to a key that this service knows"
            )
        if not response.is_success:
            raise RequestRejected(self._said(method, path, response), status=response.status_code)
        return self._validated(method, path, response.content, reply)

    def _validated(self, method: str, path: str, content: bytes, reply: type[T]) -> T:
        try:
            return TypeAdapter(reply).validate_json(content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            raise ServiceBusy(
                f"{method} {self.base_url}{path}: not the expected reply: {place}: {first['msg']}"
            ) from error

    def _no_answer(self, method: str, path: str, error: Exception) -> ServiceUnreachable | ServiceBusy:
        where = f"{method} {self.base_url}{path}"
        # httpx-aiohttp says ConnectTimeout for whatever happens to a connection; the cause knows better.
        if isinstance(error.__cause__, ClientConnectorError) or isinstance(error, httpx.UnsupportedProtocol):
            return ServiceUnreachable(
                f"{where}: cannot connect ({_reason(error)}); is the service running there?"
            )
        return ServiceBusy(f"{where}: no answer ({_reason(error)})")

    def _said(self, method: str, path: str, response: httpx.Response) -> str:
        return f"{method} {self.base_url}{path}: {response.status_code}: {self._detail(response)}"

    def _detail(self, response: httpx.Response) -> str:
        """What the service says, without the key that a careless one repeats."""
        return _detail(response).replace(self._key, "[key]")


def _session(connections: int) -> ClientSession:
    # trust_env would also look into ~/.netrc, and refuse to send our key where that has another.
    connector = TCPConnector(limit=connections, keepalive_timeout=30)
    return ClientSession(connector=connector, cookie_jar=DummyCookieJar())


def _proxy(url: str) -> httpx.Proxy | None:
    """The environment's proxy for *url*, if it has one."""
    parts = httpx.URL(url)
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if proxy is None or _is_loopback(url) or proxy_bypass(parts.host):
        return None
    return httpx.Proxy(proxy)


def _detail(response: httpx.Response) -> str:
    """What an error body says, in HUD's shape, in OpenAI's, or in its own words."""
    try:
        body = response.json()
    except ValueError:
        return response.text.strip()[:200] or response.reason_phrase
    if isinstance(body, dict):
        error = body.get("error")
        said = body.get("detail") or (error.get("message") if isinstance(error, dict) else error)
        if said:
            return str(said)
    return str(body)[:200]


def _retry_after(response: httpx.Response) -> float | None:
    try:
        asked = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return asked if math.isfinite(asked) and asked >= 0 else None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
