"""What a service is told of attempts, and what they do not notice of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.records import Outcome, Policy, Rollout, Treatment
from hud_orchestrator.reporting.letters import Job, ended
from hud_orchestrator.reporting.reporter import Reporter, Terms, reporting
from hud_orchestrator.reporting.spans import SPANS_PER_UPLOAD, uploads
from tests.builders import rollout
from tests.reporting.conftest import desk

JOB = Job(id="ab" * 16, name="first", group_size=2, model="slug")


@asynccontextmanager
async def telling(url: str, **more: Any) -> AsyncIterator[tuple[Reporter, Counter[str]]]:
    given: dict[str, Any] = {"spans": "tokens", "queue": 100, "flush_s": 5, **more}
    terms = Terms(api_url=url, telemetry_url=f"{url}/v3/api", api_key=SecretStr("k" * 9), **given)
    counts: Counter[str] = Counter()
    policy = PolicyCell(Policy(version=7, checkpoint=None))
    treatments = {Outcome.FINISHED: Treatment.KEEP}
    with anyio.fail_after(20):
        async with reporting(JOB, terms, policy=policy, treatments=treatments, counts=counts) as reporter:
            yield reporter, counts


def tell(reporter: Reporter, one: Rollout) -> None:
    reporter.began(one.ticket, trace_id=one.trace_id)
    reporter.ended(one)


async def test_a_job_and_its_traces_are_told_whole_and_each_in_its_order() -> None:
    grade = {"score": 0.5, "zzz": 1, "subscores": [
        {"name": "a", "value": 0.5, "info": {"secret": 1}, "children": [{"name": "b", "info": 2}]}
    ]}  # fmt: skip
    async with desk() as there, telling(there.url) as (reporter, counts):
        for group in range(20):
            for member in range(2):
                tell(reporter, replace(rollout(group, member, reward=0.5), grade=grade))

    assert counts == {"reported": 40}
    assert there.came[0] == (f"/v2/trace/job/{JOB.id}/enter", {"name": "first", "group": 2})
    for group in range(20):
        told = [path for path, _ in there.came if f"/trace-{group}-1/" in path]
        trace = f"trace/trace-{group}-1"
        assert told == [f"/v2/{trace}/enter", f"/v2/{trace}/exit", f"/v3/api/{trace}/telemetry-upload"]
    entered = there.taken("/enter")[1:]
    assert len({body["group_id"] for body in entered}) == 20
    assert entered[0].items() >= {"job_id": JOB.id, "task_slug": "add-1", "model": "slug"}.items()
    exited = there.taken("/exit")[0]
    assert (exited["status"], exited["reward"], exited["stop_reason"]) == ("completed", 0.5, "done")
    assert exited["evaluation_result"] == {"score": 0.5, "zzz": 1, "subscores": [
        {"name": "a", "value": 0.5, "children": [{"name": "b"}]}
    ]}  # fmt: skip
    assert exited["metadata"].items() >= {
        "outcome": "finished", "treatment": "keep", "attempts": 1, "after_step": 7, "version_max": 0,
    }.items()  # fmt: skip
    spans = there.taken("/telemetry-upload")[0]["telemetry"]
    payloads = [span["attributes"]["hud.payload"] for span in spans]
    assert [payload["source"] for payload in payloads] == ["user", "agent", "tool", "task"]
    assert payloads[1]["sample"] == {
        "prompt_token_ids": [1, 2], "output_token_ids": [3, 3], "output_logprobs": [-0.5, -0.5]
    }  # fmt: skip
    assert payloads[1]["tool_calls"][0]["arguments"] == {"where": "left"}


@pytest.mark.parametrize(
    ("outcome", "status", "stop_reason"),
    [
        (Outcome.LENGTH, "completed", "length"),
        (Outcome.MAX_TURNS, "completed", "max_steps"),
        (Outcome.CUT_SHORT, "error", "timeout"),
        (Outcome.UNGRADED, "error", "timeout"),
        (Outcome.LOST, "error", None),
        (Outcome.CANCELLED, "cancelled", None),
    ],
)
def test_every_way_to_end_has_a_status_and_a_reason_of_the_sdk(
    outcome: Outcome, status: str, stop_reason: str | None
) -> None:
    body = ended(rollout(outcome=outcome, reward=None), treatments={}, version=0).body

    assert (body["status"], body["stop_reason"]) == (status, stop_reason)
    assert (body["error"] is not None) == (status == "error")
    assert (body["reward"], body["evaluation_result"]) == (0.0, None)


async def test_a_grade_with_a_number_that_json_does_not_know_is_told_without_it() -> None:
    async with desk() as there, telling(there.url) as (reporter, counts):
        tell(reporter, replace(rollout(), grade={"score": 1.0, "info": {"ratio": float("nan")}}))

    assert counts == {"reported": 1}
    assert there.taken("/exit")[0]["evaluation_result"] == {"score": 1.0, "info": {"ratio": None}}


async def test_nobody_listening_costs_attempts_nothing_and_is_said_once(nobody_there: str) -> None:
    with capture_logs() as logs:
        async with telling(nobody_there, flush_s=2) as (reporter, counts):
            for member in range(50):
                tell(reporter, rollout(0, member))
    assert counts == {"dropped": 50}
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert line["event"] == "report.dropped"
    assert "cannot connect" in line["reason"]


async def test_what_is_dropped_is_dropped_whole_so_that_no_trace_ends_that_never_began() -> None:
    async with desk() as there, telling(there.url, queue=1) as (reporter, counts):
        for member in range(3):  # nothing is delivered before the first await
            reporter.began(rollout(0, member).ticket, trace_id=f"trace-0-{member}")
        for member in range(3):
            reporter.ended(rollout(0, member))

    assert counts == {"reported": 1, "dropped": 2}
    assert [path for path, _ in there.came if path.endswith("/exit")] == ["/v2/trace/trace-0-0/exit"]


async def test_a_beginning_that_was_not_taken_is_told_again_before_the_end() -> None:
    async with desk() as there:
        there.answers = [200, 503, 503, 200]  # the job, and both tries of the beginning
        async with telling(there.url, spans="none") as (reporter, counts):
            tell(reporter, rollout())

    assert counts == {"reported": 1}
    assert [path.rsplit("/", 1)[-1] for path, _ in there.came] == ["enter", "enter", "enter", "enter", "exit"]


async def test_a_service_that_says_no_to_one_trace_is_still_told_about_the_next() -> None:
    async with desk() as there:
        there.answers = [200, 422, 422, 200]
        async with telling(there.url, spans="none") as (reporter, counts):
            tell(reporter, rollout(0, 0))
            tell(reporter, rollout(0, 0, reward=0.0))

    assert counts == {"dropped": 1, "reported": 1}


async def test_a_run_that_is_cut_off_waits_only_a_moment_for_a_service_that_hangs() -> None:
    async with desk() as there:
        there.answers = [0]
        with anyio.move_on_after(0.2):
            async with telling(there.url, flush_s=60) as (reporter, counts):
                tell(reporter, rollout())
                await anyio.sleep_forever()

    assert counts == {"dropped": 1}
    assert [path for path, _ in there.came] == [f"/v2/trace/job/{JOB.id}/enter"]


def test_the_spans_of_a_long_episode_go_in_several_uploads() -> None:
    one = rollout()
    long = replace(one, steps=one.steps * 60)
    step = msgspec.structs.replace(one.steps[0], messages=[{"role": "user", "content": "a" * 10**6}])
    big = replace(one, steps=(step,) * 5)

    assert [len(spans) for spans in uploads(long, tokens=False)] == [SPANS_PER_UPLOAD] * 2 + [40]
    # Text may take two bytes a character, and an upload has four mebibytes.
    assert [len(spans) for spans in uploads(big, tokens=False)] == [2, 2, 1]
