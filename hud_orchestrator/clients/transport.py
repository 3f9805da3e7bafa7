"""The one way to a service: ``read`` retries, ``submit`` cannot.

``submit`` takes a :data:`~hud_orchestrator.records.CallId`, which only the ledger hands out after
its row is on disk, and has no parameter for a retry. Which answer proves what is one table:

    no connection, no room in the pool      nothing was sent            ServiceUnreachable
    401, 403                                 refused                     KeyRefused
    400 402 404 405 409 410 411 413 415 422  refused, nothing changed    RequestRejected
    409 with a Fencing-Token                 refused, nothing changed    FencedOff
    429 before any work                      refused, nothing changed    RequestRejected
    anything else, and no answer             sent                        OutcomeUnknown
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from hud_orchestrator.clients.pool import NoAnswer, Pool, Reply, whole
from hud_orchestrator.clients.retry import Retry
from hud_orchestrator.clients.submissions import Submissions
from hud_orchestrator.clients.tunnel import open_tunnel
from hud_orchestrator.errors import (
    FencedOff,
    KeyRefused,
    OutcomeUnknown,
    RequestRejected,
    ServiceBusy,
    ServiceError,
    ServiceUnreachable,
)
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import CallId
from hud_orchestrator.wire_writer import FENCING_TOKEN

T = TypeVar("T")

REFUSALS = frozenset({400, 402, 404, 405, 409, 410, 411, 413, 415, 422, 429})
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 507})

_adapters: dict[object, TypeAdapter[Any]] = {}
"""By reply: building one costs as much as a hundred validations."""

log = get_logger()


class Network(Protocol):
    """What carries requests when there are no sockets: a simulation's world."""

    def pool(self, base_url: str) -> Pool:
        """Carries requests that may be repeated."""
        ...

    def submissions(self, base_url: str) -> Submissions:
        """Carries training calls."""
        ...


