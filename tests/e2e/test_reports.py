"""A run tells its service what it did, and keeps the same in its store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.e2e.conftest import Runner

TASKS = """
from hud_orchestrator import Environment

env = Environment("shop")


@env.tool()
async def look(where: str) -> str:
    return f"nothing on the {where}"


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    right = float((answer or "").strip() == str(a + b))
    short = float(len(answer or "") % 2)
    yield {
        "score": (right + short) / 2, "content": "as it is", "info": {"said": answer},
        "subscores": [
            {"name": "right", "value": right, "info": {"secret": 1}}, {"name": "even", "value": short}
        ],
    }
"""
ROWS = [
    {"name": f"add-{a}-{b}", "env": {"name": "shop"}, "task_id": "add", "args": {"a": a, "b": b}}
    for a in range(10, 50) for b in range(8)
]  # fmt: skip
AGENT = """
class Looks:
    async def act(self, episode, policy):
        turn = await policy.sample(episode.prompt)
        await episode.call_tool("look", {"where": "left"})
        return turn.text
"""


def test_the_service_and_the_store_know_what_happened_in_every_rollout(remote_run: Runner) -> None:
    taskset = f"sums-{uuid4().hex[:8]}"
    with _service(remote_run) as service:
        uploaded = service.post("/v2/tasks/upload", json={"taskset_name": taskset, "tasks": ROWS}).json()
    remote_run.write(
        TASKS, run={"steps": 2}, taskset={"train": taskset, "heldout": None}, agent={"use": "looks:Looks"},
        runtime={"placement": "local", "source": "tasks.py"},
    )  # fmt: skip
    (remote_run.directory / "looks.py").write_text(AGENT)

    done = remote_run.run()

    assert done.returncode == 0, done.stderr
    rows = remote_run.query("SELECT trace_id, grade, steps, reward FROM rollouts")
    reports = remote_run.summary()["reports"]
    # Those under way when the last batch was cut are told about too.
    assert set(reports) == {"reported"}
    assert reports["reported"] >= len(rows) > 0
    assert remote_run.metrics()[-1]["reports"].keys() <= {"reported"}
    with _service(remote_run) as service:
        job = next(
            one for one in service.get("/v2/jobs", params={"limit": 1000}).json()["items"]
            if one["id"] == remote_run.query("SELECT value FROM meta WHERE key = 'job'")[0][0]
        )  # fmt: skip
        assert (job["name"], job["group"], job["taskset_id"]) == ("it", 4, uploaded["taskset_id"])
        listed = service.get(f"/v2/jobs/{job['id']}/traces", params={"limit": 10_000}).json()["items"]
        assert len(listed) == reports["reported"]
        assert {trace for trace, *_ in rows} <= {trace["id"] for trace in listed}
        for trace_id, grade, steps, reward in rows:
            told = service.get(f"/v2/trace/{trace_id}").json()
            events = service.get(f"/v2/trace/{trace_id}/events").json()["events"]
            _same(told, events, json.loads(grade), json.loads(steps), reward)


def _same(
    told: dict[str, Any], events: list[Any], grade: dict[str, Any], steps: list[Any], reward: float
) -> None:
    """What the service was told is what the store has, but for the info of subscores."""
    assert (told["status"], told["stop_reason"], told["reward"]) == ("completed", "done", reward)
    assert told["metadata"]["outcome"] == "finished"
    assert grade["subscores"][0].pop("info") == {"secret": 1}
    assert told["evaluation_result"] == grade
    assert [step["source"] for step in steps] == ["user", "agent", "tool", "task"]
    user, agent, tool, task = events
    assert user["messages"][0]["content"]["text"] == steps[0]["messages"][0]["content"]
    assert agent["text"] == steps[1]["content"] == grade["info"]["said"]
    assert tool["tool_name"] == steps[2]["call"]["name"] == "look"
    assert tool["result_text"] == "nothing on the left"
    assert task["result"]["score"] == reward


def _service(run: Runner) -> httpx.Client:
    headers = {"Authorization": f"Bearer {run.environ['HUD_API_KEY']}"}
    return httpx.Client(base_url=run.environ["HUD_API_URL"], headers=headers)


def test_a_service_that_takes_no_reports_changes_nothing_but_the_counts(
    remote_run: Runner, tmp_path: Path
) -> None:
    remote_run.write(run={"steps": 1}, taskset={"heldout": None}, reporting={"flush_s": 0.1})

    # The traces are told to the service's own address, and their steps to one where nobody listens.
    done = remote_run.run(HUD_TELEMETRY_URL="http://127.0.0.1:9/v3/api")

    assert done.returncode == 0, done.stderr
    assert remote_run.summary()["steps"] == 1
    assert remote_run.summary()["reports"]["dropped"] > 0
    assert len(remote_run.events("report.dropped")) == 1
    assert "dropped" in done.stdout


def test_nothing_is_told_when_the_user_wants_it_so(remote_run: Runner) -> None:
    remote_run.write(run={"steps": 1}, taskset={"heldout": None})

    done = remote_run.run(HUD_TELEMETRY_ENABLED="false")

    assert done.returncode == 0, done.stderr
    assert remote_run.summary()["reports"] == {}
    with _service(remote_run) as service:
        (trace_id,) = remote_run.query("SELECT trace_id FROM rollouts LIMIT 1")[0]
        # The gateway knows what it sampled, and nothing else is known.
        assert service.get(f"/v2/trace/{trace_id}").json()["status"] == "running"
