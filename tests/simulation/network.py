"""What becomes of a request on its way: decided by the seed, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from pydantic_core import from_json, to_json

from hud_orchestrator.clients.pool import READ_TIMEOUT_S, NoAnswer, Pool, Reply
from hud_orchestrator.clients.submissions import Submissions
from hud_orchestrator.records import INITIAL
from hud_orchestrator.wire_writer import FENCING_TOKEN
from tests.simulation.clock import Clock
from tests.simulation.service import Answer, SimulatedService

FATES = (
    "refused",
    "lost_request",
    "lost_answer",
    "failed_before",
    "failed_after",
    "duplicated",
    "late",
    "slow",
    "rejected",
)

REPEATED = frozenset({"duplicated", "late", "slow"})
"""Those after which a request arrives when its sender does not reckon with it."""

LATE_S = 30.0
"""Seconds that a request may be under way when its sender has given it up."""

FAILURES = (500, 502, 503)
REJECTIONS = (402, 408, 413, 422, 429)
REFUSED = "refused for now"
"""What answers with a 4xx say; after these, some lives may end with a code that asks for a person."""

UNCERTAIN = frozenset({"lost_request", "lost_answer", "slow"})
"""Those after which a client may wait until it gives up."""


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
    late: float = 0.0
    """The connection breaks off, and some seconds later it arrives all the same."""
    slow: float = 0.0
    """It is done only after the client has given up."""
    rejected: float = 0.0
    """A 4xx without any effect."""
    late_gradients: bool | None = None
    """Whether a gradient can be late or a new head, or, at a service that tells late calls, both."""
    latency_s: float = 0.05

    def fate(self, rng: Random) -> str:
        """What happens to one request."""
        roll = rng.random()
        for name in FATES:
            roll -= getattr(self, name)
            if roll < 0:
                return name
        return "fine"


@dataclass(slots=True)
class Storm:
    """What becomes of every request for a while, whoever sends it."""

    fate: str | None = None
    """``None``: it is over."""
    status: int = 503
    """Of answers without any effect."""
    where: str = ""
    """Part of the paths that it takes."""

    def begin(self, rng: Random) -> str:
        """Choose what it does, and say it."""
        self.fate = rng.choice(("refused", "lost_request", "failed_before", "failed_before", "rejected"))
        self.status = rng.choice((500, 503, 507) if self.fate == "failed_before" else (402, 403, 429))
        self.where = rng.choice(("", "", "/train/", "/chat/", "/checkpoints"))
        return f"{self.fate} ({self.status}) {self.where}"

    def takes(self, path: str) -> bool:
        """Whether a request does not get through."""
        return self.fate is not None and self.where in path


@dataclass(frozen=True, slots=True)
class _Request:
    fate: str
    status: int | None
    method: str
    path: str
    content: bytes | None
    headers: Mapping[str, str]
    patience_s: float


@dataclass(slots=True)
class SimulatedNetwork:
    """Carries requests of one process to the service."""

    clock: Clock
    service: SimulatedService
    rng: Random
    weather: Weather
    tell: Callable[[str], None]
    storm: Storm = field(default_factory=Storm)
    at_request: Callable[[], None] = lambda: None
    """Called when a request has left."""
    dead: bool = False
    """Once the process is: nothing reaches it, and nothing leaves it."""
    waiting: dict[asyncio.Future[Answer | None], None] = field(default_factory=dict)
    """Requests that have no answer yet, oldest first."""

    def pool(self, base_url: str) -> Pool:
        """Carries reads."""
        del base_url
        return _SimulatedPool(self)  # type: ignore[return-value]

    def submissions(self, base_url: str) -> Submissions:
        """Carries training calls."""
        del base_url
        return _SimulatedSubmissions(self)  # type: ignore[return-value]

    def reset(self) -> None:
        """Break every connection: the service restarts."""
        for future in list(self.waiting):
            self._resolve(future, None)

    async def carry(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        headers: Mapping[str, str] | None,
        patience_s: float,
    ) -> Reply:
        """The answer.

        Raises:
            NoAnswer: there is none; without a connection nothing was sent.
        """
        if self.dead:
            await asyncio.Event().wait()
        stormy = self.storm.takes(path)
        fate = (stormy and self.storm.fate) or self.weather.fate(self.rng)
        if fate in REPEATED and self._could_hide(path):
            fate = "fine"
        self.tell(f"{method} {path.rsplit('/', 1)[-1]} {fate}")
        if fate == "refused":
            await asyncio.sleep(0.01)
            raise NoAnswer("refused", connected=False)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer | None] = loop.create_future()
        self.waiting[future] = None
        status = self.storm.status if stormy else None
        request = _Request(fate, status, method, path, content, headers or {}, patience_s)
        self._dispatch(request, future)
        self.at_request()
        given_up = loop.call_later(patience_s, _give_up, future) if fate in UNCERTAIN else None
        try:
            answer = await future
        finally:
            del self.waiting[future]
            if given_up is not None:
                given_up.cancel()
        if answer is None:
            raise NoAnswer("broke off", connected=True)
        return Reply(status=answer.status, headers=answer.headers, content=to_json(answer.body))

    def _could_hide(self, path: str) -> bool:
        """Whether a request that comes late could put one gradient in the place of another.

        It is either such a gradient, or what would make room for one.
        """
        gradients = self.weather.late_gradients
        return gradients is not None and path.endswith("/head" if gradients else "backward")

    def _dispatch(self, request: _Request, future: asyncio.Future[Answer | None]) -> None:
        """Decide when it arrives and what comes back."""
        fate, latency = request.fate, self.weather.latency_s * (0.5 + self.rng.random())
        arrive = partial(self._arrive, request, future, latency)
        if fate == "lost_request":
            if self.rng.random() < 0.5:
                self.clock.after(latency, lambda: self._resolve(future, None))
        elif fate in ("failed_before", "rejected"):
            status = request.status or self.rng.choice(FAILURES if fate == "failed_before" else REJECTIONS)
            answer = Answer(status, {"detail": REFUSED if status < 500 else "not now"})
            self.clock.after(latency, lambda: self._resolve(future, answer))
        elif fate == "slow":
            self.clock.after(request.patience_s + 5, arrive)
        elif fate == "late":
            self.clock.after(latency, lambda: self._resolve(future, None))
            self.clock.after(LATE_S * self.rng.random(), arrive)
        else:
            self.clock.after(latency, arrive)
            if fate == "duplicated":
                again = partial(self._arrive_again, arrive, self.service.restarts)
                self.clock.after(latency * (1 + 20 * self.rng.random()), again)

    def _arrive(self, request: _Request, future: asyncio.Future[Answer | None], latency: float) -> None:
        body = None if request.content is None else from_json(request.content)
        token = request.headers.get(FENCING_TOKEN)
        if not future.done():
            self.service.looked_at(request.path, self.clock.now)
        answer = self.service.handle(
            request.method,
            request.path,
            body,
            key=request.headers.get("Idempotency-Key"),
            token=None if token is None else int(token),
            now=self.clock.now,
        )
        trace = request.headers.get("Trace-Id")
        if trace is not None and answer.status == 200:
            served = answer.body["system_fingerprint"]
            self.service.sampled[trace].add(None if served.startswith(INITIAL) else served)
        if request.fate == "lost_answer":
            if self.rng.random() < 0.5:
                self._resolve(future, None)
            return
        told = Answer(500, {"detail": "broke off"}) if request.fate == "failed_after" else answer
        self.clock.after(latency, lambda: self._resolve(future, told))

    def _arrive_again(self, arrive: Callable[[], None], restarts: int) -> None:
        # A service that has lost its memory meanwhile has lost its connections with it.
        if self.service.restarts == restarts:
            arrive()

    def _resolve(self, future: asyncio.Future[Answer | None], answer: Answer | None) -> None:
        if not self.dead and not future.done():
            future.set_result(answer)


def _give_up(future: asyncio.Future[Answer | None]) -> None:
    if not future.done():
        future.set_exception(NoAnswer("timed out", connected=True))


class _SimulatedPool:
    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    async def request(
        self, method: str, path: str, *, body: Any = None, params: Any = None, headers: Any = None
    ) -> Reply:
        del params
        content = None if body is None else to_json(body, exclude_none=True)
        return await self._network.carry(method, path, content, headers=headers, patience_s=READ_TIMEOUT_S)

    async def close(self) -> None:
        return


class _SimulatedSubmissions:
    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    async def post(self, path: str, content: str, *, headers: Any, timeout_s: float) -> Reply:
        return await self._network.carry(
            "POST", path, content.encode(), headers=headers, patience_s=timeout_s
        )

    async def close(self) -> None:
        return
