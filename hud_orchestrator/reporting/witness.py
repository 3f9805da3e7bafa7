"""Who is told about every attempt, and must not hold it up."""

from __future__ import annotations

from typing import Protocol

from hud_orchestrator.records import Rollout, Ticket


class Witness(Protocol):
    """Hears when attempts begin and end. Its methods return at once and never raise."""

    def began(self, ticket: Ticket, *, trace_id: str) -> None:
        """An attempt begins; the next one at the same ticket has another trace."""
        ...

    def ended(self, rollout: Rollout) -> None:
        """What became of an attempt, also of one that is made again."""
        ...


class Nobody:
    """Hears nothing."""

    def began(self, ticket: Ticket, *, trace_id: str) -> None:
        """Nothing is done."""

    def ended(self, rollout: Rollout) -> None:
        """Nothing is done."""
