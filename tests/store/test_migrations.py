"""Stores that earlier programs wrote."""

from __future__ import annotations

import re
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest

from hud_orchestrator.errors import StateError
from hud_orchestrator.records import Ending, Phase
from hud_orchestrator.steps import EpisodeStep, Source
from hud_orchestrator.store import versions
from hud_orchestrator.store.archive import Archive
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.history import History
from hud_orchestrator.store.ledger import Ledger
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.store.versions import SCHEMA_VERSION

VERSIONS = range(1, SCHEMA_VERSION)


def old_store(path: Path, version: int) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript((Path(__file__).parent / f"v{version}.sql").read_text())
    connection.close()
    return path


def seen_from_outside(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def schema(path: Path) -> dict[str, set[str]]:
    """What each table and index demands: its columns and constraints in words, in whatever order."""
    found = {}
    for name, sql in seen_from_outside(path, "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
        bare = re.sub(r"--[^\n]*", "", str(sql)).replace('"', "")
        words = " ".join(bare.split()).replace("( ", "(").replace(" )", ")")
        if words.startswith("CREATE TABLE"):
            _, _, rest = words.partition("(")
            body, _, tail = rest.rpartition(")")
            found[str(name)] = {*_parts(body), tail.strip()}
        else:
            found[str(name)] = {words}
    return found


def _parts(body: str) -> set[str]:
    """Split at the commas that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in body:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return {part.strip() for part in parts}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_that_was_brought_up_to_date_demands_what_a_new_one_demands(
    tmp_path: Path, version: int
) -> None:
    path = old_store(tmp_path / "store.db", version)
    Database(path).close()
    Database(tmp_path / "new.db").close()

    assert schema(path) == schema(tmp_path / "new.db")
    assert seen_from_outside(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert seen_from_outside(path, "PRAGMA foreign_key_check") == []
    assert seen_from_outside(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_is_kept_as_it_was_before_it_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = old_store(tmp_path / "store.db", version)
    before = list(sqlite3.connect(path).iterdump())

    Database(path).close()

    backup = tmp_path / f"store.db.v{version}"
    assert list(sqlite3.connect(backup).iterdump()) == before
    assert seen_from_outside(backup, "PRAGMA user_version") == [(version,)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_migration_that_breaks_off_leaves_the_store_as_it_was(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old_store(tmp_path / "store.db", version)
    before = list(sqlite3.connect(path).iterdump())
    scripts = versions.files("hud_orchestrator.store")
    broken = tmp_path / "scripts"
    (broken / "migrations").mkdir(parents=True)
    name = f"migrations/{version + 1:04}.sql"
    (broken / name).write_text(scripts.joinpath(name).read_text() + "\nSELECT * FROM nowhere;")

    with monkeypatch.context() as patch:
        patch.setattr(versions, "files", lambda _: broken)
        with pytest.raises(Exception, match="nowhere"):
            Database(path)
    assert list(sqlite3.connect(path).iterdump()) == before
    Database(path).close()

    assert seen_from_outside(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_who_does_not_hold_the_run_leaves_an_older_store_as_it_is(tmp_path: Path) -> None:
    path = old_store(tmp_path / "store.db", 2)
    before = path.read_bytes()

    with pytest.raises(StateError, match="version 2"):
        Database(path, holds=False)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", [2, 3, 4])
async def test_a_run_of_an_earlier_version_goes_on_where_it_stood(tmp_path: Path, version: int) -> None:
    database = Database(old_store(tmp_path / "store.db", version))
    ledger, history, trajectories = Ledger(database), History(database), Trajectories(database)

    step = await ledger.open_step()
    assert step is not None
    assert (step.number, step.head_before, step.groups, step.checkpoint) == (3, "node-1", (2,), None)
    assert step.called == {"forward_backward", "optim_step"}
    assert step.num_datums is None
    assert await ledger.optim_steps() == 2
    assert [(one.number, one.checkpoint) for one in await history.steps()] == [(1, "node-1"), (2, None)]
    assert [(one.version, one.tasks) for one in await history.evaluations()] == [(0, {"add-1": 0.25})]
    assert (await history.get("slug"), await history.seconds()) == ("quick", 12.5)
    assert set(await trajectories.ended()) == {0, 1}
    (waiting,) = await trajectories.unended()
    assert (waiting.number, waiting.whole) == (2, True)
    assert [rollout.samples[0].output_token_ids for rollout in waiting.rollouts] == [(3,), (4,)]
    visits = await trajectories.visits(last=2)
    assert [(visit.slug, visit.rewards) for visit in visits] == [("add-1", (1.0, 0.0)), ("add-2", ())]

    await ledger.applied(step.id, checkpoint="node-2", metrics={}, trained=step.groups)
    assert [one.number for one in await history.steps()] == [1, 2, 3]
    assert seen_from_outside(tmp_path / "store.db", "SELECT ending, step FROM groups WHERE number = 2") == [
        ("trained", 3)
    ]
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        await database.write("INSERT INTO calls (id, step, kind, sent_at) VALUES ('x', 99, 'forward', '')")
    database.close()


def test_a_rollout_of_an_earlier_version_is_whole(tmp_path: Path) -> None:
    path = old_store(tmp_path / "store.db", 4)
    columns = "answer, detail, seconds, attempts, phase, json(phases), began_at, grade"
    before = seen_from_outside(path, f"SELECT {columns} FROM rollouts ORDER BY trace_id")
    Database(path).close()

    assert seen_from_outside(path, f"SELECT {columns} FROM rollouts ORDER BY trace_id") == before
    rollout = Archive(path).named("0.0").rollout
    assert (rollout.answer, rollout.grade, rollout.phases) == ("x", {"score": 1.0}, {Phase.ACT: 0.25})
    assert rollout.began_at == datetime.fromisoformat("2026-01-02T03:04:05.678Z").timestamp()
    assert rollout.steps == (EpisodeStep(source=Source.TASK, began=0.25, ended=0.5),)
    failed = Archive(path).named("1.0").rollout
    assert (failed.detail, failed.phase, failed.attempts) == ("went away", Phase.ACT, 2)


async def test_a_run_of_the_first_version_goes_on_where_it_stood(tmp_path: Path) -> None:
    path = old_store(tmp_path / "store.db", 1)
    database = Database(path)
    step = await Ledger(database).open_step()
    assert step is not None
    assert step.may_have_accumulated
    await Ledger(database).abandoned(step.id, detail="lost")
    again = await Ledger(database).plan(
        step.number, groups=step.groups, digest="d", head_before=None, learning_rate=1e-3, metrics={}
    )
    async with Ledger(database).one_shot("backward", plan=again):
        pass
    await Trajectories(database).end(0, ending=Ending.NO_GRADIENT, step=1)
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        await database.write("INSERT INTO calls (id, step, kind, sent_at) VALUES ('x', 99, 'forward', '')")
    database.close()

    assert seen_from_outside(path, "SELECT kind FROM calls ORDER BY rowid") == [
        ("forward_backward",),
        ("backward",),
    ]
    assert seen_from_outside(path, "SELECT ending FROM groups") == [("no_gradient",)]
    assert seen_from_outside(tmp_path / "store.db.v1", "SELECT ending FROM groups") == [(None,)]
