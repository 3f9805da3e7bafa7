"""Whatever is lost or killed, every step is applied once and every group ends once."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Runner, children_of, processes_of, until_line
from tests.e2e.proxy import Loss, lossy

Tree = Callable[[str], list[dict[str, Any]]]


def assert_every_step_is_one_checkpoint(run: Runner, tree: list[dict[str, Any]], *, steps: int) -> None:
    made = [
        checkpoint
        for (checkpoint,) in run.query("SELECT checkpoint FROM steps WHERE state = 'applied' ORDER BY number")
    ]
    assert [node["id"] for node in tree] == made
    assert len(made) == steps
    assert [node["prev_model_checkpoint_id"] for node in tree] == [None, *made[:-1]]
    assert [node["is_active"] for node in tree] == [False] * (steps - 1) + [True]
    trained = run.query(
        "SELECT step, count(*) FROM groups WHERE ending = 'trained' GROUP BY step ORDER BY step"
    )
    assert [step for step, _ in trained] == list(range(1, steps + 1))


@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("loss", ["request", "answer"])
@pytest.mark.parametrize("suffix", ["/optim-step", "/forward-backward"])
def test_a_lost_training_call_is_settled_and_never_repeated(
    remote_run: Runner, checkpoints: Tree, suffix: str, loss: Loss, leases: bool
) -> None:
    url = remote_run.environ["HUD_RL_URL"]
    with lossy(url, suffix=suffix, nth=2, loss=loss, leases=leases) as proxy:
        done = remote_run.run(HUD_RL_URL=proxy.url)
        sent = proxy.seen

    assert done.returncode == 0, done.stderr
    adopted = suffix == "/optim-step" and loss == "answer"
    assert len(remote_run.events("step.unsettled")) == 1
    assert len(remote_run.events("step.adopted")) == adopted
    assert len(remote_run.events("step.abandoned")) == (not adopted)
    # The lost call has no ending for ever; another attempt at the step is another call.
    assert remote_run.query("SELECT count(*) FROM calls WHERE ending IS NULL") == [(1,)]
    kind = suffix[1:].replace("-", "_")
    assert remote_run.query("SELECT count(*) FROM calls WHERE kind = ?", (kind,)) == [(sent,)]
    assert len({line["checkpoint"] for line in remote_run.metrics()}) == len(remote_run.metrics())
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=3)


def test_a_lost_step_can_be_dropped_and_its_groups_end_with_it(remote_run: Runner, checkpoints: Tree) -> None:
    remote_run.write(trainer={"on_lost_step": "drop"})
    with lossy(remote_run.environ["HUD_RL_URL"], suffix="/optim-step", nth=2, loss="request") as proxy:
        done = remote_run.run(HUD_RL_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert remote_run.query("SELECT number, state FROM steps ORDER BY number") == [
        (1, "applied"), (2, "skipped"), (3, "applied"),
    ]  # fmt: skip
    assert remote_run.query(
        "SELECT DISTINCT ending FROM groups WHERE step = 2 AND ending <> 'no_spread'"
    ) == [("lost",)]
    assert len(checkpoints(remote_run.config["model"]["slug"])) == 2


def test_the_next_start_settles_what_a_kill_left_open(remote_run: Runner, checkpoints: Tree) -> None:
    with (
        lossy(remote_run.environ["HUD_RL_URL"], suffix="/optim-step", nth=2, loss="time") as proxy,
        remote_run.started(HUD_RL_URL=proxy.url) as process,
    ):
        assert proxy.holding.wait(60)
        process.kill()
        process.wait(10)

    settled = remote_run.run()

    assert settled.returncode == 0, settled.stderr
    assert len(remote_run.events("step.abandoned")) == 1
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=3)


def test_what_is_graded_while_a_step_is_in_hand_is_on_disk_before_it_is_over(remote_run: Runner) -> None:
    remote_run.write(pipeline={"staleness": 2}, trainer={"loss": "ppo"}, rollout={"concurrency": 48})
    places = 3 * 4
    with (
        lossy(remote_run.environ["HUD_RL_URL"], suffix="/optim-step", nth=1, loss="time") as proxy,
        remote_run.started(HUD_RL_URL=proxy.url) as process,
    ):
        assert proxy.holding.wait(60)
        begun = time.monotonic()
        while len(remote_run.query("SELECT 1 FROM groups WHERE ending IS NULL AND rewards <> '[]'")) < places:
            assert time.monotonic() - begun < 60
            time.sleep(0.05)
        process.kill()
        process.wait(10)

    assert remote_run.query("SELECT count(*) FROM groups WHERE ending = 'trained'") == [(0,)]


def assert_the_first_step_has_its_own_gradient_alone(run: Runner, tree: list[dict[str, Any]]) -> None:
    assert_every_step_is_one_checkpoint(run, tree, steps=3)
    trained = run.query(
        "SELECT count(*) FROM rollouts JOIN groups ON number = group_number"
        " WHERE ending = 'trained' AND step = 1"
    )
    assert tree[0]["num_traces"] == trained[0][0]


def test_gradients_left_on_a_fresh_fork_are_gone_with_the_next_lease(
    remote_run: Runner, checkpoints: Tree
) -> None:
    with lossy(remote_run.environ["HUD_RL_URL"], suffix="/forward-backward", loss="answer") as proxy:
        done = remote_run.run(HUD_RL_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert len(remote_run.events("step.abandoned")) == 1
    assert_the_first_step_has_its_own_gradient_alone(
        remote_run, checkpoints(remote_run.config["model"]["slug"])
    )


def test_gradients_left_on_a_fresh_fork_never_reach_a_step(remote_run: Runner, checkpoints: Tree) -> None:
    url = remote_run.environ["HUD_RL_URL"]
    with lossy(url, suffix="/forward-backward", loss="answer", leases=False) as proxy:
        assert remote_run.run(HUD_RL_URL=proxy.url).returncode == 3

    with lossy(url, leases=False) as proxy:
        done = remote_run.run(HUD_RL_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    slug = remote_run.summary()["model"]
    assert slug.startswith(f"{remote_run.config['model']['slug']}-")
    assert checkpoints(remote_run.config["model"]["slug"]) == []
    assert_the_first_step_has_its_own_gradient_alone(remote_run, checkpoints(slug))


def test_a_run_file_that_asks_for_less_at_once_continues_too(remote_run: Runner) -> None:
    remote_run.write(run={"steps": 4}, rollout={"groups_per_step": 8}, taskset={"heldout": None})
    with remote_run.started() as process:
        until_line(process, "step.taken")
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    done = remote_run.run("--set", "rollout.groups_per_step=1")

    assert done.returncode == 0, done.stderr
    assert remote_run.summary()["steps"] == 4
    (changed,) = remote_run.events("run.config_changed")
    assert changed["keys"] == ["rollout.groups_per_step"]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_next_run_continues(
    remote_run: Runner, checkpoints: Tree, signal_number: signal.Signals
) -> None:
    remote_run.write(run={"steps": 6}, evaluation={"every": 100}, rollout={"groups_per_step": 8})
    with remote_run.started("--set", "run.drain_s=31") as process:
        until_line(process, "step.taken")
        process.send_signal(signal_number)
        until_line(process, "hud-orchestrate run run.yaml --set run.drain_s=31")
        code = process.wait(30)

    assert code == 130
    assert processes_of(remote_run.directory) == []
    summary = remote_run.summary()
    assert summary["exit_code"] == 130
    assert 1 <= summary["steps"] < 6
    assert remote_run.query("SELECT count(*) FROM calls WHERE ending IS NULL") == [(0,)]
    waiting = remote_run.query("SELECT count(*) FROM groups WHERE ending IS NULL")[0][0]

    again = remote_run.run()

    assert again.returncode == 0, again.stderr
    assert len(remote_run.events("group.readmitted")) == waiting
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=6)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_of_a_run_drains_it_too(
    local_run: Runner, signal_number: signal.Signals
) -> None:
    """As systemd's control groups and some shells send it. Its children get it first, which is the worst."""
    local_run.write(run={"steps": 100}, taskset={"heldout": None})
    with local_run.started() as process:
        until_line(process, "step.taken")
        for child in children_of(process.pid):
            os.kill(child, signal_number)
        # The service goes on, and environments are replaced.
        until_line(process, "step.taken")
        until_line(process, "step.taken")
        process.send_signal(signal_number)
        code = process.wait(60)

    assert code == 130
    assert processes_of(local_run.directory) == []
    assert local_run.query("SELECT count(*) FROM calls WHERE ending IS NULL") == [(0,)]