class Transport:
    """HTTP to one base URL with one key, or none. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        api_key: SecretStr | None,
        *,
        connections: int = 20,
        key_name: str = "HUD_API_KEY",
        network: Network | None = None,
    ) -> None:
        """Talk to *base_url*, over *network* in place of sockets if there is one."""
        self.base_url = base_url.rstrip("/")
        self._key = api_key.get_secret_value() if api_key else ""
        self._key_name = key_name
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # A proxy from the environment is for the outside; it must not see loopback.
        direct = _is_loopback(self.base_url)
        self._reading = (
            Pool(self.base_url, headers=headers, connections=connections, direct=direct)
            if network is None
            else network.pool(self.base_url)
        )
        self._submitting = (
            Submissions(self.base_url, headers=headers, direct=direct)
            if network is None
            else network.submissions(self.base_url)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.move_on_after(5, shield=True):
            await self._reading.close()
            await self._submitting.close()

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
                    method, path, body=body, params=params, headers=headers
                )
            except NoAnswer as error:
                failure = self._no_answer(method, path, error)
            else:
                if response.status not in RETRIED:
                    return self._answer(method, path, response, reply)
                asked_s = _retry_after(response)
                failure = ServiceBusy(
                    self._said(method, path, response), status=response.status, retry_after_s=asked_s
                )
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
            async with self._reading.streamed("POST", path, body=body) as response:
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    answer = await whole(response)
                    if answer.status in RETRIED:
                        raise ServiceBusy(self._said("POST", path, answer))
                    yield self._answer("POST", path, answer, reply)
                    return
                async for line in response.content:
                    field, _, data = line.decode().partition(":")
                    if field == "data" and data.strip() != "[DONE]":
                        yield self._validated("POST", path, data.encode(), reply)
        except NoAnswer as error:
            raise self._no_answer("POST", path, error) from error

    async def tell(self, path: str, content: bytes) -> None:
        """Post *content*, JSON text, once; what is answered besides yes or no is of no interest.

        Raises:
            ServiceUnreachable, ServiceBusy: no answer, or not now.
            KeyRefused, RequestRejected: the service said no.
        """
        try:
            response = await self._reading.request("POST", path, body=content)
        except NoAnswer as error:
            raise self._no_answer("POST", path, error) from error
        if response.status in RETRIED:
            raise ServiceBusy(self._said("POST", path, response))
        self._accepted("POST", path, response)

    async def tunnel(self, path: str) -> ByteStream:
        """Open a WebSocket, as a stream of bytes.

        Raises:
            OSError: it does not open.
        """
        try:
            return await open_tunnel(
                f"ws{self.base_url.removeprefix('http')}{path}",
                {"Authorization": f"Bearer {self._key}"},
                proxied=not _is_loopback(self.base_url),
            )
        except OSError as error:
            raise OSError(self._without_key(str(error))) from error

    async def submit(
        self,
        path: str,
        body: BaseModel,
        *,
        reply: type[T],
        call: CallId,
        timeout_s: float,
        headers: Mapping[str, str],
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
                path, content, headers={"Idempotency-Key": call, **headers}, timeout_s=timeout_s
            )
        except NoAnswer as error:
            if not error.connected:
                raise ServiceUnreachable(f"{request}: nothing was sent: {error}", **facts) from error
            raise OutcomeUnknown(f"{request}: sent, no answer ({error})", **facts) from error
        facts["status"] = response.status
        if response.status in REFUSALS or response.status in (401, 403) or response.is_success:
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
            f"{request}: sent, answered {response.status}: {self._detail(response)}", **facts
        )

    def _answer(self, method: str, path: str, response: Reply, reply: type[T]) -> T:
        self._accepted(method, path, response)
        return self._validated(method, path, response.content, reply)

    def _accepted(self, method: str, path: str, response: Reply) -> None:
        if response.status in (401, 403):
            raise KeyRefused(
                f"{self._said(method, path, response)}; set {self._key_name} to a key that this service knows"
            )
        if response.status == 409 and FENCING_TOKEN in response.headers:
            raise FencedOff(self._said(method, path, response), status=response.status)
        if not response.is_success:
            raise RequestRejected(self._said(method, path, response), status=response.status)

    def _validated(self, method: str, path: str, content: bytes, reply: type[T]) -> T:
        try:
            answer: T = _adapter(reply).validate_json(content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            raise ServiceBusy(
                f"{method} {self.base_url}{path}: not the expected reply: {place}: {first['msg']}"
            ) from error
        return answer

    def _no_answer(self, method: str, path: str, error: NoAnswer) -> ServiceUnreachable | ServiceBusy:
        where = f"{method} {self.base_url}{path}"
        if not error.connected:
            return ServiceUnreachable(f"{where}: cannot connect ({error}); is the service running there?")
        return ServiceBusy(f"{where}: no answer ({error})")

    def _said(self, method: str, path: str, response: Reply) -> str:
        return f"{method} {self.base_url}{path}: {response.status}: {self._detail(response)}"

    def _detail(self, response: Reply) -> str:
        return self._without_key(_detail(response))

    def _without_key(self, said: str) -> str:
        """What the service says, without the key that a careless one repeats."""
        return said.replace(self._key, "[key]") if self._key else said


def _adapter(reply: type[T]) -> TypeAdapter[T]:
    found = _adapters.get(reply)
    if found is None:
        found = _adapters[reply] = TypeAdapter(reply)
    return found


def _detail(response: Reply) -> str:
    """What an error body says, in HUD's shape, in OpenAI's, or in its own words."""
    try:
        body = json.loads(response.content)
    except ValueError:
        text = response.content.decode("utf-8", "replace").strip()[:200]
        return text or _phrase(response.status)
    if isinstance(body, dict):
        error = body.get("error")
        said = body.get("detail") or (error.get("message") if isinstance(error, dict) else error)
        if said:
            return str(said)
    return str(body)[:200]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no further words"


def _retry_after(response: Reply) -> float | None:
    try:
        asked = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return asked if math.isfinite(asked) and asked >= 0 else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # A service that listens on all addresses calls itself by the unspecified one.
    return address.is_loopback or address.is_unspecified
