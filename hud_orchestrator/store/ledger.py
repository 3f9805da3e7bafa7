"""Steps and the training calls they make, written down before they are made.

A row without an ending is a call whose outcome is unknown. Nothing has to run to reach that state:
a lost answer, a cancellation and a power cut all leave the same row behind.

    planned --optim_step confirmed, and the tree shows its node--> applied
       |                                                             ^
       +--settled: a node that only this step can have made----------+
       +--settled: no such node----> abandoned (its groups are free again)
       |                    +------> skipped, when lost steps are dropped (its groups end with it)
       +--nothing to train on------> skipped

    applied, skipped --the run went back to a step before--> rolled_back (see store.rollbacks)

``rules.steps`` has the states, and the store refuses every other change of them, and a call of a step that
is over or on top of one that failed: schema.sql.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import anyio.lowlevel

from hud_orchestrator.errors import KeyRefused, RequestRejected, ServiceUnreachable
from hud_orchestrator.records import CallId, Ending, StepState
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
    checkpoint: str | None = None
    """What its ``optim_step`` made, if the service has said so."""
    num_datums: int | None = None
    """Datums that the service has confirmed; ``None`` when it did not say of each call, or of none."""
    accumulations: int = 0
    """Calls that left a gradient behind, by the service's word."""
    has_rivals: bool = False
    """Whether another attempt on the same head has sent an ``optim_step`` and was given up."""

    @property
    def may_have_accumulated(self) -> bool:
        """Whether a gradient of it may wait on the service."""
        return not self.called.isdisjoint(ACCUMULATING)


@dataclass(slots=True)
class OpenCall:
    """A call whose row is on disk."""

    id: CallId
    num_datums: int | None = None
    """How many datums the service says that it took; set it before leaving."""
    checkpoint: str | None = None
    """What the service says that it made; likewise."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the service says of the loss; likewise. The step has them, however it ends."""


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

        # Synced together with the row of its first call, before which nothing of it happens.
        return await self._database.transaction(insert, survives="kill", apart=True)

    @asynccontextmanager
    async def one_shot(self, kind: CallKind, *, plan: int) -> AsyncIterator[OpenCall]:
        """A row for one call, on disk before the body runs; leaving says how it ended."""
        call = CallId(uuid.uuid4().hex)
        opened = OpenCall(id=call)
        # Who is cancelled sends nothing any more, so there must be no row that says it may have.
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._database.write(
            "INSERT INTO calls (id, step, kind, sent_at) VALUES (?, ?, ?, ?)",
            call, plan, kind, now(),
            apart=True,
        )  # fmt: skip
        self._database.lull()
        try:
            yield opened
        except (RequestRejected, KeyRefused) as error:
            await self._end(call, "rejected", str(error))
            raise
        except ServiceUnreachable as error:
            await self._end(call, "not_sent", str(error))
            raise
        await self._confirm(plan, opened)

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
            StepState.APPLIED,
            checkpoint=checkpoint,
            metrics=metrics,
            groups=trained,
            ending=Ending.TRAINED,
            detail=detail,
        )

    async def skipped(
        self,
        plan: int,
        *,
        metrics: Mapping[str, float],
        groups: Sequence[int],
        ending: Ending,
        detail: str | None = None,
        strays: Sequence[str] = (),
    ) -> None:
        """The step had nothing to train on, or was lost; its *groups* end by *ending*."""
        await self._consume(
            plan,
            StepState.SKIPPED,
            checkpoint=None,
            metrics=metrics,
            groups=groups,
            ending=ending,
            detail=detail,
            strays=strays,
        )

    async def abandoned(self, plan: int, *, detail: str, strays: Sequence[str] = ()) -> None:
        """The step did not happen; its groups are free again.

        Args:
            plan: the step's row.
            detail: why it did not.
            strays: checkpoints made meanwhile that no step will be explained by.
        """
        await self._database.write(
            "UPDATE steps SET state = ?, ended_at = ?, detail = ?, strays = ? WHERE id = ?",
            StepState.ABANDONED,
            now(),
            detail,
            json.dumps(list(strays)),
            plan,
        )

    async def checkpoints(self, *, strays: bool = True) -> set[str]:
        """Every checkpoint that a step which is over accounts for: its own, and *strays* that it has seen."""
        found = await self._database.read(
            # As the indices have them: it is asked at every step, and the rows of steps are long.
            "SELECT checkpoint AS id FROM steps"
            " WHERE state IN ('applied', 'rolled_back') AND checkpoint IS NOT NULL UNION ALL"
            " SELECT stray.value FROM steps, json_each(strays) AS stray WHERE strays <> '[]' AND ?",
            strays,
            quick=True,
        )
        return {row["id"] for row in found}

    async def optim_steps(self) -> int:
        """Calls of the whole run that may have made a checkpoint."""
        (row,) = await self._database.read(
            "SELECT count(*) AS count FROM calls"
            " WHERE kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed')",
            quick=True,
        )
        return int(row["count"])

    async def stood_on(self, heads: Collection[str | None]) -> set[str | None]:
        """Those of *heads* on which a call of this run may have made a checkpoint."""

        def look(connection: sqlite3.Connection) -> set[str | None]:
            called = (
                "SELECT 1 FROM steps JOIN calls ON calls.step = steps.id WHERE head_before IS ?"
                " AND kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed') LIMIT 1"
            )
            return {head for head in heads if connection.execute(called, (head,)).fetchone()}

        return await self._database.look(look, quick=True)

    async def given_up(self, number: int) -> set[int]:
        """The groups of the last attempt at a step, if that was given up."""
        found = await self._database.read(
            "SELECT groups FROM steps WHERE number = ? AND state = ? ORDER BY id DESC LIMIT 1",
            number,
            StepState.ABANDONED,
        )
        return {number for row in found for number in json.loads(row["groups"])}

    async def open_step(self) -> PlannedStep | None:
        """The step that is in hand, or was when the daemon last ended, if there is one."""
        return await self._database.look(_open_step, quick=True)

    async def _consume(
        self,
        plan: int,
        state: StepState,
        *,
        checkpoint: str | None,
        metrics: Mapping[str, float],
        groups: Sequence[int],
        ending: Ending,
        detail: str | None,
        strays: Sequence[str] = (),
    ) -> None:
        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE steps SET state = ?, checkpoint = ?, metrics = ?, detail = ?, strays = ?,"
                " ended_at = ? WHERE id = ?",
                (state, checkpoint, json.dumps(dict(metrics)), detail, json.dumps(list(strays)), now(), plan),
            )
            rows(
                connection,
                "UPDATE groups SET ending = ?, step = (SELECT number FROM steps WHERE id = ?)"
                " WHERE number = ? AND ending IS NULL",
                [(ending, plan, number) for number in groups],
            )

        await self._database.transaction(update)

    async def _end(self, call: CallId, ending: str, detail: str) -> None:
        await self._database.write(
            "UPDATE calls SET ending = ?, detail = ?, ended_at = ? WHERE id = ?",
            ending, detail, now(), call,
            survives="kill", apart=True,
        )  # fmt: skip

    async def _confirm(self, plan: int, call: OpenCall) -> None:
        def update(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE calls SET ending = 'confirmed', detail = ?, num_datums = ?, ended_at = ?"
                " WHERE id = ?",
                (call.checkpoint, call.num_datums, now(), call.id),
            )
            if call.figures:
                (known,) = connection.execute("SELECT metrics FROM steps WHERE id = ?", (plan,)).fetchone()
                # Of several calls, the figures of the first, which has the whole groups.
                metrics = {**call.figures, **json.loads(known)}
                connection.execute("UPDATE steps SET metrics = ? WHERE id = ?", (json.dumps(metrics), plan))

        # Lost in a power cut, it leaves a call of unknown outcome, which is settled like any other.
        await self._database.transaction(update, survives="kill", apart=True)


