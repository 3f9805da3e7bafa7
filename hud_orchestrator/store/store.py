"""The whole store of a run: its parts, over one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from hud_orchestrator.store.database import Database
from hud_orchestrator.store.firings import Firings
from hud_orchestrator.store.history import History
from hud_orchestrator.store.ledger import Ledger
from hud_orchestrator.store.rollbacks import Rollbacks
from hud_orchestrator.store.trajectories import Trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The parts."""

    ledger: Ledger
    history: History
    trajectories: Trajectories
    rollbacks: Rollbacks
    firings: Firings

    @classmethod
    def over(cls, database: Database) -> Self:
        """The store in *database*."""
        return cls(
            ledger=Ledger(database),
            history=History(database),
            trajectories=Trajectories(database),
            rollbacks=Rollbacks(database),
            firings=Firings(database),
        )
