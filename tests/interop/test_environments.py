"""Environments cross over: the SDK's are driven by our daemon, and ours by the SDK's agents."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hud import Runtime, Task, Taskset
from hud.agents.types import AgentStep, ToolStep

from tests.interop.conftest import ENVIRONMENTS

SERVE_SDK = (sys.executable, "-m", "hud.environment.server")
SERVE_OURS = (os.environ.get("INTEROP_OURS", ""), "-m", "hud_orchestrator", "env", "serve", "--port", "0")
EXAMPLE = Path(__file__).parents[2] / "examples" / "hud_sdk"
CALLS_TOOLS = """
class Caller:
    async def act(self, episode, policy):
        turn = await policy.sample(episode.prompt, tools=episode.tools)
        [tool] = episode.tools
        for number in range(len(turn.text) % 3 + 1):
            result = await episode.call_tool(tool.name, {"word": str(number)})
            assert [part["text"] for part in result.content] == ["ok"], result
        return turn.text
"""


@contextmanager
def serving(*command: str) -> Iterator[int]:
    """A server of an environment, at its port."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("HUD_SERVE_PORT="))
            yield int(line.partition("=")[2])
        finally:
            process.terminate()


def trained(directory: Path, run_file: Path, *values: str) -> list[dict[str, Any]]:
    """Train two steps of a run file, on the service that the tests share; what became of every rollout."""
    command = [os.environ["INTEROP_OURS"], "-m", "hud_orchestrator", "run", str(run_file)]
    state = directory / "state"
    for value in (f"run.state_dir={state}", *values):
        command += ["--set", value]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with sqlite3.connect(state / "store.db") as store:
        found = store.execute("SELECT outcome, reward, grade, samples FROM rollouts").fetchall()
        (steps,) = store.execute("SELECT count(*) FROM steps").fetchone()
    store.close()
    assert steps == 2
    return [dict(zip(("outcome", "reward", "grade", "samples"), row, strict=True)) for row in found]


def test_the_sdks_arithmetic_trains_through_our_daemon_where_it_is_served(slug: str, tmp_path: Path) -> None:
    with serving(*SERVE_SDK, str(EXAMPLE / "sums.py")) as port:
        placed = f"runtime.placement=tcp://127.0.0.1:{port}"
        less = ("run.steps=2", "evaluation.limit=8", "rollout.groups_per_step=4")
        rollouts = trained(
            tmp_path, EXAMPLE / "run.yaml", placed, "service=hud", f"model.slug={slug}", *less,
            "trainer.learning_rate.warmup_steps=0",
        )  # fmt: skip

    assert {rollout["outcome"] for rollout in rollouts} <= {"finished", "length"}
    assert {rollout["reward"] for rollout in rollouts} == {0.0, 1.0}
    assert all(json.loads(rollout["samples"]) for rollout in rollouts)


def test_the_sdks_tools_are_called_by_our_agents_in_a_process_for_every_rollout(
    slug: str, tmp_path: Path
) -> None:
    run = {
        "run": {"name": "crossing", "steps": 2},
        "model": {"slug": slug},
        "service": "hud",
        "taskset": {"train": "tasks.jsonl"},
        "runtime": {
            "placement": "subprocess",
            "source": str(ENVIRONMENTS / "words.py"),
            "command": [*SERVE_SDK, "{source}", "--env", "{env}"],
        },
        "agent": {"max_tokens": 4, "use": "callers:Caller"},
        "rollout": {"group_size": 2, "groups_per_step": 1, "concurrency": 2},
        "pipeline": {"drop_no_spread": False},
        "trainer": {"loss": "cross_entropy"},
        "logging": {"format": "json"},
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"env": "words", "id": "chat", "args": {"wanted": 3}}))
    (tmp_path / "callers.py").write_text(CALLS_TOOLS)
    (tmp_path / "run.yaml").write_text(json.dumps(run))

    rollouts = trained(tmp_path, tmp_path / "run.yaml")

    assert len(rollouts) == 4
    assert {rollout["outcome"] for rollout in rollouts} <= {"finished", "length"}
    assert all(rollout["reward"] in (1 / 3, 2 / 3, 1.0) for rollout in rollouts)


def our_tasks(*rows: Task) -> Taskset:
    return Taskset("ours", list(rows))


async def test_our_environment_runs_under_the_sdks_taskset(slug: str, agent_of: Callable[..., Any]) -> None:
    agent = await asyncio.to_thread(agent_of, slug, max_steps=1)
    rows = [Task(env="shop", id="add", args={"a": a, "b": 3}, slug=f"s{a}") for a in range(10, 14)]
    with serving(*SERVE_OURS, str(ENVIRONMENTS / "shop.py")) as port:
        job = await our_tasks(*rows).run(
            agent, runtime=Runtime(f"tcp://127.0.0.1:{port}"), group=2, max_concurrent=8
        )

    assert [run.trace.error for run in job.runs if run.trace.is_error] == []
    assert [run.evaluation["info"]["sum"] for run in job.runs[::2]] == [13, 14, 15, 16]
    for run in job.runs:
        assert run.evaluation["again"] is None
        assert run.reward == float(run.trace.content == str(run.evaluation["info"]["sum"]))


async def test_tools_of_ours_are_called_by_the_sdks_agents_each_in_its_own_episode(
    slug: str, agent_of: Callable[..., Any]
) -> None:
    put = {"type": "function", "function": {"name": "put"}}
    agent = await asyncio.to_thread(agent_of, slug, body={"tool_choice": put}, max_steps=3, max_tokens=3)
    with serving(*SERVE_OURS, str(ENVIRONMENTS / "shop.py")) as port:
        job = await our_tasks(Task(env="shop", id="buy", args={"count": 4})).run(
            agent, runtime=Runtime(f"tcp://127.0.0.1:{port}"), group=3, max_concurrent=3
        )

    assert [run.trace.error for run in job.runs if run.trace.is_error] == []
    for run in job.runs:
        steps = [step for step in run.trace.steps if isinstance(step, ToolStep)]
        assert [step.result.content[0].text for step in steps if step.result] == [
            "1 things", "2 things", "3 things"
        ]  # fmt: skip
        assert run.reward == 0.75
        samples = [step.sample for step in run.trace.steps if isinstance(step, AgentStep) and step.sample]
        for before, after in itertools.pairwise(samples):
            so_far = before.prompt_token_ids + before.output_token_ids
            assert after.prompt_token_ids[: len(so_far)] == so_far
