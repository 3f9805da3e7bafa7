"""What a run was and what it reached: its identity, sessions, consumed steps and evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from hud_orchestrator.store.database import Database
from hud_orchestrator.store.ledger import now


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumedStep:
    """A step that is over."""

    number: int
    checkpoint: str | None
    """The node it made, ``None`` when it was skipped."""
    metrics: Mapping[str, float]
    learning_rate: float
    taken: int
    """Which step of the run it was, those that the run has gone back from counted too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The policy measured on held-out tasks."""

    version: int
    checkpoint: str | None
    reward: float
    """Mean over graded attempts."""
    graded: int
    attempted: int
    seconds: float
    tasks: Mapping[str, float]
    """Mean reward by task slug."""


class History:
    """The parts of the store that are about the run as a whole."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._facts: dict[str, str | None] = {}
        """What is known to be on disk: nobody else writes there while a daemon runs."""

    async def get(self, key: str) -> str | None:
        """A fact about the run, ``None`` when it was never set."""
        if key not in self._facts:
            found = await self._database.read("SELECT value FROM meta WHERE key = ?", key)
            # What was set meanwhile is newer.
            self._facts.setdefault(key, str(found[0]["value"]) if found else None)
        return self._facts[key]

    async def set(self, key: str, value: str) -> None:
        """Write a fact about the run."""
        self._facts.pop(key, None)
        await self._database.write("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", key, value)
        self._facts[key] = value

    async def begin_session(self) -> int:
        """The daemon starts."""
        return await self._database.transaction(
            lambda connection: (
                connection.execute("INSERT INTO sessions (started_at) VALUES (?)", (now(),)).lastrowid or 0
            )
        )

    async def end_session(self, session: int, *, seconds: float, exit_code: int) -> None:
        """The daemon ends, and says how."""
        await self._database.write(
            "UPDATE sessions SET ended_at = ?, seconds = ?, exit_code = ? WHERE id = ?",
            now(),
            seconds,
            exit_code,
            session,
        )

    async def seconds(self) -> float:
        """Wall-clock seconds over all sessions that ended by themselves."""
        (row,) = await self._database.read("SELECT coalesce(sum(seconds), 0.0) AS s FROM sessions")
        return float(row["s"])

    async def steps(self) -> list[ConsumedStep]:
        """Every step that is over and that the run has not gone back from, in order."""
        found = await self._database.read(
            "SELECT * FROM (SELECT number, checkpoint, metrics, learning_rate, state,"
            " row_number() OVER (ORDER BY id) AS taken FROM steps"
            " WHERE state IN ('applied', 'skipped', 'rolled_back'))"
            " WHERE state <> 'rolled_back' ORDER BY number"
        )
        return [
            ConsumedStep(
                number=row["number"],
                checkpoint=row["checkpoint"],
                metrics=json.loads(row["metrics"]),
                learning_rate=row["learning_rate"],
                taken=row["taken"],
            )
            for row in found
        ]

    async def made(self) -> list[str | None]:
        """What the steps of the present line made, in order; ``None`` for one that was skipped."""
        found = await self._database.read(
            "SELECT checkpoint FROM steps WHERE state IN ('applied', 'skipped') ORDER BY number", quick=True
        )
        return [row["checkpoint"] for row in found]

    async def taken(self) -> int:
        """How many steps are over, those that the run has gone back from included."""
        (row,) = await self._database.read(
            "SELECT count(*) AS count FROM steps WHERE state IN ('applied', 'skipped', 'rolled_back')"
        )
        return int(row["count"])

    async def add_evaluation(self, evaluation: Evaluation) -> None:
        """Write an evaluation; a repeated one replaces the first."""
        await self._database.write(
            "INSERT OR REPLACE INTO evaluations"
            " (version, checkpoint, reward, graded, attempted, seconds, ended_at, tasks)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            evaluation.version,
            evaluation.checkpoint,
            evaluation.reward,
            evaluation.graded,
            evaluation.attempted,
            evaluation.seconds,
            now(),
            json.dumps(dict(evaluation.tasks)),
        )

    async def evaluations(self) -> list[Evaluation]:
        """Every evaluation of a policy that the run has not gone back from, in order of its version."""
        found = await self._database.read("SELECT * FROM evaluations WHERE rollback IS NULL ORDER BY version")
        return [
            Evaluation(
                version=row["version"],
                checkpoint=row["checkpoint"],
                reward=row["reward"],
                graded=row["graded"],
                attempted=row["attempted"],
                seconds=row["seconds"],
                tasks=json.loads(row["tasks"]),
            )
            for row in found
        ]
