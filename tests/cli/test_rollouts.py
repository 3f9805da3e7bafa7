"""``hud-orchestrate rollouts``: the attempts of a run, listed and shown."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hud_orchestrator.cli import app
from hud_orchestrator.cli.exits import exit_code
from hud_orchestrator.records import Ending, Group, Outcome
from hud_orchestrator.steps import EpisodeStep, Source
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.store import Store
from tests.builders import group, taken
from tests.cli.models_world import Said

GRADE = {
    "score": 0.5, "content": "half right", "done": True, "info": {"tile": 256}, "seen": [1],
    "subscores": [
        {"name": "correct", "weight": 2.0, "value": 0.25, "info": {"why": "sign"},
         "children": [{"name": "digits", "weight": 1.0, "value": 1.0}]},
    ],
}  # fmt: skip


def failed(whole: Group) -> Group:
    """The group with a whole grade for its first member, and a second one that did not start."""
    good, bad = whole.rollouts
    # What an environment says may hold anything, also what would turn a terminal red.
    said = "it did not start \x1b[31m"
    bad = replace(
        bad, reward=None, grade=None, samples=(), outcome=Outcome.NOT_STARTED, detail=said,
        steps=(EpisodeStep(source=Source.SYSTEM, began=0, ended=0, error=said),),
    )  # fmt: skip
    return replace(whole, rollouts=(replace(good, grade=GRADE), bad))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run, in the working directory's ``runs``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("runs/first").mkdir(parents=True)
    return Path("runs/first")


@pytest.fixture
async def database(place: Path) -> AsyncIterator[Database]:
    """The store of a run that goes on."""
    database = Database(place / "store.db")
    store = Store.over(database)
    for number in range(3):
        whole = group(number, rewards=(0.25 * number, 1.0), version=number)
        await store.trajectories.add(whole, ending=None)
        if number < 2:
            await taken(store, number + 1, checkpoint=f"c{number + 1}", groups=[number])
    await store.trajectories.add(failed(group(3, rewards=(0.5, 0.0))), ending=Ending.FAILED, step=3)
    await store.history.set("slug", "it")  # which makes rows of all of it
    yield database
    database.close()


@pytest.fixture
def rollouts(database: Database, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Said:
        code = exit_code(lambda: app(["rollouts", *arguments]))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


def names(said: Said) -> list[str]:
    return [line.split()[0] for line in said.out.splitlines()[1:]]


def test_a_run_that_goes_on_is_listed_by_its_name_newest_last_in_80_columns(rollouts: Any) -> None:
    said = rollouts("first")

    assert said.code == 0, said.err
    assert names(said) == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1", "3.0", "3.1"]
    assert said.out.splitlines()[5].split() == ["2.0", "-", "add-1", "finished", "0.500", "1", "2", "1.50"]
    assert max(map(len, said.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--step", "2"], ["1.0", "1.1"]),
        (["--outcome", "environment_not_started"], ["3.1"]),
        (["--group", "0"], ["0.0", "0.1"]),
        (["--task", "add-2"], []),
        (["--limit", "3"], ["2.1", "3.0", "3.1"]),
        (["--best", "--limit", "2"], ["0.1", "1.1"]),
        (["--worst", "--limit", "2"], ["0.0", "1.0"]),
    ],
)
def test_what_is_listed_can_be_chosen(rollouts: Any, options: list[str], expected: list[str]) -> None:
    assert names(rollouts("runs/first", *options)) == expected
    listed = json.loads(rollouts("runs/first", *options, "--json").out)
    assert [f"{one['group_number']}.{one['member']}" for one in listed] == expected


def test_a_rollout_is_shown_from_its_prompt_to_its_subscores(rollouts: Any) -> None:
    said = rollouts("show", "first", "3.0")

    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    in_order = [
        "3.0, finished, reward 0.5", "add-1 (sums:add)", '{"a": 1, "b": 2}', "failed at step 3",
        "version 0, 2 tokens in 1 turn", "start 0.10, act 1.25, grade 0.12",
        "environment, at 0.10 s", "1 + 2 =", "turn 1, at 0.10 s, took 0.90 s, tool_calls",
        "hm let me look", '-> look {"where": "left"}', "tool look", "3 is there",
        "grade, at 1.25 s", "score 0.5 half right", 'info: {"tile": 256} seen: [1]',
        'correct 2 0.25 {"why": "sign"} digits 1 1',
    ]  # fmt: skip
    places = [text.find(part) for part in in_order]
    assert -1 not in places, in_order[places.index(-1)]
    assert places == sorted(places)
    assert max(map(len, said.out.splitlines())) <= 80


def test_what_went_wrong_is_shown_and_cannot_steer_the_terminal(rollouts: Any) -> None:
    said = rollouts("show", "first", "trace-3-1")

    assert said.code == 0, said.err
    assert "3.1, environment_not_started, no reward" in said.out
    assert said.out.count(r"it did not start \x1b[31m") == 2
    assert "\x1b" not in said.out


def test_as_json_a_rollout_is_whole(rollouts: Any) -> None:
    told = json.loads(rollouts("show", "first", "3.0", "--json").out)

    assert told["grade"] == GRADE
    assert told["task"]["slug"] == "add-1"
    assert [step["source"] for step in told["steps"]] == ["user", "agent", "tool", "task"]
    assert told["samples"][told["steps"][1]["sample"]]["output_token_ids"] == [3, 3]
    assert (told["step"], told["ending"]) == (3, "failed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["second"], "there is no run 'second'; runs/ has: first"),
        (["runs"], "has no store.db; give the directory of a run"),
        (["show", "first", "9.0"], "there is no rollout '9.0'; give GROUP.MEMBER (groups 0 to 3"),
        (["show", "first", "trace-"], "begins several trace ids"),
        (["first", "--outcome", "fine"], "there is no outcome 'fine'; allowed: finished, "),
        (["first", "--best", "--worst"], "exclude each other"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(rollouts: Any, arguments: list[str], words: str) -> None:
    said = rollouts(*arguments)

    assert said.code == 2
    assert words in said.err
    assert len(said.err.splitlines()) == 1


def test_a_store_of_another_version_is_not_misread(rollouts: Any) -> None:
    with closing(sqlite3.connect("runs/first/store.db")) as connection:
        connection.execute("PRAGMA user_version = 2")

    said = rollouts("first", "--json")

    assert said.code == 1
    assert "version 2" in json.loads(said.out)["message"]


def test_looking_at_a_finished_run_leaves_nothing_beside_its_store(database: Database, rollouts: Any) -> None:
    database.close()
    Path("runs/first").chmod(0o500)

    assert names(rollouts("first", "--limit", "1")) == ["3.1"]
    assert {path.name for path in Path("runs/first").iterdir()} == {"store.db"}
