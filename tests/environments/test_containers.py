"""A container for each episode, on an engine that speaks Docker's API; on a real one where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from hud_orchestrator.environments import containers as places
from hud_orchestrator.environments.containers import Containers
from hud_orchestrator.environments.engine import LABEL, Engine
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.machine import Machine
from hud_orchestrator.errors import ConfigError, EnvironmentFailed, EnvironmentLost
from hud_orchestrator.records import Task
from tests.environments.fake_engine import FakeEngine, fake_engine

SUMS = """
import asyncio
from hud_orchestrator import Environment

env = Environment("sums")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0
"""
BROKEN = "raise SystemExit(3)"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sums.py").write_text(SUMS)
    (tmp_path / "images" / "broken.py").write_text(BROKEN)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with fake_engine(tmp_path, tmp_path / "images") as engine:
        yield engine


def containers(image: str | None = "sums", *, run: str = "this run", **more: Any) -> Containers:
    pace = Pace(ready_s=20, teardown_s=1)
    return Containers(Engine(run), image=image, port=8765, environ={"MODE": "easy"}, pace=pace, **more)


def task(**more: Any) -> Task:
    return Task(env="sums", id="add", args={"a": 2, "b": 3}, slug="add-2-3", **more)


async def test_every_episode_has_a_container_of_its_own_that_is_removed_after_it(engine: FakeEngine) -> None:
    during: list[int] = []
    with anyio.fail_after(60):
        async with containers() as placement:
            for answer in ("5", "6"):
                async with placement.episode(task()) as episode:
                    during.append(len(engine.containers))
                    assert episode.prompt == [{"role": "user", "content": "2+3="}]
                    assert (await episode.grade(answer))["score"] == float(answer == "5")

    assert during == [1, 1]
    assert engine.containers == {}
    assert len({asked["Labels"][LABEL] for asked in engine.asked}) == 1
    assert engine.asked[0]["Env"] == ["MODE=easy"]
    assert engine.asked[0]["HostConfig"]["PortBindings"] == {
        "8765/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]
    }


async def test_a_row_chooses_its_image_and_its_machine(engine: FakeEngine) -> None:
    wishes = {
        "image": "sums:latest",
        "resources": {"cpu": 1.5, "memory_mb": 512, "storage_mb": 100, "gpu": {"count": 2}},
        "limits": {"startup_timeout_s": 20},
    }
    with anyio.fail_after(60):
        async with containers(image=None) as placement, placement.episode(task(runtime_config=wishes)):
            pass

    host = engine.asked[0]["HostConfig"]
    assert (engine.asked[0]["Image"], host["NanoCpus"], host["Memory"]) == (
        "sums:latest",
        1_500_000_000,
        2**29,
    )
    assert [one["Count"] for one in host["DeviceRequests"]] == [2]


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (
            {"compose": {"document": "a.yml"}},
            "asks for compose in its runtime_config, which",
        ),
        ({"resources": {"os": "windows"}}, "asks for os in its runtime_config"),
        ({"resources": {"gpu": {"type": "h100"}}}, "cannot choose a gpu by type"),
        ({"resources": {"cpu": -1}}, "runtime_config.resources.cpu: Input should be greater than 0"),
        ({"image": "nobody/has-it"}, "pull access denied"),
        ({"image": "broken"}, "the container ended with 1: it said this"),
        (None, "names no image, and runtime.image is not set"),
    ],
)
async def test_what_cannot_be_had_is_said_in_one_line_and_leaves_nothing(
    engine: FakeEngine, wishes: dict[str, Any] | None, said: str
) -> None:
    placement = containers(image="sums" if wishes and "image" not in wishes else None)
    with anyio.fail_after(60), pytest.raises(EnvironmentFailed) as failure:
        async with placement, placement.episode(task(runtime_config=wishes)):
            raise AssertionError("it began")

    assert said in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1
    assert engine.containers == {}


async def test_a_container_that_outlives_its_run_timeout_is_lost_and_removed(engine: FakeEngine) -> None:
    limited = task(runtime_config={"limits": {"run_timeout_s": 5}})
    with anyio.fail_after(60):
        async with containers() as placement:
            with pytest.raises(EnvironmentLost, match=r"its run_timeout_s, 5 s, is over"):
                async with placement.episode(limited):
                    await anyio.sleep_forever()

            assert engine.containers == {}


async def test_the_run_of_a_container_begins_when_its_image_is_there(engine: FakeEngine) -> None:
    engine.pull, over = threading.Event(), anyio.Event()

    async def attempt(placement: Containers) -> None:
        try:
            async with placement.episode(task(runtime_config={"limits": {"run_timeout_s": 1}})):
                await anyio.sleep_forever()
        except EnvironmentLost:
            over.set()

    with anyio.fail_after(60):
        async with containers() as placement, anyio.create_task_group() as group:
            group.start_soon(attempt, placement)
            with anyio.move_on_after(2):
                await over.wait()
            assert not over.is_set()
            engine.pull.set()
            await over.wait()

    assert len(engine.asked) == 1
    assert engine.containers == {}


IMPATIENT = """
import anyio
from tests.environments.test_containers import containers, task

