"""What was finished when the daemon died, and what became of it: none of it lost, little of it done again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hud_orchestrator.errors import ExitCode
from tests.chaos.world import World

JUST_NOW_S = 0.1

NO_ROOM = f"exit code {ExitCode.STATE_UNWRITABLE:d}"

GROUPS = "SELECT number, ending, step FROM groups"
GRADES = """
SELECT json_extract(r.grade, '$.info.name') AS name, g.ending,
       (SELECT min(version_min) FROM rollouts WHERE group_number = g.number) AS version
FROM rollouts r JOIN groups g ON g.number = r.group_number
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A moment at which the daemon ended."""

    graded: Mapping[str, float]
    """Every grade that the environment had given before the end, and how many seconds before."""
    over: frozenset[str]
    """Those of groups that had ended."""
    versions: Mapping[str, int]
    """Of the others that were on disk, the oldest policy in their group."""
    log_offset: int
    cause: str


class Fate(StrEnum):
    """What became of a rollout that was finished, and not trained on, when the daemon died."""

    USED = "trained on, without another attempt"
    """Or judged to have no gradient."""
    STALE = "too old by the run's own rule when it went on"
    WAITING = "not needed any more when the run was done"
    NO_ROOM = "no room on the disk for it, which ended the daemon"
    JUST_NOW = "sampled again: graded in the last 0.1 s"
    """It may still have been on its way from the environment to the daemon."""
    UNKEPT = "sampled again: graded before that"
    DROPPED = "on the disk, and dropped later"


FRESH = (Fate.USED, Fate.JUST_NOW, Fate.UNKEPT, Fate.DROPPED)
KNOWN = (Fate.USED, Fate.UNKEPT, Fate.DROPPED)
"""Fresh, and surely known to the daemon."""


def share_used(fates: Mapping[Fate, int], among: Sequence[Fate]) -> float:
    """How many were used, of those with a fate in *among*."""
    return fates[Fate.USED] / max(1, sum(fates[fate] for fate in among))


@dataclass(slots=True)
class Accounts:
    """Looks at the store after every death, and remembers."""

    deaths: list[Death] = field(default_factory=list)
    groups: dict[int, tuple[str | None, int | None]] = field(default_factory=dict)

    def died(self, world: World, graded: Mapping[str, float], *, cause: str) -> None:
        """Write down what there was; *graded* is from before the end."""
        offset = _log_size(world)
        if not (world.run_directory / "store.db").exists():
            self.deaths.append(
                Death(graded=graded, over=frozenset(), versions={}, log_offset=offset, cause=cause)
            )
            return
        connection = world.store()
        try:
            self._groups_are_as_they_were(connection)
            rows = connection.execute(GRADES).fetchall()
        finally:
            connection.close()
        self.deaths.append(
            Death(
                graded=graded,
                over=frozenset(row["name"] for row in rows if row["ending"] is not None),
                versions={row["name"]: row["version"] for row in rows if row["ending"] is None},
                log_offset=offset,
                cause=cause,
            )
        )

    def settle(self, world: World, connection: sqlite3.Connection) -> Counter[Fate]:
        """What became of everything, when the run is done."""
        self._groups_are_as_they_were(connection)
        endings = {row["name"]: row["ending"] for row in connection.execute(GRADES)}
        fates, gone = Counter[Fate](), set[str]()
        for death in self.deaths:
            version = _next_version(world, death)
            for name in death.graded.keys() - death.over - gone:
                if name not in death.versions:
                    gone.add(name)  # it died with this daemon, and the next ones never had it
                    fates[_unkept(name, death)] += 1
                elif version - death.versions[name] > world.staleness:
                    fates[Fate.STALE] += 1
                else:
                    fates[_kept(endings.get(name, "forgotten"))] += 1
        return fates

    def _groups_are_as_they_were(self, connection: sqlite3.Connection) -> None:
        """No group is forgotten, and none that has ended ends again."""
        now = {row["number"]: (row["ending"], row["step"]) for row in connection.execute(GROUPS)}
        for number, (ending, step) in self.groups.items():
            assert number in now, f"group {number} was lost"
            assert ending is None or now[number] == (ending, step), f"group {number} ended twice"
        self.groups = now


def _next_version(world: World, death: Death) -> int:
    """The policy that the run went on with."""
    found = (line for line in world.events(death.log_offset) if line["event"] == "run.started")
    # Only a start that was cut off is not in the log, and the next one counts the death again.
    return next((int(line["after_step"]) for line in found), 0)


def _unkept(name: str, death: Death) -> Fate:
    if death.cause == NO_ROOM:
        return Fate.NO_ROOM
    return Fate.JUST_NOW if death.graded[name] < JUST_NOW_S else Fate.UNKEPT


def _kept(ending: str | None) -> Fate:
    if ending is None:
        return Fate.WAITING
    return Fate.USED if ending in ("trained", "no_spread") else Fate.DROPPED


def _log_size(world: World) -> int:
    log = world.run_directory / "run.log"
    return log.stat().st_size if log.exists() else 0


def groups_of(row: sqlite3.Row) -> list[int]:
    """The groups that a step trains on."""
    found: list[int] = json.loads(row["groups"])
    return found