def test_a_second_signal_aborts_with_a_code_of_its_own(remote_run: Runner) -> None:
    remote_run.write(run={"drain_s": 600})
    with (
        lossy(remote_run.environ["HUD_RL_URL"], suffix="/optim-step", nth=2, loss="time") as proxy,
        remote_run.started(HUD_RL_URL=proxy.url) as process,
    ):
        assert proxy.holding.wait(60)
        process.send_signal(signal.SIGTERM)
        until_line(process, "run.draining")  # for the held step
        process.send_signal(signal.SIGINT)
        code = process.wait(30)

    assert code == 131
    assert processes_of(remote_run.directory) == []


def test_a_second_signal_while_the_service_starts_aborts_too(local_run: Runner) -> None:
    state = local_run.state / "service"
    state.mkdir(parents=True)
    with (state / "lock").open("a") as lock, local_run.started() as process:
        fcntl.flock(lock, fcntl.LOCK_EX)
        until_line(process, "service.waiting")
        process.send_signal(signal.SIGINT)
        until_line(process, "run.draining")
        process.send_signal(signal.SIGINT)
        until_line(process, "run.aborting")
        lock.close()
        code = process.wait(60)

    assert code == 131
    assert local_run.summary()["exit_code"] == 131
    assert processes_of(local_run.directory) == []


