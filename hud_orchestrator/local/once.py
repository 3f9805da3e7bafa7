"""Training calls that finish although their client is gone, and are not done twice for one key.

The call runs as a task of its own; the handler only waits for it. A client that repeats a call with
the same ``Idempotency-Key`` and body gets the outcome of the first, also while that one still runs.
Refusals are forgotten: they changed nothing, so repeating them is harmless.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hud_orchestrator.local.replies import Refused

T = TypeVar("T")

REMEMBERED_KEYS = 1024
"""Outcomes that are kept; a client repeats a call within minutes, if at all."""


class OnceOnly:
    """The training calls in hand, and the keys of the latest ones."""

    def __init__(self, *, capacity: int = REMEMBERED_KEYS) -> None:
        """Remember the outcomes of the latest *capacity* keys."""
        self._capacity = capacity
        self._running: set[asyncio.Task[Any]] = set()
        self._known: OrderedDict[str, tuple[str, asyncio.Task[Any]]] = OrderedDict()

    async def run(self, key: str | None, digest: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do *work*, or wait for the same work begun earlier under *key*.

        Args:
            key: from the client, made unique per model and route; ``None``: nothing is remembered.
            digest: of the request's body.
            work: begun at most once per key.

        Raises:
            Refused: 409, the key was used with another body; or whatever *work* was refused with.
        """
        if key is not None and (known := self._known.get(key)):
            known_digest, task = known
            check_same_body(known_digest, digest)
        else:
            task = asyncio.create_task(work(), name="training call")
            self._running.add(task)
            task.add_done_callback(self._ended)
            if key is not None:
                self._remember(key, digest, task)
        # The handler may be cancelled; the call may not.
        return await asyncio.shield(task)

    async def settle(self, timeout_s: float) -> None:
        """Wait for the calls in hand, for a while."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        # Looked at here, or asyncio would complain about the failure of a call that nobody waits for.
        if not task.cancelled():
            task.exception()

    def _remember(self, key: str, digest: str, task: asyncio.Task[Any]) -> None:
        self._known[key] = (digest, task)
        task.add_done_callback(lambda ended: self._forget_failed(key, ended))
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def _forget_failed(self, key: str, task: asyncio.Task[Any]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and key in self._known and self._known[key][1] is task:
            del self._known[key]


def digest_of(body: bytes) -> str:
    """What tells two request bodies apart."""
    return hashlib.sha256(body).hexdigest()


def check_same_body(known: str | None, digest: str) -> None:
    """Refuse a key that was used for something else.

    Raises:
        Refused: 409.
    """
    if known != digest:
        raise Refused(409, "this Idempotency-Key was used with another body; a new call needs a new key")
