"""What a process has one of, while a simulation runs in it: ids, chance, the time of day, logging."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import anyio.to_thread
import sniffio
import structlog
from anyio._backends._asyncio import _task_states

from hud_orchestrator import directory, logs
from tests.simulation.clock import Clock, VirtualLoop

T = TypeVar("T")


@contextmanager
def on_our_own(seed: int, clock: Clock) -> Iterator[None]:
    """Let *seed* and *clock* decide all of it, and leave it as it was: other tests share the process."""
    configured, config, state = structlog.is_configured(), structlog.get_config(), random.getstate()
    chance = random.Random(seed)
    random.seed(seed)  # what the product draws without a stream of its own: the jitter of waits
    logs.configure(stream=None, as_json=True, level="error")
    gc.freeze()  # the collection after the run looks at what that made alone
    gc.disable()
    with (
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4)),
        patch.object(time, "time", clock.wall),
        patch.object(time, "monotonic", lambda: clock.now),
        # Most of a short life would be spent on it, and on looking for the library that runs the loop.
        patch.object(directory, "PROBE_BYTES", 1),
        patch.object(sniffio.thread_local, "name", "asyncio"),
        patch.object(anyio.to_thread, "run_sync", _at_once),
        # What goes wrong when coroutines of a dead process are taken apart.
        patch.object(sys, "unraisablehook", lambda _: None),
        warnings.catch_warnings(action="ignore"),
    ):
        try:
            yield
        finally:
            structlog.configure(**config)
            if not configured:
                structlog.reset_defaults()
            random.setstate(state)
            _forget_the_dead()
            gc.enable()
            gc.collect()
            gc.unfreeze()


def _forget_the_dead() -> None:
    """Of a task that never ends, which real processes do not have, anyio's note keeps it alive for ever."""
    for task in list(_task_states):
        if isinstance(task.get_loop(), VirtualLoop):
            del _task_states[task]


async def _at_once(work: Callable[..., T], *arguments: object, **_: Any) -> T:
    """A thread would run on time of its own."""
    await asyncio.sleep(0)
    return work(*arguments)
