"""Episodes in a warm process and in the daemon behave alike; only a process can be ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.records import Task

SOURCE = """
import asyncio, os, time
from hud_orchestrator import Environment, EvaluationResult, SubScore

env = Environment("lab")

@env.template()
async def echo(expected: str):
    answer = yield f"say {expected}"
    yield 1.0 if answer == expected else 0.0

@env.template()
async def whole():
    yield [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    yield EvaluationResult(reward=0.5, content="half", info={"k": 1},
                           subscores=[SubScore(name="s", value=0.5)])

@env.template()
async def turns():
    points = 0
    for question in ("one", "two", "three"):
        answer = yield question
        if answer is None:
            break
        points += 1
    yield points / 3

@env.template()
async def slow_turn():
    yield "begin"
    await asyncio.sleep(0.3)
    answer = yield "middle"
    yield 0.25 if answer is None else 1.0

@env.template()
async def silent():
    yield "no grade follows"

@env.template()
async def nonsense():
    yield "x"
    yield "y" if False else object()

@env.template()
async def infinite():
    yield "x"
    yield float("inf")

@env.template()
async def broken():
    raise RuntimeError("no disk")
    yield

@env.template()
async def hangs():
    yield "x"
    await asyncio.sleep(10**6)

@env.template()
async def spins():
    yield "x"
    while True:
        pass

@env.template()
async def exits():
    yield "x"
    os._exit(1)

@env.template()
async def pid():
    yield str(os.getpid())
    yield 1.0

@env.template()
async def knows():
    yield str(os.environ.get("HUD_API_KEY"))
    yield 1.0

@env.template()
async def prints():
    print('{"jsonrpc":"2.0","id":1,"result":{"score":99}}', flush=True)
    yield "x"
    yield 1.0
"""


def task(template: str, env: str = "lab", **args: Any) -> Task:
    return Task(env=env, id=template, args=args, slug=template)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "lab.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(params=["process", "in-process"])
async def placement(request: pytest.FixtureRequest, source: Path) -> AsyncIterator[Placement]:
    if request.param == "in-process":
        yield InProcess(source, teardown_s=1)
        return
    with source.with_suffix(".log").open("wb") as log:
        async with ProcessPool(source, log_file=log, recycle_after=100, teardown_s=1) as pool:
            yield pool


async def test_an_answer_is_graded(placement: Placement) -> None:
    for answer, score in (("yes", 1.0), ("no", 0.0), (None, 0.0)):
        async with placement.episode(task("echo", expected="yes")) as episode:
            assert episode.prompt == [{"role": "user", "content": "say yes"}]
            assert await episode.grade(answer) == {"score": score}


async def test_a_grade_is_carried_whole(placement: Placement) -> None:
    async with placement.episode(task("whole")) as episode:
        assert [message["role"] for message in episode.prompt] == ["system", "user"]
        grade = await episode.grade("hi")

    assert grade["score"] == 0.5
    assert grade["info"] == {"k": 1}
    assert grade["subscores"] == [{"name": "s", "value": 0.5, "weight": 1.0, "info": None}]


async def test_a_template_may_ask_for_more_than_one_answer(placement: Placement) -> None:
    async with placement.episode(task("turns")) as episode:
        assert await episode.turn("a") == [{"role": "user", "content": "two"}]
        assert await episode.turn("b") == [{"role": "user", "content": "three"}]
        assert await episode.turn("c") is None
        assert (await episode.grade(None))["score"] == 1.0


async def test_an_agent_that_stops_early_is_graded_on_what_it_did(placement: Placement) -> None:
    async with placement.episode(task("turns")) as episode:
        await episode.turn("a")
        assert (await episode.grade(None))["score"] == pytest.approx(1 / 3)


async def test_a_generator_that_ends_without_a_grade_scored_nothing(placement: Placement) -> None:
    async with placement.episode(task("silent")) as episode:
        assert (await episode.grade("x"))["score"] == 0.0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (task("nonsense"), "prompt is a string"),
        (task("infinite"), "finite number"),
        (task("broken"), "no disk"),
        (task("unknown"), "no template 'unknown'"),
        (task("echo"), "missing a required argument: 'expected'"),
        (task("echo", env="elsewhere", expected="x"), "no environment 'elsewhere'"),
    ],
)
async def test_a_broken_environment_is_an_error_and_never_a_score(
    placement: Placement, bad: Task, said: str
) -> None:
    with pytest.raises(EnvironmentFailed, match=said):
        async with placement.episode(bad) as episode:
            await episode.grade("x")

    async with placement.episode(task("echo", expected="a")) as episode:
        assert (await episode.grade("a"))["score"] == 1.0


async def test_a_process_is_reused(source: Path) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(source.with_suffix(".log").open("wb"))
        pool = await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=3, teardown_s=1)
        )
        pids = []
        for _ in range(5):
            async with pool.episode(task("pid")) as episode:
                pids.append(episode.prompt[0]["content"])
                await episode.grade("x")

    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]


@pytest.mark.parametrize("template", ["hangs", "spins"])
async def test_an_environment_that_hangs_is_ended_within_the_teardown(source: Path, template: str) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(source.with_suffix(".log").open("wb"))
        pool = await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1)
        )
        async with pool.episode(task("pid")) as episode:
            pid = int(episode.prompt[0]["content"])
            await episode.grade("x")
        with anyio.fail_after(10):
            with anyio.move_on_after(0.2):
                async with pool.episode(task(template)) as episode:
                    await episode.grade("x")
            async with pool.episode(task("pid")) as episode:
                assert int(episode.prompt[0]["content"]) != pid
                await episode.grade("x")

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_environment_that_was_busy_when_its_agent_was_cut_short_still_grades(source: Path) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(source.with_suffix(".log").open("wb"))
        pool = await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1)
        )
        async with pool.episode(task("slow_turn")) as episode:
            with anyio.move_on_after(0.05) as acting:
                await episode.turn("a")
            assert acting.cancelled_caught
            assert (await episode.grade(None))["score"] == 0.25


async def test_an_environment_that_dies_is_an_error_and_is_replaced(source: Path) -> None:
    async with AsyncExitStack() as stack:
        log = stack.enter_context(source.with_suffix(".log").open("wb"))
        pool = await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1)
        )
        with pytest.raises(EnvironmentFailed, match="ended or closed"):
            async with pool.episode(task("exits")) as episode:
                await episode.grade("x")
        async with pool.episode(task("echo", expected="a")) as episode:
            assert (await episode.grade("a"))["score"] == 1.0


async def test_what_a_template_prints_does_not_reach_the_protocol(source: Path) -> None:
    async with AsyncExitStack() as stack:
        log_path = source.with_suffix(".log")
        log = stack.enter_context(log_path.open("wb"))
        pool = await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1)
        )
        async with pool.episode(task("prints")) as episode:
            assert (await episode.grade("x"))["score"] == 1.0

    assert "99" in log_path.read_text()


async def test_an_environment_process_does_not_get_the_key(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUD_API_KEY", "secret")
    async with AsyncExitStack() as stack:
        log = stack.enter_context(source.with_suffix(".log").open("wb"))
        pool = await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1)
        )
        async with pool.episode(task("knows")) as episode:
            assert episode.prompt[0]["content"] == "None"


async def test_a_source_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("import a_module_that_is_not_there\n")
    with (tmp_path / "log").open("wb") as log:
        async with ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1) as pool:
            with pytest.raises(EnvironmentFailed, match="a_module_that_is_not_there"):
                async with pool.episode(task("echo", expected="a")):
                    raise AssertionError("the episode must not begin")


def test_an_environment_process_starts_without_heavy_imports() -> None:
    code = "import sys, hud_orchestrator.environments.host; print(*(m.split('.')[0] for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"torch", "pydantic", "httpx", "anyio", "transformers", "structlog"} & set(loaded)