def test_sigkill_at_random_moments_loses_and_repeats_nothing(remote_run: Runner, checkpoints: Tree) -> None:
    remote_run.write(run={"steps": 5}, taskset={"heldout": None})
    for line in ("step.taken", "run.resumed", "step.taken"):
        with remote_run.started() as process:
            until_line(process, line)
            process.kill()
            process.wait(10)
    done = remote_run.run()

    assert done.returncode == 0, done.stderr
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=5)
    # A step that a kill has kept from being told is told by the next start.
    assert [line["step"] for line in remote_run.metrics()] == [1, 2, 3, 4, 5]


def test_a_killed_daemon_takes_its_service_with_it_and_a_killed_service_ends_the_run(
    local_run: Runner,
) -> None:
    with local_run.started() as process:
        until_line(process, "step.taken")
        process.kill()
        process.wait(10)
        # Children notice the end of their input by themselves; the lock on the state says when.
        again = local_run.command("--set", "run.steps=40")
    with local_run.started(*again[5:]) as process:
        until_line(process, "step.taken")
        service = local_run.events("service.started")[-1]["pid"]
        os.kill(service, signal.SIGKILL)
        assert process.stdout is not None
        output = process.stdout.read()
        code = process.wait(30)

    assert code in (3, 69), output
    assert "the embedded service ended by itself" in output
    assert processes_of(local_run.directory) == []

    done = local_run.run("--set", "run.steps=8")
    assert done.returncode == 0, done.stderr
    steps = local_run.query("SELECT number, checkpoint FROM steps WHERE state = 'applied' ORDER BY number")
    assert [number for number, _ in steps][:8] == list(range(1, 9))
    assert len({checkpoint for _, checkpoint in steps}) == len(steps)


def test_a_head_that_somebody_else_moved_stops_the_run(remote_run: Runner, checkpoints: Tree) -> None:
    import httpx

    assert remote_run.run().returncode == 0
    slug = remote_run.config["model"]["slug"]
    first = checkpoints(slug)[0]["id"]
    headers = {"Authorization": f"Bearer {remote_run.environ['HUD_API_KEY']}"}
    with httpx.Client(base_url=remote_run.environ["HUD_API_URL"], headers=headers) as client:
        model = client.get("/v2/models/resolve", params={"model": slug}).json()["id"]
        client.put(f"/v2/models/{model}/head", json={"checkpoint_id": first}).raise_for_status()

    moved = remote_run.run("--set", "run.steps=5")

    assert moved.returncode == 76
    assert "somebody else" in moved.stderr
    assert len(checkpoints(slug)) == 3