async def main():
    async with containers() as placement:
        with anyio.move_on_after(0.5):
            async with placement.episode(task()):
                pass

anyio.run(main)
"""


def test_a_program_ends_while_an_image_is_still_pulled(engine: FakeEngine) -> None:
    engine.pull = threading.Event()

    subprocess.run([sys.executable, "-c", IMPATIENT], cwd=Path(__file__).parents[2], check=True, timeout=60)

    assert engine.pulled == set()
    engine.pull.set()


async def test_an_image_is_pulled_once_though_those_that_asked_first_have_left(engine: FakeEngine) -> None:
    engine.pull = threading.Event()
    with anyio.fail_after(60):
        async with containers() as placement:
            for _ in range(3):
                with anyio.move_on_after(0.2) as patience:
                    async with placement.episode(task()):
                        raise AssertionError("it began")
                assert patience.cancelled_caught
            engine.pull.set()
            async with placement.episode(task()) as episode:
                assert (await episode.grade("5"))["score"] == 1.0

    assert engine.pulls == ["sums"]


async def test_a_container_that_is_made_too_late_does_not_stay(engine: FakeEngine) -> None:
    engine.hold = threading.Event()
    with anyio.fail_after(60):
        async with containers() as placement:
            with anyio.move_on_after(1) as patience:
                async with placement.episode(task()):
                    raise AssertionError("it began")
            assert patience.cancelled_caught
            engine.hold.set()
        # The thread that made it removes it, or the end of the placement does.
        while engine.containers:  # noqa: ASYNC110  (a thread of the engine's)
            await anyio.sleep(0.05)

    assert len(engine.asked) == 1


async def test_what_a_killed_run_left_is_removed_when_it_is_run_again(engine: FakeEngine) -> None:
    for run in ("this run", "another run"):
        killed = Engine(run)
        killed.start(run.replace(" ", "-"), "sums", Machine(), port=8765, environ={})
        killed.close()

    with anyio.fail_after(60):
        async with containers():
            pass

    assert list(engine.containers) == ["another-run"]


async def test_an_engine_that_does_not_tell_what_was_left_holds_nothing_up_and_is_named(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SWEEP_S", 0.1)
    engine.tell = threading.Event()

    with anyio.fail_after(20), capture_logs() as logs:
        async with containers():
            pass
        # Threads of ours still ask, once at the beginning and once at the end, and find an engine to ask.
        while engine.lists < 2:  # noqa: ASYNC110  (a thread of the engine's)
            await anyio.sleep(0.01)
    engine.tell.set()

    said = {"event": "container.left", "log_level": "warning", "name": "all", "reason": "not swept in 0.1 s"}
    assert logs == [said, said]


def test_an_engine_that_does_not_answer_is_a_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    with pytest.raises(ConfigError, match=r"placement: docker: no engine answers .* set DOCKER_HOST"):
        Engine("run")


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "docker", None)

    with pytest.raises(ConfigError, match=r"pip install 'hud-orchestrator\[docker\]'"):
        Engine("run")


@pytest.mark.skipif(not os.path.exists("/var/run/docker.sock"), reason="no container engine here")  # noqa: PTH110
async def test_a_real_engine_is_found() -> None:
    async with containers(image=None):
        pass
