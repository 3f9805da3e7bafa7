"""Letters, delivered one after the other for each trace, and not at all while nobody takes them.

    the job, until it is known --> put() --> lane = f(trace) --> worker --> tally
                                                                   |
                                  two tries; after that every worker rests, longer each time

A trace stays in one lane, so that its letters arrive in order. One whose beginning was not delivered
gets it once more before its end: the service has a trace whole, or it is counted as dropped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import RequestRejected, ServiceBusy, ServiceError
from hud_orchestrator.logs import get_logger
from hud_orchestrator.reporting.letters import Letter
from hud_orchestrator.reporting.tally import Tally

log = get_logger()

LANES = 16
"""Requests in flight, at most."""

LARGE = 20_000
"""Tokens of a rollout that are written as JSON beside the event loop, not in it."""

TIMEOUT_S = 5.0
"""Seconds for one request."""

RETRY_S = 0.25
FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Letters about one trace, written when their turn comes."""

    trace_id: str
    write: Callable[[], Iterable[Letter]]
    last: bool
    """Whether nothing more will be said about the trace."""
    weight: int = 0
    """Tokens that are kept in memory for it."""


class Delivery:
    """The lanes, and who works at them."""

    def __init__(self, *, job: Letter, api: Transport, telemetry: Transport, tally: Tally) -> None:
        self.waiting = 0
        """Notices that were put and are not settled."""
        self.weight = 0
        """Of all of them."""
        self.left = 0
        """Traces of which the last notice was put and is not settled."""
        self._job = job
        self._api, self._telemetry = api, telemetry
        self._tally = tally
        self._lanes = [anyio.create_memory_object_stream[Notice](math.inf) for _ in range(LANES)]
        self._scope = anyio.CancelScope(shield=True)
        self.trouble: str | None = None
        """Why the last letter was not taken, where none was since."""
        self._failures = 0
        self._rested_at = -math.inf
        self._idle = anyio.Event()

    def why(self, otherwise: str) -> str:
        """Why something is dropped: the trouble that there is, or *otherwise*."""
        return self.trouble or otherwise

    @property
    def troubled(self) -> bool:
        """Whether nobody has taken anything for a while."""
        return self._failures > 1

    def put(self, notice: Notice) -> None:
        """Have *notice* delivered, after everything that was put about its trace before."""
        self.waiting += 1
        self.weight += notice.weight
        self.left += notice.last
        self._lanes[zlib.crc32(notice.trace_id.encode()) % LANES][0].send_nowait(notice)

    async def work(self) -> None:
        """Deliver until :meth:`close`, whatever is cancelled meanwhile."""
        with self._scope:
            await self._enter_job()
            async with anyio.create_task_group() as crew:
                for number, (_, lane) in enumerate(self._lanes):
                    crew.start_soon(self._lane, lane, name=f"reports-{number}")

    async def close(self, *, within_s: float) -> None:
        """Wait for what is waiting, at most *within_s* seconds, and not at all while it cannot arrive."""
        with anyio.move_on_after(within_s, shield=True):
            while self.waiting and not self.troubled:
                await self._idle.wait()
        self._scope.cancel("the last report is out")
        for put, lane in self._lanes:
            put.close()
            lane.close()

    async def _enter_job(self) -> None:
        while True:
            await anyio.sleep_until(self._rested_at)
            try:
                await self._post(self._job)
            except Exception as error:
                self._rest(error)
                self._wake()
            else:
                self._taken()
                return

    async def _lane(self, lane: MemoryObjectReceiveStream[Notice]) -> None:
        unsaid: dict[str, Notice] = {}
        async for notice in lane:
            await anyio.sleep_until(self._rested_at)
            try:
                await self._deliver(notice, unsaid)
            finally:
                self.waiting -= 1
                self.weight -= notice.weight
                self._wake()

    async def _deliver(self, notice: Notice, unsaid: dict[str, Notice]) -> None:
        earlier = unsaid.pop(notice.trace_id, None)
        try:
            for one in (earlier, notice):
                for letter in one.write() if one else ():
                    await self._post(letter, large=notice.weight > LARGE)
        except Exception as error:
            # Also what nobody thought of: a mistake in here must not end a run.
            if isinstance(error, ServiceError) and not isinstance(error, RequestRejected):
                self._rest(error)
            if notice.last:
                self._tally.dropped(_reason(error))
            else:
                unsaid[notice.trace_id] = notice
        else:
            self._taken()
            if notice.last:
                self._tally.reported()
        self.left -= notice.last

    def _taken(self) -> None:
        self._failures, self.trouble = 0, None

    def _rest(self, error: Exception) -> None:
        """Let every worker wait; of those that failed together, the first decides how long."""
        self.trouble = _reason(error)
        now = anyio.current_time()
        if now >= self._rested_at:
            self._rested_at = now + min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(self._failures, 10))
            self._failures += 1
            log.debug("request.retried", failures=self._failures, reason=self.trouble)

    def _wake(self) -> None:
        # Wake today's waiters, then give tomorrow's an event of their own.
        self._idle.set()
        self._idle = anyio.Event()

    async def _post(self, letter: Letter, *, large: bool = False) -> None:
        service = self._telemetry if letter.telemetry else self._api
        content = await anyio.to_thread.run_sync(letter.content) if large else letter.content()
        try:
            await _once(service, letter.path, content)
        except RequestRejected:
            raise
        except ServiceError:
            await anyio.sleep(RETRY_S)
            await _once(service, letter.path, content)


async def _once(service: Transport, path: str, content: bytes) -> None:
    with anyio.move_on_after(TIMEOUT_S):
        return await service.tell(path, content)
    raise ServiceBusy(f"POST {service.base_url}{path}: no answer in {TIMEOUT_S:g} s")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
