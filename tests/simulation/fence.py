"""Who may train a simulated model: its lease, by the words of the embedded service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """Somebody else has the model, or has had it since."""


@dataclass(slots=True)
class Fence:
    """The lease of one fork. All but its time outlives the service."""

    owner: str = ""
    claim: int = 0
    token: int = 0
    over: bool = True
    ttl_s: float = 0.0
    until: float = 0.0
    unleased: int = 0
    """How many tokens were used up by those without a lease."""
    nobodys: bool = False
    """Whether the token was used up by those without a lease."""

    def take(self, wanted: Any, now: float) -> bool:
        """Give the lease; whether it is a new one, and not the same claim again.

        Raises:
            Refused: somebody else has it, or a newer claim of the same owner has come.
        """
        if wanted["owner"] != self.owner:
            if self.held(now):
                raise Refused("somebody else has it")
        elif wanted["claim"] < self.claim or (wanted["claim"] == self.claim and self.over):
            raise Refused("too late")
        new = (wanted["owner"], wanted["claim"]) != (self.owner, self.claim)
        if new:
            self.owner, self.claim, self.ttl_s = wanted["owner"], wanted["claim"], wanted["ttl_s"]
            self.token, self.over, self.nobodys = self.token + 1, False, False
        self.until = now + self.ttl_s
        return new

    def hold(self, token: int | None, now: float) -> None:
        """Begin its time anew.

        Raises:
            Refused: *token* is not the newest one, or is over.
        """
        self._check(token)
        self.until = now + self.ttl_s

    def release(self, token: int | None) -> None:
        """Refuse *token* from now on."""
        self.over = self.over or token == self.token

    def admit(self, token: int | None, now: float) -> bool:
        """Let a call pass; whether it is the first one without a token since a lease.

        Raises:
            Refused: it may not.
        """
        if token is not None:
            self._check(token)
        elif self.held(now):
            raise Refused("no token")
        elif self.token and not self.nobodys:
            self.token, self.unleased = self.token + 1, self.unleased + 1
            self.over = self.nobodys = True
            return True
        return False

    def _check(self, token: int | None) -> None:
        if token != self.token or self.over:
            raise Refused(f"token {token}")

    def held(self, now: float) -> bool:
        """Whether somebody has it now."""
        return not self.over and now < self.until