def _open_step(connection: sqlite3.Connection) -> PlannedStep | None:
    row = connection.execute("SELECT * FROM steps WHERE state = 'planned'").fetchone()
    if row is None:
        return None
    calls = connection.execute(
        "SELECT kind, ending, detail, num_datums FROM calls"
        " WHERE step = ? AND (ending IS NULL OR ending = 'confirmed')",
        (row["id"],),
    ).fetchall()
    rival = connection.execute(
        "SELECT 1 FROM steps JOIN calls ON calls.step = steps.id"
        " WHERE steps.head_before IS ? AND steps.id <> ? AND steps.checkpoint IS NULL"
        " AND calls.kind = 'optim_step' AND (calls.ending IS NULL OR calls.ending = 'confirmed') LIMIT 1",
        (row["head_before"], row["id"]),
    ).fetchone()
    confirmed = [call for call in calls if call["ending"] == "confirmed"]
    counts = [call["num_datums"] for call in confirmed if call["kind"] in ACCUMULATING]
    return PlannedStep(
        id=row["id"],
        number=row["number"],
        head_before=row["head_before"],
        learning_rate=row["learning_rate"],
        groups=tuple(json.loads(row["groups"])),
        metrics=json.loads(row["metrics"]),
        called=frozenset(call["kind"] for call in calls),
        checkpoint=next((call["detail"] for call in confirmed if call["kind"] == "optim_step"), None),
        num_datums=sum(counts) if counts and None not in counts else None,
        accumulations=len(counts),
        has_rivals=rival is not None,
    )


def now() -> str:
    """The present moment, ISO 8601 in UTC."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
