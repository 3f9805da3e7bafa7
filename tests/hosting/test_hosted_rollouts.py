"""Rollouts that the service runs whole, by the routes that HUD's SDK uses."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.hosting.conftest import Platform


async def test_a_submitted_rollout_is_sampled_graded_and_trained_by_its_trace_id(platform: Platform) -> None:
    base = (await platform.http.get("/v2/models/resolve", params={"model": "tiny"})).json()["id"]
    fork = {"source_model_id": base, "name": f"hosted-{uuid.uuid4().hex[:8]}"}
    model = (await platform.http.post("/v2/models/fork", json=fork)).json()
    platform.slug = model["model_name"]
    job, group = str(uuid.uuid4()), uuid.uuid4().hex

    traces = [await platform.submit(job_id=job, group_id=group, slug="a-sum") for _ in range(3)]
    ended = [await platform.ended(trace) for trace in traces]
    train = f"/v1/models/{model['id']}/train/forward"
    forward = (await platform.http.post(train, json={"inputs": traces})).json()

    for trace in ended:
        assert (trace["status"], trace["error"], trace["num_turns"]) == ("completed", None, 1)
        assert trace["evaluation_result"] == {"score": trace["reward"], "info": {"sum": 15}}
        assert (trace["task_slug"], trace["job_id"]) == ("a-sum", uuid.UUID(job).hex)
    assert [datum["reward"] for datum in forward["data"]] == [trace["reward"] for trace in ended]
    assert all(sum(datum["mask"]) > 0 for datum in forward["data"])


async def test_a_submission_that_is_repeated_runs_once(platform: Platform) -> None:
    trace = await platform.submit()
    body = platform.body(trace)
    await platform.http.post("/v2/rollouts/submit", json=body)
    first = await platform.ended(trace)

    again = await platform.http.post("/v2/rollouts/submit", json=body)

    assert again.status_code == 200
    assert await platform.trace(trace) == first
    assert first["num_turns"] == 1


@pytest.mark.parametrize(
    ("task", "outcome", "said"),
    [
        ("cruel", "grader_failed", "no grades today"),
        ("gone", "environment_lost", "ended or closed its connection"),
        ("nothing", "environment_not_started", "nothing"),
    ],
)
async def test_what_fails_says_why_and_has_no_reward(
    platform: Platform, task: str, outcome: str, said: str
) -> None:
    trace = await platform.ended(await platform.submit(task))

    assert trace["status"] == "error"
    assert trace["metadata"]["outcome"] == outcome
    assert said in trace["error"]
    assert (trace["reward"], trace["evaluation_result"]) == (None, None)


async def test_a_cancelled_rollout_is_over_and_its_trace_says_so(platform: Platform) -> None:
    trace = await platform.submit("slow")
    cancel = {"trace_id": trace}

    cancelled = (await platform.http.post("/v2/rollouts/cancel", json=cancel)).json()
    ended = await platform.ended(trace)

    assert cancelled == {"cancelled": True}
    assert (ended["status"], ended["error"], ended["reward"]) == ("cancelled", None, None)
    assert (await platform.http.post("/v2/rollouts/cancel", json=cancel)).json() == {"cancelled": False}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"env": "nowhere"}, 404, "there is no environment 'nowhere' here; there are: judge, sums"),
        ({"trace_id": "mine"}, 422, "trace_id: 'mine' is no UUID"),
        ({"agent": {"type": "claude", "config": {"model": "tiny"}}}, 422, "agent.type"),
        ({"agent": {"type": "openai_compatible", "config": {"model": "nobody"}}}, 404, "nobody"),
        ({"verifier": {"env": "nowhere", "id": "judge"}}, 404, "there is no environment 'nowhere' here"),
    ],
)
async def test_what_cannot_run_here_is_refused_in_one_line(
    platform: Platform, change: dict[str, Any], status: int, said: str
) -> None:
    reply = await platform.http.post("/v2/rollouts/submit", json=platform.body(str(uuid.uuid4())) | change)

    assert reply.status_code == status
    assert said in reply.json()["detail"]
