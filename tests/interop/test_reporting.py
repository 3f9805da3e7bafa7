"""What the SDK reports on its own is answered, and is enough to train from."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hud import LocalRuntime, Run, TrainingClient
from hud.telemetry import flush
from hud.utils.exceptions import HudRequestError

from tests.interop.conftest import ENVIRONMENTS
from tests.interop.environments.sums import add

HUD = Path(sys.executable).with_name("hud")
RollOut = Callable[..., Awaitable[list[Run]]]


async def test_jobs_traces_and_telemetry_are_accepted_without_a_complaint(
    slug: str, roll_out: RollOut, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="hud"):
        runs = await roll_out(slug, [(12, 3), (47, 8)], group=2)
        flushed = await asyncio.to_thread(flush, timeout=60.0)

    assert flushed
    assert [record.getMessage() for record in caplog.records if record.name.startswith("hud")] == []
    assert len({run.trace_id for run in runs}) == 4
    assert len({run.job_id for run in runs}) == 1
    assert [run.group_id for run in runs[::2]] == [run.group_id for run in runs[1::2]]


async def test_a_trace_id_stands_for_the_recorded_tokens_and_the_reported_reward(
    slug: str, roll_out: RollOut
) -> None:
    runs = await roll_out(slug, [(12, 3), (47, 8), (31, 5)], group=2)
    client = TrainingClient(slug)

    resolved = await client.forward([run.trace_id for run in runs], group_size=2)
    inline = await client.forward(runs, group_size=2)

    assert [datum.reward for datum in resolved.data] == [run.reward for run in runs]
    assert [datum.group_idx for datum in resolved.data] == [datum.group_idx for datum in inline.data]
    for one, other in zip(resolved.data, inline.data, strict=True):
        assert one.mask == other.mask
        assert one.sampling_logprobs == pytest.approx(other.sampling_logprobs)


async def test_the_sdk_shows_the_steps_that_it_has_told_the_service(slug: str, roll_out: RollOut) -> None:
    [run] = await roll_out(slug, [(12, 3)], group=1)
    assert await asyncio.to_thread(flush, timeout=60.0)

    reading = [HUD, "trace", "get", run.trace_id, "--json"]
    shown = await asyncio.to_thread(subprocess.run, reading, capture_output=True, timeout=60, check=True)

    [turn] = [event for event in json.loads(shown.stdout) if event["kind"] == "agent_message"]
    assert turn["text"] == run.trace.content
    assert turn["tool_calls"] == []


async def test_a_run_that_the_gateway_refused_says_why_and_is_no_training_input(
    slug: str, agent_of: Callable[..., Any]
) -> None:
    agent = await asyncio.to_thread(agent_of, slug, system_prompt="long " * 1000)
    job = await add(a=12, b=3).run(agent, runtime=LocalRuntime(ENVIRONMENTS / "sums.py"))
    [run] = job.runs

    # The SDK grades such a run and sends its bare trace id.
    with pytest.raises(HudRequestError, match=run.trace_id) as refused:
        await TrainingClient(slug).forward_backward([run])

    assert run.trace.is_error
    assert "context" in (run.trace.error or "")
    assert refused.value.status_code in (404, 422)


def test_the_evaluation_command_rolls_out_and_its_job_can_be_read(slug: str, tmp_path: Path) -> None:
    rows = [{"env": "sums", "id": "add", "args": {"a": 12, "b": b}} for b in (3, 4)]
    (tmp_path / "tasks.json").write_text(json.dumps(rows))
    (tmp_path / "sums.py").write_text((ENVIRONMENTS / "sums.py").read_text())
    (tmp_path / ".hud_eval.toml").write_text(
        "[openai_compatible]\n"
        "completion_kwargs = { max_tokens = 6, extra_body = { return_token_ids = true } }\n"
    )
    command = [HUD, "eval", "tasks.json", slug, "--all", "--yes", "--json", "--runtime", "local"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    told: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}

    assert done.returncode == 0, done.stdout + done.stderr
    assert told["run_count"] == 2
    assert told["error_count"] == 0
    assert [run["trace_error"] for run in told["runs"]] == [None, None]
    reading = [HUD, "jobs", told["job_id"], "--json"]
    listed = subprocess.run(reading, capture_output=True, timeout=60, check=True)
    assert {uuid.UUID(trace["id"]) for trace in json.loads(listed.stdout)} == {
        uuid.UUID(run["trace_id"]) for run in told["runs"]
    }
