"""Who may train a fork: a lease for one, and a token that is newer than those of everybody before.

The newest token is on disk before anybody learns it, so that an older one is refused for ever, also after
the service was killed. When a lease runs out is known in memory alone: after a restart its holder has the
whole time anew to say that it is there.

    free --taken--> held --released--> over, for this token
                     |  ^
         its time is |  | held for longer, or taken again by its owner
                 up  v  |
                  run out --somebody trains without a token, or takes it--> over, for this token

Whoever trains without a token has no lease, and uses one up all the same: the first of them since the last
lease takes the next token for all of them. So the next lease's token tells that somebody was there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

from pydantic import BaseModel, ConfigDict, Field

from hud_orchestrator.local.atomic import write_file
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.wire_writer import FENCING_TOKEN, WriterLease, WriterLeaseRequest


class _Given(BaseModel):
    """``lease.json``: the newest lease."""

    model_config = ConfigDict(frozen=True)

    token: int = Field(default=0, ge=0)
    owner: str = ""
    claim: int = 0
    holder: str = ""
    ttl_s: float = 0.0
    over: bool = True
    """Whether its token is refused from now on."""
    unleased: int = Field(default=0, ge=0)
    """How many tokens those without a lease have used up."""
    nobodys: bool = False
    """Whether the token is the one that those without a lease used up. The rest is of the lease before."""


class Fence:
    """The lease of one fork. Used by the event loop only."""

    def __init__(self, path: Path, *, outlives: bool, since: float) -> None:
        """Read what *path* knows.

        Args:
            path: its file.
            outlives: whether a holder may still be there after a restart of the service.
            since: the monotonic time at which the service started, from which on one may say so.
        """
        self._path = path
        self._changing = asyncio.Lock()
        self._given = _Given.model_validate_json(path.read_bytes()) if path.exists() else _Given()
        if not outlives:
            self._given = self._given.model_copy(update={"over": True})
        self._until = since + self._given.ttl_s

    def state(self) -> WriterLease:
        """Who has the fork."""
        left = max(self._until - monotonic(), 0.0) if not self._given.over else 0.0
        return WriterLease(
            held=left > 0,
            token=self._given.token,
            unleased=self._given.unleased,
            holder=self._given.holder or None,
            expires_in_s=round(left, 3),
        )

    def check(self, wanted: WriterLeaseRequest) -> None:
        """Refuse a lease that cannot be given now.

        Raises:
            Refused: 409, somebody else has it, or a newer claim of the same owner has come before.
        """
        given, now = self._given, self.state()
        if given.owner != wanted.owner:
            if now.held:
                raise self._refused(f"{self._holder()}; ask again, or end that one")
        elif wanted.claim < given.claim or (wanted.claim == given.claim and given.over):
            raise self._refused(
                f"claim {wanted.claim} of {wanted.holder} comes too late: its lease is at {given.claim}"
            )

    async def take(self, wanted: WriterLeaseRequest) -> bool:
        """Give the lease; whether it was a new one, and not this claim's own again.

        Raises:
            Refused: 409, see ``check``; 507, it could not be written.
        """
        async with self._changing:
            self.check(wanted)
            new = (wanted.owner, wanted.claim) != (self._given.owner, self._given.claim)
            if new:
                asked = wanted.model_dump()
                token, unleased = self._given.token + 1, self._given.unleased
                await self._write(_Given(**asked, token=token, unleased=unleased, over=False))
            self._until = monotonic() + self._given.ttl_s
            return new

    def hold(self, token: int) -> None:
        """Begin the lease's time anew.

        Raises:
            Refused: 409, the token is not the newest one, or is over.
        """
        self._check(token)
        self._until = monotonic() + self._given.ttl_s

    async def release(self, token: int) -> None:
        """Refuse *token* from now on, and nobody else; nothing happens when it is refused already.

        Raises:
            Refused: 507, it could not be written.
        """
        async with self._changing:
            if token == self._given.token and not self._given.over:
                await self._write(self._given.model_copy(update={"over": True}))

    async def admit(self, token: int | None) -> bool:
        """Let a call pass that shows *token*, or none; whether it is the first one without since a lease.

        Raises:
            Refused: 409, somebody has the lease, or *token* is not the newest one; 507.
        """
        async with self._changing:
            if token is not None:
                self._check(token)
            elif self.state().held:
                raise self._refused(f"{self._holder()}; this call has no {FENCING_TOKEN}")
            elif self._given.token > 0 and not self._given.nobodys:
                # Whoever had the lease must not go on as if nobody had trained since, nor begin again so.
                used = {"token": self._given.token + 1, "unleased": self._given.unleased + 1}
                used |= {"over": True, "nobodys": True}
                await self._write(self._given.model_copy(update=used))
                return True
            return False

    def _check(self, token: int) -> None:
        if token != self._given.token:
            raise self._refused(f"{FENCING_TOKEN} {token} is out of date: {self._holder()}")
        if self._given.over:
            raise self._refused(f"{FENCING_TOKEN} {token} is over: it was released, or ran out unused")

    async def _write(self, given: _Given) -> None:
        try:
            await asyncio.to_thread(write_file, self._path, given.model_dump_json().encode())
        except OSError as error:
            raise Refused(507, f"the lease could not be written, it is as before: {error}") from error
        self._given = given

    def _holder(self) -> str:
        now = self.state()
        if not now.held:
            last = "a trainer without a lease" if self._given.nobodys else now.holder or "nobody"
            return f"{last} had the model last (token {now.token})"
        return (
            f"{now.holder} trains the model, on lease for {now.expires_in_s:.0f} s more (token {now.token})"
        )

    def _refused(self, why: str) -> Refused:
        return Refused(409, why, newest_token=self._given.token)
