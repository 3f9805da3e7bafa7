"""A run has its model alone, where the service gives leases; elsewhere the tree alone tells of others.

Each lease has a token that is newer than every one before, and taking one is a clean cut: the service has
finished what it was busy with, has discarded what had accumulated, and refuses whatever of our own earlier
calls is still on its way. So it is taken at the start of a run, and again when an answer was lost.

A lease that is lost is not fought for. Being unable to say that we are there does not end a run: as long as
nobody else comes, the service goes on taking our calls, and when somebody does, it refuses them.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio

from hud_orchestrator.clients.retry import patiently
from hud_orchestrator.clients.writer_lease import NO_LEASES, FencingToken, WriterLeases
from hud_orchestrator.errors import (
    FencedOff,
    KeyRefused,
    OrchestratorError,
    RequestRejected,
    ServiceBusy,
    ServiceError,
    ServiceUnreachable,
)
from hud_orchestrator.logs import get_logger
from hud_orchestrator.rules.settlement import Others
from hud_orchestrator.store.history import History
from hud_orchestrator.wire_writer import WriterLease, WriterLeaseRequest

TTL_S = 60.0
"""Seconds that a run which was killed keeps others out, unless it is started again."""

HOLD_S = 15.0
"""Between two words that we are there: three may be lost."""

LOOK_S = 2.0
"""Between two looks whether the other one is gone."""

RELEASE_S = 5.0

UNFENCED = "unfenced"
"""The fact that a run, in some life of it, has had no lease."""

HEADS_SET = "heads_set"
"""The fact of every head that a run has asked for, as a request to set one may arrive late."""

log = get_logger()


class SingleWriter:
    """The lease of one run."""

    def __init__(self, leases: WriterLeases, history: History, token: FencingToken, *, holder: str) -> None:
        """Know *leases*; *token* is what the run's calls show, and changes with every lease."""
        self._leases = leases
        self._history = history
        self._token = token
        self._holder = holder
        self._model_id: str | None = None
        self._offered = True
        self._unanswered = False
        """Whether a lease was asked for and not given, as far as we know: a newer token may be ours."""
        self._taking = anyio.Lock()

    @property
    def fences(self) -> bool:
        """Whether taking the lease makes a clean cut."""
        return self._token.value is not None

    async def always_fenced(self) -> bool:
        """Whether this run has had the model on lease for as long as there is one."""
        return self.fences and await self._history.get(UNFENCED) is None

    async def never_fenced(self) -> bool:
        """Whether this run has never had a model on lease; each of its learning rates is signed then."""
        return not self.fences and await self._history.get("token") is None

    async def take(self, model_id: str) -> bool:
        """Have *model_id* from here on, with a clean cut; ``False``: the service gives no leases.

        Raises:
            FencedOff: somebody else has it, or had it since our last one.
        """
        if not self._offered:
            return False
        async with self._taking:
            if model_id != self._model_id:
                await self.release()
            self._unanswered = True
            try:
                lease = await self._ask(model_id)
            except (RequestRejected, KeyRefused) as error:
                if self.fences or getattr(error, "status", NO_LEASES[0]) not in NO_LEASES:
                    raise
                self._offered = False
                if await self._history.get(UNFENCED) is None:
                    await self._history.set(UNFENCED, "yes")
                return False
            self._unanswered = False
            before, self._token.value, self._model_id = self._token.value, lease.token, model_id
            if before not in (None, lease.token - 1):
                raise FencedOff(
                    f"another trainer had the model between tokens {before} and {lease.token} of this run; "
                    "give each run a slug of its own",
                    status=409,
                )
            await self._compare(model_id, lease)
            log.info("lease.taken", model=model_id, token=lease.token)
            return True

    async def _ask(self, model_id: str) -> WriterLease:
        """The lease. A claim stays counted when it fails, unless it was surely given no token."""
        wanted, tries = await self._next_claim(), list[ServiceError]()
        try:
            return await patiently(partial(self._leases.take, model_id, wanted), failed=tries.append)
        except OrchestratorError as error:
            # A refusal is the answer to the last try alone: one before it may have arrived. But if somebody
            # else has the model, none did that was answered, and what was not may still arrive.
            taken = isinstance(error, FencedOff)
            if all(isinstance(one, ServiceUnreachable) or (taken and "status" in one.facts) for one in tries):
                await self._count_claims(-1)
            raise

    async def others_after(self, step: int) -> Others:
        """What is known of others who had the model when this run had made *step*, or tried the next one."""
        after, _, surely = (await self._history.get("others_after") or "").partition(" ")
        if after != str(step):
            return Others.NONE
        return Others.SURELY if surely else Others.PERHAPS

    async def found_as_left(self) -> None:
        """The head is where this run left it, and it has the lease: what others may have done is over.

        A checkpoint of theirs may still be missing in an old list, so none is adopted in the next step.
        """
        if self.fences:
            after, _, surely = (await self._history.get("others_after") or "").partition(" ")
            if surely:
                await self._history.set("others_after", after)

    async def _compare(self, model_id: str, lease: WriterLease) -> None:
        """Note after which step somebody else may have had the model: there are tokens that we do not know.

        As many of those as we have asked for without an answer may have been given to a life of ours that
        ended before it was written: then a step whose answer was lost is done again for nothing.
        """
        model, _, known = (await self._history.get("token") or "").rpartition(" ")
        unleased = int(await self._history.get("unleased") or "0")
        unknown = lease.token - 1 - (int(known) if model == model_id else 0)
        if unknown:
            after = len(await self._history.made())
            theirs = lease.unleased > unleased or unknown >= await self._claims()
            surely = (model == model_id and theirs) or await self.others_after(after) is Others.SURELY
            await self._history.set("others_after", f"{after} surely" if surely else str(after))
            if surely:
                # All that we asked for before is refused, and it was not we who moved the head since.
                await self._history.set(HEADS_SET, "[]")
        await self._history.set("unleased", str(lease.unleased))
        await self._history.set("token", f"{model_id} {lease.token}")
        await self._history.set("claims_unanswered", "0")

    async def _claims(self) -> int:
        """Claims, with the one in hand, of which we do not know whether they were given a token."""
        return int(await self._history.get("claims_unanswered") or "1")

    async def _count_claims(self, more: int) -> None:
        claims = int(await self._history.get("claims_unanswered") or "0")
        await self._history.set("claims_unanswered", str(claims + more))

    async def take_when_free(self, model_id: str, *, waiting: Callable[[str], None]) -> None:
        """As ``take``, as soon as nobody else has it; *waiting* is told who does."""
        told = None
        while True:
            try:
                await self.take(model_id)
            except FencedOff as error:
                if told is None:
                    log.info("lease.awaited", model=model_id, reason=str(error))
                told = str(error)
                waiting(told)
                await anyio.sleep(LOOK_S)
            else:
                return

    async def hold(self) -> None:
        """Say every now and then that we are there.

        Raises:
            FencedOff: somebody else has come.
        """
        while True:
            await anyio.sleep(HOLD_S)
            shown = FencingToken(self._token.value)
            if self._model_id is None or shown.value is None:
                continue
            try:
                with anyio.fail_after(HOLD_S):
                    await self._leases.hold(self._model_id, shown)
            except FencedOff:
                # Perhaps by a newer lease of our own, whose answer is on its way, or was lost for good.
                async with self._taking:
                    if shown.value == self._token.value and not self._unanswered:
                        raise
            except (ServiceBusy, ServiceUnreachable, TimeoutError) as error:
                log.warning("lease.unconfirmed", reason=str(error) or type(error).__name__)

    async def release(self) -> None:
        """Let others in, and nothing of ours that is still on its way."""
        if self._model_id is None or self._token.value is None:
            return
        with anyio.move_on_after(RELEASE_S, shield=True):
            try:
                await self._leases.release(self._model_id, self._token)
            except OrchestratorError as error:
                log.warning("lease.unconfirmed", reason=str(error))
        self._model_id = self._token.value = None

    async def _next_claim(self) -> WriterLeaseRequest:
        """What to ask with. On disk before it is sent: no other life of this run will use it again."""
        owner = await self._history.get("owner")
        if owner is None:
            owner = uuid.uuid4().hex
            await self._history.set("owner", owner)
        # Of a directory that was put back to an earlier state the clock is still ahead.
        claim = max(int(await self._history.get("claim") or "0") + 1, int(time.time()))
        await self._count_claims(1)
        await self._history.set("claim", str(claim))
        return WriterLeaseRequest(owner=owner, claim=claim, holder=self._holder, ttl_s=TTL_S)


@asynccontextmanager
async def writing(
    writer: SingleWriter, model_id: str, *, waiting: Callable[[str], None] | None
) -> AsyncGenerator[None, None]:
    """Have the model alone for the length of the block, if the service gives leases.

    Args:
        writer: of the run.
        model_id: the model.
        waiting: told who has it, every time that we look; ``None``: do not wait.

    Raises:
        FencedOff: somebody else has it, or has come.
    """
    try:
        if waiting is None:
            await writer.take(model_id)
        else:
            await writer.take_when_free(model_id, waiting=waiting)
        async with anyio.create_task_group() as group:
            if writer.fences:
                group.start_soon(writer.hold, name="lease")
            yield
            group.cancel_scope.cancel()
    finally:
        await writer.release()


def holder_of(directory: Path) -> str:
    """How others are told about a run."""
    return f"{directory.absolute()} (process {os.getpid()} on {socket.gethostname()})"[:500]
