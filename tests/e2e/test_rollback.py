"""A run goes back in the middle of sampling and training, whoever asks, and whenever it is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.conftest import Runner, until_line
from tests.e2e.proxy import lossy

Tree = Callable[[str], list[dict[str, Any]]]

STEPS = 6
LONG_S = 300
"""Also for a machine that is busy, where the first fork of a service takes a minute."""

ALWAYS = {"metric": "reward_mean", "above": -1.0}
"""Holds for every step."""

GOES_BACK = {**ALWAYS, "in_a_row": 4, "action": "roll_back", "steps": 2, "most": 1}
"""Goes back from step 4 to step 2, once."""


def asynchronous(run: Runner, **sections: Any) -> None:
    run.write(
        run={"steps": STEPS},
        taskset={"heldout": None},
        pipeline={"staleness": 1},
        rollout={"groups_per_step": 2},
        trainer={"loss": "cispo"},
        **sections,
    )


def ask(run: Runner, *where: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hud_orchestrator", "rollback", run.config["run"]["name"], *where],
        cwd=run.directory, env=run.environ, timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip


def assert_consistent(run: Runner, tree: list[dict[str, Any]], *, steps: int = STEPS) -> None:
    """Every checkpoint is one step's, with the gradient of that step's groups, and the line is whole."""
    assert run.query("SELECT DISTINCT state FROM rollbacks") == [("done",)]
    rows = run.query(
        "SELECT number, state, checkpoint, head_before, groups FROM steps"
        " WHERE state IN ('applied', 'rolled_back') AND checkpoint IS NOT NULL ORDER BY id"
    )
    assert {checkpoint: head for _, _, checkpoint, head, _ in rows} == {
        node["id"]: node["prev_model_checkpoint_id"] for node in tree
    }
    assert len(rows) == len(tree)
    line = [(number, checkpoint) for number, state, checkpoint, _, _ in rows if state == "applied"]
    assert [number for number, _ in line] == list(range(1, steps + 1))
    parents = {node["id"]: node["prev_model_checkpoint_id"] for node in tree}
    at = next(node["id"] for node in tree if node["is_active"])
    for _, checkpoint in reversed(line):
        assert at == checkpoint
        at = parents[at]
    assert at is None
    seen: set[int] = set()
    for number, _, checkpoint, _, groups in rows:
        trained = json.loads(groups)
        assert seen.isdisjoint(trained)  # no group is trained on twice
        seen.update(trained)
        places = ", ".join(map(str, trained))
        assert run.query(f"SELECT DISTINCT ending, step FROM groups WHERE number IN ({places})") == [
            ("trained", number)
        ]
        (sent,) = next(
            iter(
                run.query(
                    f"SELECT count(*) FROM rollouts WHERE group_number IN ({places}) AND num_tokens > 0"
                )
            )
        )
        assert next(node["num_traces"] for node in tree if node["id"] == checkpoint) == sent
        ages = run.query(f"SELECT min(version_min) FROM rollouts WHERE group_number IN ({places})")
        assert number - 1 - ages[0][0] <= 1
    assert {number for (number,) in run.query("SELECT number FROM groups WHERE ending = 'trained'")} == seen


@pytest.mark.parametrize("killed", ["never", "time", "silence", "rollback.finished"])
def test_a_guard_takes_an_async_run_back_and_a_kill_on_the_way_changes_nothing(
    remote_run: Runner, checkpoints: Tree, killed: str
) -> None:
    """Killed before the head is set, when it is set and nobody was told, and when all is written."""
    asynchronous(remote_run, guards=[GOES_BACK])
    with ExitStack() as stack:
        if killed in ("time", "silence"):
            proxy = stack.enter_context(
                lossy(remote_run.environ["HUD_API_URL"], suffix="/head", nth=1, loss=killed)  # type: ignore[arg-type]
            )
            process = stack.enter_context(remote_run.started(HUD_API_URL=proxy.url))
            assert proxy.holding.wait(LONG_S)
            # The wish is on disk, and nothing that it changes here is.
            assert remote_run.query("SELECT state FROM rollbacks") == [("asked",)]
            assert remote_run.query("SELECT count(*) FROM steps WHERE state = 'rolled_back'") == [(0,)]
            process.kill()
            process.wait(10)
        elif killed != "never":
            process = stack.enter_context(remote_run.started())
            until_line(process, killed)
            process.kill()
            process.wait(10)
    done = remote_run.run(timeout=LONG_S)

    assert done.returncode == 0, done.stderr
    assert_consistent(remote_run, checkpoints(remote_run.config["model"]["slug"]))
    assert remote_run.query("SELECT to_step, from_step FROM rollbacks") == [(2, 4)]
    assert remote_run.query("SELECT step, taken, action FROM firings") == [(4, 4, "roll_back")]
    assert [line["step"] for line in remote_run.metrics("rollback")] == [2]
    assert [line["step"] for line in remote_run.metrics()] == [1, 2, 3, 4, 3, 4, 5, 6]
    assert remote_run.query("SELECT number, state FROM steps WHERE state = 'rolled_back' ORDER BY id") == [
        (3, "rolled_back"), (4, "rolled_back"),
    ]  # fmt: skip


@pytest.mark.parametrize("killed", [False, True])
def test_a_person_takes_a_run_back_that_goes_on(remote_run: Runner, checkpoints: Tree, killed: bool) -> None:
    asynchronous(remote_run)
    with ExitStack() as stack:
        # Held in a step while the wish is written down.
        api = stack.enter_context(
            lossy(remote_run.environ["HUD_API_URL"], suffix="/head", nth=1 if killed else 99, loss="silence")
        )
        rl = stack.enter_context(
            lossy(remote_run.environ["HUD_RL_URL"], suffix="/optim-step", nth=4, loss="silence")
        )
        process = stack.enter_context(remote_run.started(HUD_API_URL=api.url, HUD_RL_URL=rl.url))
        assert rl.holding.wait(LONG_S)
        asked = ask(remote_run, "--steps", "1")
        assert f"process {process.pid} does it when the step in hand is over" in asked.stdout
        rl.let_go()
        if killed:
            assert api.holding.wait(LONG_S)
            process.kill()
            process.wait(10)
        else:
            assert process.stdout is not None
            output = process.stdout.read()
            assert process.wait(LONG_S) == 0, output
    if killed:
        done = remote_run.run(timeout=LONG_S)
        assert done.returncode == 0, done.stderr

    assert_consistent(remote_run, checkpoints(remote_run.config["model"]["slug"]))
    assert remote_run.query("SELECT to_step, from_step, reason FROM rollbacks") == [(2, 4, "asked for")]
    back = remote_run.metrics("rollback")
    assert [line["step"] for line in back] == [2]


FADING = """
from pathlib import Path

