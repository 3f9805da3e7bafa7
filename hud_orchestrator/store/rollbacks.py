"""Going back, as a transaction: asked for on disk, then the head is moved, then all that it changes here.

    asked --the head is set, and the store changed in one transaction--> done
      +-----the service refuses that head, or it is on no line any more--> refused

A kill anywhere leaves *asked*, which the next start goes on with; setting a head twice is setting it.

What a rollback changes here: steps after its target are ``rolled_back``, their evaluations are of no
version any more, and finished groups that a policy after the target sampled end as ``rolled_back``. Groups
that were trained on stay trained, and are not attempted again: the data goes on.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from hud_orchestrator.records import Ending, Target
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.ledger import now


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """One that was asked for."""

    id: int
    target: Target
    reason: str


class Rollbacks:
    """The branches of a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, target: Target, *, reason: str) -> Rollback:
        """Write down that the run goes back; one that was asked for before goes first, and is returned."""
        return await self._database.transaction(lambda connection: ask(connection, target, reason=reason))

    async def asked(self) -> Rollback | None:
        """The one that is asked for and not done."""
        return await self._database.look(_asked, quick=True)

    async def done(self, rollback: Rollback, *, from_step: int, from_checkpoint: str | None) -> int:
        """The head is set: take what came after the target out of the history.

        Returns:
            How many groups ended with it.
        """

        def change(connection: sqlite3.Connection) -> int:
            retired = _cut(connection, rollback)
            connection.execute(
                "UPDATE rollbacks SET state = 'done', from_step = ?, from_checkpoint = ?, ended_at = ?"
                " WHERE id = ? AND state = 'asked'",
                (from_step, from_checkpoint, now(), rollback.id),
            )
            return retired

        return await self._database.transaction(change)

    async def refused(self, rollback: Rollback, *, detail: str) -> None:
        """It cannot be done, and nothing is changed."""
        await self._database.write(
            "UPDATE rollbacks SET state = 'refused', detail = ?, ended_at = ?"
            " WHERE id = ? AND state = 'asked'",
            detail,
            now(),
            rollback.id,
        )

    async def abandoned(self) -> set[str]:
        """Every checkpoint that the run has gone back from."""
        found = await self._database.read(
            "SELECT checkpoint FROM steps WHERE state = 'rolled_back' AND checkpoint IS NOT NULL"
        )
        return {row["checkpoint"] for row in found}


def ask(connection: sqlite3.Connection, target: Target, *, reason: str) -> Rollback:
    """Inside a transaction: see :meth:`Rollbacks.ask`."""
    if (before := _asked(connection)) is not None:
        return before
    connection.execute(
        "INSERT INTO rollbacks (to_step, to_checkpoint, reason, asked_at) VALUES (?, ?, ?, ?)",
        (target.step, target.checkpoint, reason, now()),
    )
    asked = _asked(connection)
    assert asked is not None
    return asked


def _asked(connection: sqlite3.Connection) -> Rollback | None:
    row = connection.execute("SELECT * FROM rollbacks WHERE state = 'asked'").fetchone()
    if row is None:
        return None
    target = Target(step=row["to_step"], checkpoint=row["to_checkpoint"])
    return Rollback(id=row["id"], target=target, reason=row["reason"])


def _cut(connection: sqlite3.Connection, rollback: Rollback) -> int:
    named = {"id": rollback.id, "step": rollback.target.step, "ending": Ending.ROLLED_BACK}
    connection.execute(
        "UPDATE steps SET state = 'rolled_back', rollback = :id"
        " WHERE number > :step AND state IN ('applied', 'skipped')",
        named,
    )
    connection.execute(
        "UPDATE evaluations SET rollback = :id WHERE version > :step AND rollback IS NULL", named
    )
    connection.execute(
        "UPDATE groups SET rollback = :id WHERE step > :step AND ending IS NOT NULL AND rollback IS NULL",
        named,
    )
    # Of a rollout that was sampled elsewhere only the oldest policy is known; and a turn may have been
    # sampled from a checkpoint before that was published as a version.
    return connection.execute(
        "UPDATE groups SET ending = :ending, rollback = :id WHERE ending IS NULL AND EXISTS"
        " (SELECT 1 FROM rollouts WHERE group_number = number AND (version_max > :step OR remote = 1"
        " OR EXISTS (SELECT 1 FROM json_each(samples) AS turn JOIN steps ON steps.rollback = :id"
        " AND steps.checkpoint = json_extract(turn.value, '$.unpublished'))))",
        named,
    ).rowcount
