"""Two daemons, or a daemon and a notebook, on one slug of one service: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import httpx
import pytest

from hud_orchestrator import TrainingClient
from hud_orchestrator.errors import FencedOff, RequestRejected
from tests.e2e.conftest import Runner, until_line
from tests.e2e.proxy import lossy

Tree = Callable[[str], list[dict[str, Any]]]
INPUT = {"samples": [{"prompt_token_ids": [49], "output_token_ids": [50], "output_logprobs": [-1.0]}]}
BATCH = [INPUT | {"reward": 1.0}, INPUT | {"reward": 0.0}]


@pytest.fixture
def first(remote_run: Runner) -> Runner:
    """A run that goes on until it is told to stop."""
    remote_run.write(run={"steps": 10_000}, evaluation={"every": 10_000})
    return remote_run


@pytest.fixture
def second(first: Runner, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Another run of the same slug."""
    runner = Runner(tmp_path_factory.mktemp("second"), first.environ, deepcopy(first.config))
    runner.write(run={"name": "second", "steps": 2})
    return runner


@pytest.fixture
def notebook(first: Runner) -> TrainingClient:
    environ = first.environ
    return TrainingClient(
        first.config["model"]["slug"],
        api_key=environ["HUD_API_KEY"],
        base_url=environ["HUD_RL_URL"],
        api_url=environ["HUD_API_URL"],
    )


@pytest.fixture
def service(first: Runner) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {first.environ['HUD_API_KEY']}"}
    with httpx.Client(base_url=first.environ["HUD_API_URL"], headers=headers) as client:
        yield client


def lease(service: httpx.Client, slug: str) -> dict[str, Any]:
    model = service.get("/v2/models/resolve", params={"model": slug}).json()["id"]
    found: dict[str, Any] = service.get(f"/v1/models/{model}/lease").json()
    return found


def command(run: Runner, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hud_orchestrator", *arguments], cwd=run.directory, env=dict(run.environ),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def drained(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130


def made(run: Runner) -> list[str]:
    query = "SELECT checkpoint FROM steps WHERE state = 'applied' ORDER BY number"
    return [checkpoint for (checkpoint,) in run.query(query)]


def test_a_second_daemon_is_refused_and_told_who_has_the_model(
    first: Runner, second: Runner, checkpoints: Tree
) -> None:
    with first.started() as process:
        until_line(process, "step.taken")
        refused = second.run()
        head = command(first, "models", "head", first.config["model"]["slug"])
        moved = command(first, "models", "head", first.config["model"]["slug"], "--set", made(first)[0])
        until_line(process, "step.taken")
        drained(process)

    assert refused.returncode == 76, refused.stderr
    assert f"{first.directory}/runs/it (process {process.pid} on " in refused.stderr
    assert second.query("SELECT count(*) FROM calls") == [(0,)]
    assert f"trained by  {first.directory}/runs/it (process {process.pid} on " in head.stdout, head.stderr
    assert moved.returncode == 76
    assert "trains the model, on lease for" in moved.stderr
    assert [node["id"] for node in checkpoints(first.config["model"]["slug"])] == made(first)


def test_a_second_daemon_that_waits_trains_once_the_first_is_done(
    first: Runner, second: Runner, checkpoints: Tree, service: httpx.Client
) -> None:
    second.write(trainer={"on_other_trainer": "wait"})
    with first.started() as one:
        until_line(one, "step.taken")
        with second.started() as other:
            until_line(other, "lease.awaited")
            drained(one)
            assert other.stdout is not None
            output = other.stdout.read()
            assert other.wait(60) == 0, output

    slug = first.config["model"]["slug"]
    assert [node["id"] for node in checkpoints(slug)] == made(first) + made(second)
    assert len(made(second)) == 2
    assert not lease(service, slug)["held"]


def test_waiting_is_ended_by_a_signal(first: Runner, second: Runner) -> None:
    second.write(trainer={"on_other_trainer": "wait"})
    with first.started() as one:
        until_line(one, "step.taken")
        with second.started() as other:
            until_line(other, "lease.awaited")
            drained(other)


async def test_a_notebook_is_refused_while_a_daemon_trains_and_welcome_afterwards(
    first: Runner, checkpoints: Tree, notebook: TrainingClient
) -> None:
    with first.started() as process:
        until_line(process, "step.taken")
        with pytest.raises(FencedOff, match=f"{first.directory}/runs/it .* trains the model") as refusal:
            await notebook.forward_backward(BATCH, call="one")
        with pytest.raises(FencedOff):
            await notebook.set_head(checkpoints(first.config["model"]["slug"])[0]["id"])
        until_line(process, "step.taken")
        drained(process)

    assert isinstance(refusal.value, RequestRejected)
    trained = [node["id"] for node in checkpoints(first.config["model"]["slug"])]
    assert trained == made(first)
    await notebook.step(BATCH, learning_rate=1e-4, call="two")
    resumed = first.run()
    assert resumed.returncode == 76
    assert "somebody else" in resumed.stderr


async def test_where_there_are_no_leases_the_tree_tells_of_a_notebook(
    first: Runner, notebook: TrainingClient
) -> None:
    with (
        lossy(first.environ["HUD_RL_URL"], leases=False) as proxy,
        first.started(HUD_RL_URL=proxy.url) as process,
    ):
        until_line(process, "step.taken")
        for attempt in range(20):
            # What it adds may go into the run's step, and then there is nothing left for its own.
            with suppress(RequestRejected):
                await notebook.step(BATCH, learning_rate=1e-4, call=f"attempt-{attempt}")
                break
        else:
            pytest.fail("a step of the notebook's own never came through")
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.wait(60) == 76, output

    assert "somebody else" in output
    assert first.events("lease.taken") == []


def test_a_killed_daemon_comes_back_at_once_and_keeps_others_out_until_then(
    first: Runner, second: Runner, service: httpx.Client, checkpoints: Tree
) -> None:
    slug = first.config["model"]["slug"]
    with first.started() as process:
        until_line(process, "step.taken")
        process.kill()
        process.wait(10)
    assert lease(service, slug)["held"]
    assert second.run().returncode == 76

    done = first.run("--set", f"run.steps={len(made(first)) + 2}")

    assert done.returncode == 0, done.stderr
    assert [node["id"] for node in checkpoints(slug)] == made(first)
    assert not lease(service, slug)["held"]
    taken = [line["token"] for line in first.events("lease.taken")]
    assert taken == sorted(set(taken))


def test_a_daemon_whose_lease_has_gone_to_another_life_stops_before_it_sends_more(
    first: Runner, service: httpx.Client, checkpoints: Tree
) -> None:
    """The directory is copied while its run goes on: the same run twice, as after a partition."""
    slug = first.config["model"]["slug"]
    with first.started() as process:
        until_line(process, "step.taken")
        os.kill(process.pid, signal.SIGSTOP)
        copied = Runner(first.directory.with_name("copied"), first.environ, first.config)
        subprocess.run(["cp", "-r", first.directory, copied.directory], check=True)
        taken_over = copied.run("--set", f"run.steps={len(checkpoints(slug)) + 1}", timeout=120)
        before = checkpoints(slug)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.wait(60) == 76, output

    assert taken_over.returncode == 0, taken_over.stderr
    assert "Fencing-Token" in output
    assert checkpoints(slug) == before