from hud_orchestrator import Environment

env = Environment("arithmetic")
SEEN = Path(__file__).with_name("seen")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    yield 1.0 if (answer or "").strip() == str(a + b) else 0.0


@env.template()
async def fade():
    yield "1+1="
    with SEEN.open("a") as file:
        file.write("x")
    yield 1 / len(SEEN.read_text())


train = [add(a=a, b=b) for a in range(10, 50) for b in range(8)]
heldout = [fade()]
"""
"""A held-out task that is worth less every time."""


def test_the_best_checkpoint_outlives_pruning_and_what_was_pruned_is_refused(
    local_run: Runner,
) -> None:
    fall = {"metric": "eval.reward", "falls_below_best": 0.1, "in_a_row": 3, "action": "roll_back", "most": 1}
    local_run.write(
        FADING,
        run={"steps": 4},
        evaluation={"every": 1},
        local={"keep": {"last": 1, "best": False}},
        guards=[fall],
    )
    done = local_run.run(timeout=LONG_S)

    assert done.returncode == 0, done.stderr
    # The weights that the fork began with were better, and no head can be set to them.
    assert local_run.query("SELECT to_step, from_step FROM rollbacks") == [(1, 3)]
    (first,) = local_run.query("SELECT checkpoint FROM steps WHERE number = 1")[0]
    assert [line["checkpoint"] for line in local_run.metrics("rollback")] == [first]
    assert all(line["grad_norm"] > 0 and line["cut_short_share"] == 0 for line in local_run.metrics())

    # The last step was settled by the head before it, which is still there; what was before that one is not.
    assert "the next hud-orchestrate run does it" in ask(local_run, "--steps", "2").stdout
    refused = local_run.run(timeout=LONG_S)

    assert refused.returncode == 1
    assert "the run cannot go back to step 2 (asked for)" in refused.stderr
    assert "was pruned" in refused.stderr

    # The best one is still there, and can be the last one.
    assert ask(local_run, "--best").returncode == 0
    kept = local_run.run("--set", "run.steps=1", timeout=LONG_S)

    assert kept.returncode == 0, kept.stderr
    states = local_run.query("SELECT to_step, state FROM rollbacks ORDER BY id")
    assert states == [(1, "done"), (2, "refused"), (1, "done")]
    assert local_run.summary()["head"] == first


def test_a_pause_ends_the_run_once_and_a_lowered_rate_stays_low(remote_run: Runner) -> None:
    remote_run.write(
        run={"steps": 5},
        taskset={"heldout": None},
        guards=[
            {**ALWAYS, "name": "look", "in_a_row": 2, "action": "pause"},
            {**ALWAYS, "name": "slower", "cool_down": 0, "action": "lower_learning_rate", "floor": 2e-5},
        ],
    )
    paused = remote_run.run(timeout=LONG_S)

    assert paused.returncode == 79, paused.stderr
    assert "paused by guard look, after step 2: reward_mean" in paused.stderr
    assert remote_run.summary()["steps"] == 2

    done = remote_run.run(timeout=LONG_S)

    assert done.returncode == 0, done.stderr
    assert remote_run.query("SELECT guard, step FROM firings ORDER BY id") == [
        ("slower", 1), ("look", 2), ("slower", 2), ("slower", 3), ("slower", 4), ("slower", 5),
    ]  # fmt: skip
    rates = [rate for (rate,) in remote_run.query("SELECT learning_rate FROM steps ORDER BY number")]
    assert rates == pytest.approx([1e-4, 5e-5, 2.5e-5, 2e-5, 2e-5])


def test_a_loss_that_is_not_finite_is_a_step_that_a_guard_goes_back_from(
    remote_run: Runner, checkpoints: Tree
) -> None:
    asynchronous(
        remote_run,
        guards=[{"metric": "loss", "not_finite": True, "action": "roll_back", "steps": 2, "factor": 0.5}],
    )
    remote_run.write(run={"steps": 4})
    # The service refuses whatever is tried on top of step 2.
    with lossy(remote_run.environ["HUD_RL_URL"], suffix="/forward-backward", nth=3, loss="conflict") as proxy:
        done = remote_run.run(HUD_RL_URL=proxy.url, timeout=LONG_S)

    assert done.returncode == 0, done.stderr
    assert_consistent(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=4)
    assert remote_run.query("SELECT to_step, from_step FROM rollbacks") == [(1, 3)]
    assert remote_run.query("SELECT detail FROM firings") == [("loss nan is not finite",)]
    assert [line["loss"] for line in remote_run.metrics() if "loss" in line] == [None]
    assert remote_run.query("SELECT count(*) > 0 FROM groups WHERE ending = 'not_finite'") == [(1,)]
    rates = remote_run.query("SELECT DISTINCT learning_rate FROM steps WHERE state = 'applied' ORDER BY 1")
    assert rates == [(5e-5,), (1e-4,)]
