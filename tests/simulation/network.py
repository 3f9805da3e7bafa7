"""What becomes of a request on its way: decided by the seed, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from hud_orchestrator.clients.pool import NoAnswer, Pool, Reply
from tests.simulation.clock import Clock
from tests.simulation.service import Answer, SimulatedService


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How likely each mishap is, per request."""

    refused: float = 0.0
    """No connection: provably nothing was sent."""
    lost_request: float = 0.0
    lost_answer: float = 0.0
    """The service does it, and its answer is lost at once, or waited for until the client gives up."""
    failed_before: float = 0.0
    """A 5xx without any effect."""
    failed_after: float = 0.0
    """A 5xx after the effect."""
    duplicated: float = 0.0
    """It arrives twice."""
    slow: float = 0.0
    """It is done only after the client has given up."""
    latency_s: float = 0.05

    def fate(self, rng: Random) -> str:
        """What happens to one request."""
        roll = rng.random()
        for name in ("refused", "lost_request", "lost_answer", "failed_before", "failed_after", "duplicated",
                     "slow"):  # fmt: skip
            roll -= getattr(self, name)
            if roll < 0:
                return name
        return "fine"


@dataclass(slots=True)
class SimulatedNetwork:
    """Carries requests of one process to the service."""

    clock: Clock
    service: SimulatedService
    rng: Random
    weather: Weather
    tell: Callable[[str], None]
    dead: bool = False
    """Once the process is: nothing reaches it, and nothing leaves it."""
    waiting: set[asyncio.Future[Answer | None]] = field(default_factory=set)

    def pool(self, base_url: str) -> Pool:
        """Carries reads."""
        del base_url
        return _SimulatedPool(self)  # type: ignore[return-value]

    def submitting(self, base_url: str) -> httpx.AsyncBaseTransport:
        """Carries training calls."""
        del base_url
        return _SimulatedSubmissions(self)

    def reset(self) -> None:
        """Break every connection: the service restarts."""
        for future in list(self.waiting):
            self._resolve(future, None)

    async def carry(
        self, method: str, path: str, body: Any, *, key: str | None, patience_s: float
    ) -> Answer | None:
        """The answer; ``None`` when there is none.

        Raises:
            ConnectionRefusedError: nothing was sent.
            TimeoutError: no answer in *patience_s*.
        """
        if self.dead:
            await asyncio.Event().wait()
        fate = self.weather.fate(self.rng)
        self.tell(f"{method} {path.rsplit('/', 1)[-1]} {fate}")
        if fate == "refused":
            await asyncio.sleep(0.01)
            raise ConnectionRefusedError
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self.waiting.add(future)
        self._dispatch(fate, method, path, body, key, patience_s, future)
        try:
            async with asyncio.timeout(patience_s):
                return await future
        finally:
            self.waiting.discard(future)

    def _dispatch(
        self,
        fate: str,
        method: str,
        path: str,
        body: Any,
        key: str | None,
        patience_s: float,
        future: asyncio.Future[Answer | None],
    ) -> None:
        latency = self.weather.latency_s * (0.5 + self.rng.random())
        # Parsed again at its arrival: what a process holds cannot reach into the service.
        text = json.dumps(body)

        def arrive() -> None:
            answer = self.service.handle(method, path, json.loads(text), key=key, now=self.clock.now)
            if fate == "lost_answer":
                if self.rng.random() < 0.5:
                    self._resolve(future, None)
                return
            told = Answer(500, {"detail": "broke off"}) if fate == "failed_after" else answer
            self.clock.after(latency, lambda: self._resolve(future, told))

        if fate == "lost_request":
            if self.rng.random() < 0.5:
                self.clock.after(latency, lambda: self._resolve(future, None))
        elif fate == "failed_before":
            status = self.rng.choice((500, 502, 503))
            answer = Answer(status, {"detail": "not now"})
            self.clock.after(latency, lambda: self._resolve(future, answer))
        else:
            self.clock.after(patience_s + 5 if fate == "slow" else latency, arrive)
            if fate == "duplicated":
                self.clock.after(latency * (1 + 20 * self.rng.random()), arrive)

    def _resolve(self, future: asyncio.Future[Answer | None], answer: Answer | None) -> None:
        if not self.dead and not future.done():
            future.set_result(answer)


class _SimulatedPool:
    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    async def request(
        self, method: str, path: str, *, body: Any = None, params: Any = None, headers: Any = None
    ) -> Reply:
        del params, headers
        try:
            answer = await self._network.carry(method, path, body, key=None, patience_s=600)
        except ConnectionRefusedError:
            raise NoAnswer("refused", connected=False) from None
        except TimeoutError:
            raise NoAnswer("timed out", connected=True) from None
        if answer is None:
            raise NoAnswer("broke off", connected=True)
        return Reply(status=answer.status, headers={}, content=json.dumps(answer.body).encode())

    async def close(self) -> None:
        return


class _SimulatedSubmissions(httpx.AsyncBaseTransport):
    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        try:
            answer = await self._network.carry(
                request.method,
                request.url.path,
                json.loads(request.content),
                key=request.headers["Idempotency-Key"],
                patience_s=timeouts["read"],
            )
        except ConnectionRefusedError:
            raise httpx.ConnectError("refused", request=request) from None
        except TimeoutError:
            raise httpx.ReadTimeout("timed out", request=request) from None
        if answer is None:
            raise httpx.ReadError("broke off", request=request)
        return httpx.Response(answer.status, json=answer.body, request=request)
