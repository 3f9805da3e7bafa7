"""Code of somebody else's that runs inside the daemon: an agent, an environment."""

from __future__ import annotations

import asyncio


def raised_by_itself(error: BaseException) -> bool:
    """Whether foreign code raised *error*, rather than being stopped from outside.

    ``sys.exit()`` of a guest must not end the daemon. Nor may a guest that awaits a task of its own which
    was cancelled: its ``CancelledError`` would look as if the worker had been cancelled, and end that
    without a word.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception | SystemExit | BaseExceptionGroup)
