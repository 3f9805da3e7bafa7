"""What was finished when the daemon died, and what became of it: none of it lost, little of it done again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos.world import World

JUST_NOW_S = 0.1
"""A grade that is younger may still be on its way from the environment to the daemon."""

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


@dataclass(slots=True)
class Kept:
    """Rollouts that were finished and not yet trained on when the daemon died, over all deaths."""

    finished: int = 0
    stale: int = 0
    """Too old by the run's own rule when it went on: not counted as fresh."""
    waiting: int = 0
    """Fresh, and not yet needed when the run was done: not counted either."""
    used: int = 0
    """Fresh, and trained on or judged to have no gradient, without another attempt."""
    just_now: int = 0
    """Of those that were lost, how many were graded at the very end, and perhaps not known to the daemon."""
    why: Counter[str] = field(default_factory=Counter)
    """Fresh, and sampled again or dropped: how many, by the reason."""

    @property
    def lost(self) -> int:
        """Of the fresh ones, how many were not used."""
        return self.why.total()

    @property
    def share(self) -> float:
        """Of the fresh ones, how many were used."""
        return self.used / max(1, self.used + self.lost)

    @property
    def share_known(self) -> float:
        """Of the fresh ones that the daemon has surely been told of, how many were used."""
        return self.used / max(1, self.used + self.lost - self.just_now)

    def __iadd__(self, other: Kept) -> Kept:
        for name in ("finished", "stale", "waiting", "used", "just_now"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.why.update(other.why)
        return self


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
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):  # killed before its first transaction
                raise
            rows = []
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

    def settle(self, world: World, connection: sqlite3.Connection) -> Kept:
        """What became of everything, when the run is done."""
        self._groups_are_as_they_were(connection)
        endings = {row["name"]: row["ending"] for row in connection.execute(GRADES)}
        kept, gone = Kept(), set[str]()
        for death in self.deaths:
            version = next(
                (
                    int(line["after_step"])
                    for line in world.events(death.log_offset)
                    if line["event"] == "run.started"
                ),
                None,
            )
            for name in death.graded.keys() - death.over - gone:
                kept.finished += 1
                oldest = death.versions.get(name)
                if oldest is not None and version is not None and version - oldest > world.staleness:
                    kept.stale += 1
                elif name in endings and endings[name] is None:
                    kept.waiting += 1
                elif endings.get(name) in ("trained", "no_spread"):
                    kept.used += 1
                elif name not in death.versions:
                    gone.add(name)  # it died with this daemon, and the next ones never had it
                    young = death.graded[name] < JUST_NOW_S
                    kept.just_now += young
                    age = f"in its last {JUST_NOW_S:g} s" if young else "earlier"
                    kept.why[f"graded {age}, not on disk ({death.cause})"] += 1
                else:
                    kept.why[f"{endings.get(name, 'forgotten')} ({death.cause})"] += 1
        return kept

    def _groups_are_as_they_were(self, connection: sqlite3.Connection) -> None:
        """No group is forgotten, and none that has ended ends again."""
        now = {row["number"]: (row["ending"], row["step"]) for row in connection.execute(GROUPS)}
        for number, (ending, step) in self.groups.items():
            assert number in now, f"group {number} was lost"
            assert ending is None or now[number] == (ending, step), f"group {number} ended twice"
        self.groups = now


def _log_size(world: World) -> int:
    log = world.run_directory / "run.log"
    return log.stat().st_size if log.exists() else 0


def groups_of(row: sqlite3.Row) -> list[int]:
    """The groups that a step trains on."""
    found: list[int] = json.loads(row["groups"])
    return found
