"""The SDK's remote placements against our service, and its providers behind our adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hud import Run, Taskset, TrainingClient
from hud.eval.runtime import HostedRuntime, HUDRuntime
from hud.eval.task import Task as Row
from hud.utils.platform import PlatformClient

from hud_orchestrator.environments.hud import Provided
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.errors import ConfigError, EnvironmentFailed
from hud_orchestrator.records import Task

Agents = Callable[..., Any]


def rows(task: str = "add", count: int = 2) -> Taskset:
    args = [{"a": 12, "b": number} if task == "add" else {} for number in range(1, count + 1)]
    return Taskset(
        "ours", [Row(env="ours", id=task, args=one, slug=f"{task}-{n}") for n, one in enumerate(args)]
    )


def rewards(runs: list[Run]) -> list[float]:
    assert [run.trace.error for run in runs if run.trace.is_error] == []
    return [run.reward for run in runs]


async def test_the_sdks_hosted_rollouts_run_here_and_train_by_trace_id(slug: str, agent_of: Agents) -> None:
    agent = await asyncio.to_thread(agent_of, slug, max_steps=1)

    job = await rows().run(agent, runtime=HostedRuntime(poll_interval=0.1), group=2)
    client = TrainingClient(slug)
    forward = await client.forward(job.runs, group_size=2)
    trained = await client.forward_backward(job.runs, group_size=2)

    assert rewards(job.runs) == [datum.reward for datum in forward.data]
    assert [run.runtime for run in job.runs] == [f"hud://trace/{run.trace_id}" for run in job.runs]
    assert [run.evaluation["info"]["sum"] for run in job.runs] == [13, 13, 14, 14]
    assert trained.num_datums == 4


async def test_the_sdks_agent_drives_an_environment_that_it_leases_here(slug: str, agent_of: Agents) -> None:
    agent = await asyncio.to_thread(agent_of, slug, max_steps=1)

    job = await rows().run(agent, runtime=HUDRuntime(), group=2)
    forward = await TrainingClient(slug).forward(job.runs, group_size=2)

    assert rewards(job.runs) == [datum.reward for datum in forward.data]
    assert [run.evaluation["info"]["sum"] for run in job.runs] == [13, 13, 14, 14]


async def test_a_hosted_rollout_that_the_sdk_gives_up_is_cancelled_here(slug: str, agent_of: Agents) -> None:
    agent = await asyncio.to_thread(agent_of, slug, max_steps=1, timeout_seconds=1)

    job = await rows("slow", 1).run(agent, runtime=HostedRuntime(poll_interval=0.1), rollout_timeout=8)
    [run] = job.runs
    state = PlatformClient.from_settings().get(f"/trace/{run.trace_id}", dict)

    assert run.trace.stop_reason == "timeout"
    assert state["status"] == "cancelled"


async def test_a_hosted_rollout_that_fails_says_why_to_the_sdk(slug: str, agent_of: Agents) -> None:
    agent = await asyncio.to_thread(agent_of, slug, max_steps=1)

    job = await rows("cruel", 1).run(agent, runtime=HostedRuntime(poll_interval=0.1))
    [run] = job.runs

    assert run.grade.is_error
    assert "no grades today" in run.trace.error


def provided(provider: Any = "HUDRuntime", **options: Any) -> Provided:
    return Provided(provider, options, pace=Pace(ready_s=60, teardown_s=5))


def task(name: str = "add", **more: Any) -> Task:
    return Task(env="ours", id=name, args={"a": 2, "b": 3} if name == "add" else {}, slug=name, **more)


async def test_a_provider_of_the_sdk_finds_the_machine_and_our_client_does_the_rest() -> None:
    with anyio.fail_after(120):
        async with provided() as placement, placement.episode(task(), trace_id="a" * 32) as episode:
            assert episode.prompt == [{"role": "user", "content": "2+3="}]
            assert (await episode.grade("5"))["score"] == 1.0


def leased() -> int:
    """Processes of environments that are out on lease."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return sum(b"environments.server" in line and b"hosted/ours.py" in line for line in lines)


async def test_an_episode_that_is_cut_off_gives_its_machine_back() -> None:
    with anyio.fail_after(120):
        async with provided() as placement:
            with anyio.CancelScope() as scope:
                async with placement.episode(task("slow")):
                    during = leased()
                    scope.cancel()
                    await anyio.sleep_forever()
        while leased():  # noqa: ASYNC110  (processes of the service's)
            await anyio.sleep(0.05)
    assert during == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (task(runtime_config={"resources": {"gpu": {}}}), "HUDRuntime cannot honor this task's declared"),
        (task(runtime_config={"unknown": 1}), "unknown"),
    ],
)
async def test_what_a_provider_refuses_is_said_in_one_line(wanted: Task, said: str) -> None:
    async with provided() as placement:
        with pytest.raises(EnvironmentFailed) as failure:
            async with placement.episode(wanted):
                raise AssertionError("it began")

    assert said in str(failure.value)


def test_options_that_a_provider_does_not_take_are_a_mistake_of_the_run_file() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.options: ModalRuntime does not take them"):
        provided("ModalRuntime", colour="blue")
