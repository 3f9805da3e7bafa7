"""Steps and the training calls they make, written down before they are made.

A row without an ending is a call whose outcome is unknown. Nothing has to run to reach that state:
a lost answer, a cancellation and a power cut all leave the same row behind.

    planned --optim_step confirmed--> applied      planned --nothing to train on--> skipped
       |                                 ^
       +--start: a new node explains it--+
       +--start: no node does, or the service refused--> abandoned (its groups are free again)
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from hud_orchestrator.errors import KeyRefused, RequestRejected, ServiceUnreachable
from hud_orchestrator.records import CallId, Ending
from hud_orchestrator.store.database import Database, rows

CallKind = Literal["forward_backward", "forward", "backward", "optim_step"]

ACCUMULATING = frozenset({"forward_backward", "backward"})
"""Kinds of calls that leave a gradient behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step whose row is on disk and whose end is not known yet."""

    id: int
    number: int
    head_before: str | None
    learning_rate: float
    groups: tuple[int, ...]
    """Numbers of the groups that it trains on."""
    metrics: Mapping[str, float]
    """The batch's own figures."""
    called: frozenset[str]
    """Kinds of calls that may have reached the service."""
    confirmed: frozenset[str]
    """Kinds of calls that the service has confirmed."""

    @property
    def may_have_accumulated(self) -> bool:
        """Whether a gradient of it may wait on the service."""
        return not self.called.isdisjoint(ACCUMULATING)


class Ledger:
    """The only source of call ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plan(
        self,
        number: int,
        *,
        groups: Sequence[int],
        digest: str,
        head_before: str | None,
        learning_rate: float,
        metrics: Mapping[str, float],
    ) -> int:
        """Write down what a step will train on and how that was rewarded; returns the row's id."""

        def insert(connection: sqlite3.Connection) -> int:
            cursor = connection.execute(
                "INSERT INTO steps (number, groups, digest, head_before, learning_rate, metrics, planned_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    json.dumps(list(groups)),
                    digest,
                    head_before,
                    learning_rate,
                    json.dumps(dict(metrics)),
                    now(),
                ),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

        return await self._database.transaction(insert)

    @asynccontextmanager
    async def one_shot(self, kind: CallKind, *, plan: int) -> AsyncIterator[CallId]:
        """A row for one call, on disk before the body runs; leaving says how it ended."""
        call = CallId(uuid.uuid4().hex)
        await self._database.write(
            "INSERT INTO calls (id, step, kind, sent_at) VALUES (?, ?, ?, ?)", call, plan, kind, now()
        )
        try:
            yield call
        except (RequestRejected, KeyRefused) as error:
            await self._end(call, "rejected", str(error))
            raise
        except ServiceUnreachable as error:
            await self._end(call, "not_sent", str(error))
            raise
        await self._end(call, "confirmed", None)

    async def applied(
        self,
        plan: int,
        *,
        checkpoint: str,
        metrics: Mapping[str, float],
        trained: Sequence[int],
        detail: str | None = None,
    ) -> None:
        """The step's node is the head: consume the step and end its groups, in one transaction."""
        await self._consume(
            plan,
            "applied",
            checkpoint=checkpoint,
            metrics=metrics,
            groups=trained,
            ending=Ending.TRAINED,
            detail=detail,
        )

    async def skipped(
        self, plan: int, *, metrics: Mapping[str, float], groups: Sequence[int], ending: Ending
    ) -> None:
        """The step had nothing to train on; its *groups* end by *ending*."""
        await self._consume(
            plan,
            "skipped",
            checkpoint=None,
            metrics=metrics,
            groups=groups,
            ending=ending,
            detail=None,
        )

    async def abandoned(self, plan: int, *, detail: str) -> None:
        """The step did not happen; its groups are free again."""
        await self._database.write(
            "UPDATE steps SET state = 'abandoned', ended_at = ?, detail = ?"
            " WHERE id = ? AND state = 'planned'",
            now(),
            detail,
            plan,
        )

    async def open_step(self) -> PlannedStep | None:
        """The step that was in hand when the daemon last ended, if one was."""
        found = await self._database.read("SELECT * FROM steps WHERE state = 'planned'")
        if not found:
            return None
        (row,) = found
        calls = await self._database.read(
            "SELECT kind, ending FROM calls WHERE step = ? AND (ending IS NULL OR ending = 'confirmed')",
            row["id"],
        )
        return PlannedStep(
            id=row["id"],
            number=row["number"],
            head_before=row["head_before"],
            learning_rate=row["learning_rate"],
            groups=tuple(json.loads(row["groups"])),
            metrics=json.loads(row["metrics"]),
            called=frozenset(call["kind"] for call in calls),
            confirmed=frozenset(call["kind"] for call in calls if call["ending"] == "confirmed"),
        )

    async def _consume(
        self,
        plan: int,
        state: str,
        *,
        checkpoint: str | None,
        metrics: Mapping[str, float],
        groups: Sequence[int],
        ending: Ending,
        detail: str | None,
    ) -> None:
        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE steps SET state = ?, checkpoint = ?, metrics = ?, detail = ?, ended_at = ?"
                " WHERE id = ? AND state = 'planned'",
                (state, checkpoint, json.dumps(dict(metrics)), detail, now(), plan),
            )
            rows(
                connection,
                "UPDATE groups SET ending = ?, step = (SELECT number FROM steps WHERE id = ?)"
                " WHERE number = ? AND ending IS NULL",
                [(ending, plan, number) for number in groups],
            )

        await self._database.transaction(update)

    async def _end(self, call: CallId, ending: str, detail: str | None) -> None:
        await self._database.write(
            "UPDATE calls SET ending = ?, detail = ?, ended_at = ? WHERE id = ?", ending, detail, now(), call
        )


def now() -> str:
    """The present moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
