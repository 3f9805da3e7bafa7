"""A task group around a block whose own error comes out as it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc


@asynccontextmanager
async def crew() -> AsyncGenerator[anyio.abc.TaskGroup, None]:
    """A task group that is cancelled when the block ends.

    anyio wraps what a block raises into a group, so that no caller's ``except`` finds it. Here it comes
    out bare, which is right as long as no task of the group raises.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        try:
            yield group
        except Exception as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
