"""The gateway at the pace that it can take: one window for everybody who samples, first come first served.

Requests wait in one line. The first in it leaves when the window has room, and nobody leaves while the
gateway asked for quiet or is away: one request at a time finds out whether it is back. Waiting is part
of the attempt, so the deadline of whoever waits bounds it, and :data:`PATIENCE_S` when the gateway is away.
"""

from __future__ import annotations

import anyio

from hud_orchestrator.clients.gateway import ChatRequest, Completion, Gateway
from hud_orchestrator.clients.retry import ONCE, SAMPLING
from hud_orchestrator.errors import RequestRejected, ServiceBusy, ServiceUnreachable
from hud_orchestrator.logs import get_logger
from hud_orchestrator.rules.congestion import CongestionWindow

PATIENCE_S = 60.0
"""Seconds that a request waits for a gateway which has gone away."""

OVERLOADED = frozenset({429, 503, 504})

log = get_logger()

Failure = ServiceBusy | ServiceUnreachable


class PacedGateway:
    """Samples one model, as many turns at a time as its gateway answers well."""

    def __init__(self, gateway: Gateway, *, most: int, patience_s: float = PATIENCE_S) -> None:
        """Have at most *most* requests under way."""
        self.model, self.checkpoint = gateway.model, gateway.checkpoint
        self._gateway = gateway
        self._patience_s = patience_s
        self._window = CongestionWindow(most=most)
        self._line = anyio.Lock(fast_acquire=True)
        self._changed = anyio.Event()
        self._failure: Failure | None = None
        """The newest one, while nothing has been answered since."""
        self._failing_since = 0.0
        self._told = False

    @property
    def width(self) -> float:
        """Requests that may be under way."""
        return self._window.width

    @property
    def trouble(self) -> str | None:
        """Why nothing is sent at the moment, ``None`` when all is well."""
        quiet = self._window.away or anyio.current_time() < self._window.held_until
        return str(self._failure) if quiet and self._failure is not None else None

    async def chat(self, request: ChatRequest, *, trace_id: str) -> Completion:
        """Sample one turn when its time has come.

        Raises:
            ServiceUnreachable, ServiceBusy: no usable answer in many tries, or in the time that one waits
                for a gateway which has gone away.
            KeyRefused, RequestRejected: the gateway said no.
        """
        began, failures = anyio.current_time(), 0
        while True:
            await self._turn(began)
            try:
                return await self._send(request, trace_id)
            except (ServiceBusy, ServiceUnreachable) as failure:
                failures += 1
                if failures >= SAMPLING.attempts or self._out_of_patience(began):
                    raise
                if not self.trouble:
                    log.debug("request.retried", failures=failures, reason=str(failure))
                    await anyio.sleep(SAMPLING.wait_s(failures, asked_s=None))

    async def _turn(self, began: float) -> None:
        """Wait in line until there is room."""
        async with self._line:
            while not self._window.may_send(anyio.current_time()):
                if self._failure is not None and self._out_of_patience(began):
                    raise type(self._failure)(f"waited {self._patience_s:g} s for it: {self._failure}")
                with anyio.move_on_at(self._next_look(began)):
                    await self._changed.wait()
            self._window.sent()

    def _next_look(self, began: float) -> float:
        """The moment at which something changes by itself."""
        now, held_until = anyio.current_time(), self._window.held_until
        moments = [held_until] if held_until > now else []
        if self.trouble:
            moments.append(max(began, self._failing_since) + self._patience_s)
        return min(moments, default=float("inf"))

    def _out_of_patience(self, began: float) -> bool:
        waited_s = anyio.current_time() - max(began, self._failing_since)
        return self.trouble is not None and waited_s >= self._patience_s

    async def _send(self, request: ChatRequest, trace_id: str) -> Completion:
        sent_at = anyio.current_time()
        try:
            completion = await self._gateway.chat(request, trace_id=trace_id, retry=ONCE)
        except (ServiceBusy, ServiceUnreachable) as failure:
            self._failed(failure, sent_at)
            raise
        except RequestRejected:
            self._answered(sent_at)
            raise
        except BaseException:
            self._window.abandoned()
            raise
        else:
            self._answered(sent_at)
            return completion
        finally:
            # Wake today's first in line, then give tomorrow's an event of its own.
            self._changed.set()
            self._changed = anyio.Event()

    def _answered(self, sent_at: float) -> None:
        now = anyio.current_time()
        self._window.answered(sent_at=sent_at, now=now)
        if self._told:
            log.info("gateway.resumed", after_s=round(now - self._failing_since, 1))
        self._failure, self._told = None, False

    def _failed(self, failure: Failure, sent_at: float) -> None:
        now = anyio.current_time()
        asked_s = failure.facts.get("retry_after_s")
        self._window.failed(
            sent_at=sent_at,
            now=now,
            overloaded=failure.facts.get("status") in OVERLOADED,
            retry_after_s=asked_s if isinstance(asked_s, float) else None,
        )
        if self._failure is None:
            self._failing_since = now
        self._failure = failure
        if self.trouble and not self._told:
            self._told = True
            wait_s = round(self._window.held_until - now, 2)
            log.warning("gateway.paused", reason=str(failure), wait_s=wait_s, model=self.model)
