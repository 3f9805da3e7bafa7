"""2048 on both sides: the SDK's environment trains through our daemon, ours runs under its taskset."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hud import Runtime, Taskset
from hud.agents.types import AgentStep
from hud.eval import Task

from tests.interop.conftest import ENVIRONMENTS

ROOT = Path(__file__).parents[2]
OURS = ROOT / ".venv" / "bin" / "hud-orchestrate"
TURNS, STEPS = 8, 15


@contextmanager
def serving(command: Sequence[str | Path], **environ: str) -> Iterator[str]:
    """The address of an environment that *command* serves; it is ended with SIGTERM."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ}
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("HUD_SERVE_PORT="):
                    yield f"tcp://127.0.0.1:{line.strip().partition('=')[2]}"
                    break
            else:
                raise AssertionError(f"{command} ended with {process.wait()}")
        finally:
            process.terminate()


def extends(samples: Sequence[dict[str, Any]]) -> bool:
    """Whether each prompt begins with all tokens of the turn before, and goes on."""
    return all(
        after["prompt_token_ids"][: len(so_far)] == so_far and len(after["prompt_token_ids"]) > len(so_far)
        for before, after in itertools.pairwise(samples)
        for so_far in [before["prompt_token_ids"] + before["output_token_ids"]]
    )


def test_the_sdks_2048_trains_through_our_daemon_over_its_control_port_and_its_mcp_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"env": "sdk-2048", "id": "game", "args": {"seed": seed}} for seed in range(100)]
    (tmp_path / "games.json").write_text(json.dumps(rows))
    sections = {
        "run": {"name": "it", "steps": STEPS},
        "model": {"slug": "sdk-2048", "base": "tiny"},
        "service": "hud",
        "taskset": {"train": "games.json"},
        "agent": {"tool_choice": "move", "max_turns": TURNS, "max_tokens": 1},
        "rollout": {"group_size": 8, "groups_per_step": 4, "concurrency": 16},
        "trainer": {"learning_rate": {"peak": 1e-3, "warmup_steps": 2}},
        "logging": {"format": "json"},
    }
    server = [sys.executable, "-m", "hud.environment.server", ENVIRONMENTS / "game2048.py", "--port", "0"]
    with serving(server) as address:
        sections["runtime"] = {"placement": address}
        (tmp_path / "run.yaml").write_text(json.dumps(sections))
        done = subprocess.run(
            [OURS, "run", "run.yaml"], cwd=tmp_path, timeout=1500, capture_output=True, text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr

    with sqlite3.connect(tmp_path / "runs" / "it" / "store.db") as store:
        played = store.execute(
            "SELECT outcome, reward, samples FROM rollouts ORDER BY group_number, member"
        ).fetchall()
    rewards = [reward for _, reward, _ in played]
    first, last = fmean(rewards[:64]), fmean(rewards[-128:])
    with capsys.disabled():
        print(f"\n{len(played)} games of the SDK: mean reward {first:.3f} at first, {last:.3f} at last")
    assert {outcome for outcome, *_ in played} == {"max_turns"}
    for *_, text in played:
        samples = json.loads(text)
        assert len(samples) == TURNS
        assert extends(samples)
    assert last > first + 0.05


async def test_our_2048_runs_under_the_sdks_taskset_with_its_agent(
    slug: str, agent_of: Callable[..., Any]
) -> None:
    tasks = [
        Task(env="game2048", id="game2048", args={"seed": seed, "size": 3, "goal": 16}) for seed in range(2)
    ]
    choice = {"type": "function", "function": {"name": "move"}}
    agent = agent_of(slug, max_tokens=1, max_steps=TURNS, body={"tool_choice": choice})
    source = ROOT / "examples" / "game2048" / "tasks.py"
    with serving([OURS, "env", "serve", source, "--port", "0"], PYTHONPATH="") as address:
        job = await Taskset("ours", tasks).run(agent, runtime=Runtime(address), group=2, max_concurrent=4)

    assert len(job.runs) == 4
    for run in job.runs:
        assert not run.trace.is_error, run.trace.error
        assert run.trace.stop_reason == "max_steps"
        parts = run.grade.raw["subscores"]
        assert [part["name"] for part in parts] == ["highest_tile", "score", "legal_moves"]
        moves = parts[2]["info"]
        assert moves["moves"] + moves["illegal"] <= TURNS
        turns = [step.sample for step in run.trace.steps if isinstance(step, AgentStep) and step.sample]
        assert len(turns) == TURNS
        assert extends([turn.model_dump() for turn in turns])
