"""A store that is only looked at: of a run that is over, or of one that goes on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from hud_orchestrator.errors import NotFound, StateError
from hud_orchestrator.records import Rollout
from hud_orchestrator.store.trajectories import rollout_of
from hud_orchestrator.store.versions import SCHEMA_VERSION

SHORTEST_PREFIX = 4
"""Characters of a trace id that can stand for it."""

_CHOSEN = """
SELECT r.group_number, r.member FROM rollouts r JOIN groups g ON g.number = r.group_number
WHERE (:step IS NULL OR g.step = :step)
  AND (:outcome IS NULL OR r.outcome = :outcome)
  AND (:group IS NULL OR r.group_number = :group)
  AND (:task IS NULL OR json_extract(g.task, '$.slug') = :task)
ORDER BY {order} LIMIT :limit
"""
_ORDERS = {
    "newest": "r.group_number DESC, r.member DESC",
    "best": "r.reward IS NULL, r.reward DESC, r.group_number, r.member",
    "worst": "r.reward IS NULL, r.reward, r.group_number, r.member",
}
_LINE = """
SELECT r.group_number, r.member, r.trace_id, json_extract(g.task, '$.slug') AS task, g.step, g.ending,
       r.outcome, r.reward, json_array_length(r.samples) AS turns, r.num_tokens AS tokens,
       r.version_min, r.version_max, r.seconds
FROM rollouts r JOIN groups g ON g.number = r.group_number WHERE r.group_number = ? AND r.member = ?
"""
_WHOLE = """
SELECT g.number AS number, g.task AS task, g.size AS size, g.step AS step, g.ending AS ending, r.*
FROM kept_rollouts r JOIN groups g ON g.number = r.group_number
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rollouts to list; ``None`` is any."""

    step: int | None = None
    outcome: str | None = None
    group: int | None = None
    task: str | None = None
    order: Literal["newest", "best", "worst"] = "newest"
    limit: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A rollout in a list."""

    group_number: int
    member: int
    trace_id: str
    task: str
    step: int | None
    """The step that trained on its group, or for which it was dropped; none while it waits."""
    ending: str | None
    outcome: str
    reward: float | None
    turns: int
    tokens: int
    version_min: int | None
    version_max: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A rollout, and what became of its group."""

    rollout: Rollout
    step: int | None
    ending: str | None


class Archive:
    """Reads one store; every answer is from one moment."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self, wanted: Wanted) -> list[Line]:
        """The rollouts that are *wanted*, in the order that is.

        Raises:
            StateError: the store cannot be read.
        """
        chosen = _CHOSEN.format(order=_ORDERS[wanted.order])
        values = {
            "step": wanted.step, "outcome": wanted.outcome, "group": wanted.group, "task": wanted.task,
            "limit": wanted.limit,
        }  # fmt: skip
        with self._open() as connection:
            connection.execute("BEGIN")
            keys = connection.execute(chosen, values).fetchall()
            return [Line(**dict(connection.execute(_LINE, tuple(key)).fetchone())) for key in keys]

    def counts(self) -> tuple[int, int]:
        """Steps that are over, and rollouts.

        Raises:
            StateError: the store cannot be read.
        """
        with self._open() as connection:
            steps, rollouts = connection.execute(
                "SELECT (SELECT count(*) FROM steps WHERE state IN ('applied', 'skipped')),"
                " (SELECT count(*) FROM rollouts)"
            ).fetchone()
            return steps, rollouts

    def named(self, name: str) -> Kept:
        """The rollout that is called ``GROUP.MEMBER``, or by its trace id or the beginning of it.

        Raises:
            NotFound: there is none, or more than one.
            StateError: the store cannot be read.
        """
        group, dot, member = name.partition(".")
        with self._open() as connection:
            if dot and group.isdecimal() and member.isdecimal():
                found = connection.execute(
                    f"{_WHOLE} WHERE r.group_number = ? AND r.member = ?", (int(group), int(member))
                ).fetchall()
            elif len(name) >= SHORTEST_PREFIX:
                # As it is written here, or with the dashes of a UUID.
                where = "WHERE instr(r.trace_id, ?) = 1 OR instr(r.trace_id, ?) = 1 LIMIT 2"
                begun = name.lower()
                found = connection.execute(f"{_WHOLE} {where}", (begun, begun.replace("-", ""))).fetchall()
            else:
                found = []
            if len(found) != 1:
                raise NotFound(self._why_not(connection, name, several=len(found) > 1))
            (row,) = found
            return Kept(rollout=rollout_of(row), step=row["step"], ending=row["ending"])

    def _why_not(self, connection: sqlite3.Connection, name: str, *, several: bool) -> str:
        if several:
            return f"{name!r} begins several trace ids; give more of it"
        first, last, count = connection.execute(
            "SELECT min(group_number), max(group_number), count(*) FROM rollouts"
        ).fetchone()
        if not count:
            return (
                f"{self._path.parent}: has no rollouts yet; one is there about a second after it was graded"
            )
        known = f"groups {first} to {last}, some of them perhaps not yet whole"
        return f"there is no rollout {name!r}; give GROUP.MEMBER ({known}) or a trace id"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = self._connected()
        try:
            connection.row_factory = sqlite3.Row
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                raise StateError(
                    f"{self._path}: store has version {version}, this program reads {SCHEMA_VERSION}; "
                    "read it with the program that wrote it, or continue the run with this one"
                )
            yield connection
        except (sqlite3.DatabaseError, json.JSONDecodeError, msgspec.MsgspecError) as error:
            raise StateError(f"{self._path}: cannot be read: {error}") from error
        finally:
            connection.close()

    def _connected(self) -> sqlite3.Connection:
        # Without a log nobody writes to it: then it is opened so that no file is made beside it, which may
        # not even be possible there.
        still = not self._path.with_name(f"{self._path.name}-wal").exists()
        mode = "mode=ro&immutable=1" if still else "mode=ro"
        try:
            return sqlite3.connect(f"{self._path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise StateError(f"{self._path}: cannot be opened: {error}; mend its permissions") from error
