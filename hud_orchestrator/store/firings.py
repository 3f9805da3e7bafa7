"""What guards have done: written before it takes effect, and once for a step."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from hud_orchestrator.records import Action, Target
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.ledger import now
from hud_orchestrator.store.rollbacks import ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A guard has fired."""

    guard: str
    step: int
    taken: int
    """Steps that the run had taken by then, those it has gone back from included."""
    action: Action
    detail: str
    scale: float
    """What the learning rate is multiplied by from then on."""
    went_back: bool = False
    """Whether the run went back for it, or is about to."""


_SELECT = (
    "SELECT guard, step, taken, action, detail, scale, EXISTS (SELECT 1 FROM rollbacks"
    " WHERE rollbacks.id = firings.rollback AND state <> 'refused') AS went_back FROM firings"
)


class Firings:
    """The part of the store that guards write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fire(self, firings: Sequence[tuple[Firing, Target | None]]) -> None:
        """Write all that has fired at a step in one transaction, and ask for the rollbacks in it.

        With a firing comes what it goes back to, if it does.
        """

        def insert(connection: sqlite3.Connection) -> None:
            for firing, back_to in firings:
                _insert(connection, firing, back_to)

        await self._database.transaction(insert)

    async def all(self) -> list[Firing]:
        """Every firing, in order."""
        return [_firing(row) for row in await self._database.read(f"{_SELECT} ORDER BY id")]

    async def pauses(self) -> list[Firing]:
        """Those for which the run has yet to end."""
        found = await self._database.read(f"{_SELECT} WHERE heeded = 0 ORDER BY id")
        return [_firing(row) for row in found]

    async def heed(self) -> None:
        """The run ends for them; the next start goes on."""
        await self._database.write("UPDATE firings SET heeded = 1 WHERE heeded = 0")


def _firing(row: sqlite3.Row) -> Firing:
    return Firing(**{**dict(row), "went_back": bool(row["went_back"])})


def _insert(connection: sqlite3.Connection, firing: Firing, back_to: Target | None) -> None:
    rollback = None
    if back_to is not None:
        rollback = ask(connection, back_to, reason=f"guard {firing.guard}: {firing.detail}").id
    connection.execute(
        "INSERT INTO firings (guard, step, taken, action, detail, scale, rollback, fired_at, heeded)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            firing.guard,
            firing.step,
            firing.taken,
            firing.action,
            firing.detail,
            firing.scale,
            rollback,
            now(),
            firing.action != "pause",
        ),
    )
