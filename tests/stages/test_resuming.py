"""What a start does with the groups that the last end has cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud_orchestrator.metrics import MetricsFile, Scoreboard
from hud_orchestrator.records import Ending, Policy
from hud_orchestrator.resume import Standing, without_stale
from hud_orchestrator.rounds import restore_board
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.history import Evaluation, History
from hud_orchestrator.store.store import Store
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.wire import Model
from tests.builders import group, planned, rollout, taken


@pytest.fixture
def trajectories(tmp_path: Path) -> Iterator[Trajectories]:
    database = Database(tmp_path / "store.db")
    yield Trajectories(database)
    database.close()


async def test_a_group_that_would_be_too_old_when_it_is_whole_is_not_finished(
    trajectories: Trajectories,
) -> None:
    await trajectories.add(group(0, version=1), ending=None)
    await trajectories.keep([rollout(1, version=2), rollout(2, version=3)])
    whole, old, fresh = await trajectories.unended()
    before = Standing(
        model=Model(id="m", model_name="m"), policy=Policy(version=4, checkpoint="c"), versions={},
        ended=frozenset(), waiting=(whole,), begun=(old, fresh),
    )  # fmt: skip

    after = await without_stale(before, trajectories, staleness=1)

    assert (after.begun, after.ended) == ((fresh,), {1})
    # A whole one is left to the sweep of the batch that it would stand in.
    assert after.waiting == (whole,)
    assert await trajectories.ended() == {1}


async def test_what_a_kill_kept_from_the_metrics_the_next_start_tells(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db")
    store, history = Store.over(database), History(database)
    for number, checkpoint in enumerate(["a", None, "c"], 1):
        metrics = {"reward_mean": number / 4}
        if checkpoint is None:
            plan = await planned(store, number)
            await store.ledger.skipped(plan, metrics=metrics, groups=(), ending=Ending.NO_SPREAD)
        else:
            await taken(store, number, checkpoint=checkpoint, metrics=metrics)
    for version in (0, 2):
        await history.add_evaluation(Evaluation(
            version=version, checkpoint=None, reward=0.5, graded=4, attempted=4, seconds=1, tasks={}
        ))  # fmt: skip
    path = tmp_path / "metrics.jsonl"
    lines = [{"kind": "evaluation", "step": 0}, {"kind": "step", "step": 1, "reward_mean": 0.25}]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"kind": "step", "st')
    stand = Standing(
        model=Model(id="m", model_name="m"), policy=Policy(version=3, checkpoint="c"), versions={},
        ended=frozenset(), waiting=(),
    )  # fmt: skip

    for _ in range(2):  # the second start has nothing left to tell
        board = Scoreboard(total_steps=5, metrics=MetricsFile(path))
        await restore_board(board, history, stand=stand)
        assert (board.step, board.rewards) == (3, [0.25, 0.5, 0.75])

    told = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    assert [(line["kind"], line["step"]) for line in told] == [
        ("evaluation", 0), ("step", 1), ("step", 2), ("evaluation", 2), ("step", 3),
    ]  # fmt: skip
    keys = ("checkpoint", "skipped", "learning_rate", "reward_mean")
    recovered = [tuple(line[key] for key in keys) for line in told if keys[1] in line]
    assert recovered == [("a", True, 0.0, 0.5), ("c", False, 1e-3, 0.75)]
    database.close()


async def test_lines_of_steps_that_the_run_went_back_from_count_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    kinds = [("step", 1), ("evaluation", 1), ("step", 2), ("evaluation", 2), ("rollback", 1), ("step", 2)]
    path.write_text("".join(f'{{"kind": "{kind}", "step": {step}}}\n' for kind, step in kinds))

    assert MetricsFile(path).written() == (2, {1})
    assert MetricsFile(tmp_path / "none").written() == (0, set())
