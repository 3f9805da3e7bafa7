"""Rollouts on a platform that answers badly, over real HTTP: what they end as, and what is said about it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from hud_orchestrator.clients.hosted import HostedRollouts
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.hosted import HostedAttempter, HostedPolicy
from hud_orchestrator.ladder import Limits
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Outcome, Policy, Rollout, Ticket
from tests.builders import TASK

SUBMIT, TRACE, CANCEL = "/v2/rollouts/submit", "/v2/trace/{id}", "/v2/rollouts/cancel"


@dataclass
class FakePlatform:
    """Takes every rollout, and says of each what the test has given it."""

    state: dict[str, Any] = field(default_factory=lambda: {"status": "running"})
    silent: str | None = None
    """The route that answers 503, and wants to be left alone for longer than any rollout has."""
    url: str = ""
    submitted: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        route = request.match_info.route.resource
        assert route is not None
        if route.canonical == self.silent:
            return web.json_response({"detail": "away"}, status=503, headers={"Retry-After": "30"})
        if route.canonical == TRACE:
            return web.json_response(self.state)
        told = self.submitted if route.canonical == SUBMIT else self.cancelled
        told.append(uuid.UUID((await request.json())["trace_id"]).hex)
        return web.json_response({})


@pytest.fixture
async def platform() -> AsyncIterator[FakePlatform]:
    fake, app = FakePlatform(), web.Application()
    for method, path in (("POST", SUBMIT), ("GET", TRACE), ("POST", CANCEL)):
        app.router.add_route(method, path, fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


async def attempted(platform: FakePlatform) -> Rollout:
    """What becomes of an attempt with two seconds in all."""
    async with Transport(platform.url, SecretStr("a-key")) as api:
        attempts = HostedAttempter(
            HostedRollouts(api),
            HostedPolicy(model="m", sampling=Sampling(top_p=1, max_tokens=4, stop=(), seed=0), max_turns=1),
            PolicyCell(Policy(version=0, checkpoint=None)),
            limits=Limits(deadline_s=2, grading_reserve_s=0.5, infrastructure_retries=0),
            dispatch=Dispatch(concurrency=1),
            job_id=uuid.uuid4().hex,
            poll_s=0.05,
        )
        with anyio.fail_after(60):
            return await attempts.attempt(Ticket(group=0, member=0, task=TASK), temperature=1)


@pytest.mark.parametrize("route", [SUBMIT, TRACE])
async def test_a_deadline_that_comes_while_the_platform_does_not_answer_is_the_platforms_failure(
    platform: FakePlatform, route: str
) -> None:
    platform.silent = route

    rollout = await attempted(platform)

    assert (rollout.outcome, rollout.reward) == (Outcome.GATEWAY_FAILED, None)
    assert rollout.detail is not None
    assert "503: away" in rollout.detail
    assert platform.cancelled == [rollout.trace_id]


async def test_a_rollout_that_the_platform_still_runs_at_its_deadline_is_cancelled_ungraded(
    platform: FakePlatform,
) -> None:
    rollout = await attempted(platform)

    assert (rollout.outcome, rollout.detail) == (
        Outcome.UNGRADED,
        "the platform did not end it by its deadline",
    )
    assert platform.submitted == platform.cancelled == [rollout.trace_id]


@pytest.mark.parametrize(
    ("state", "outcome", "detail"),
    [
        ({"status": "completed", "reward": 1.0}, Outcome.FINISHED, None),
        ({"status": "error", "error": "it fell over"}, Outcome.LOST, "it fell over"),
        ({"status": "cancelled"}, Outcome.LOST, "the platform says no more than: status cancelled"),
        (
            {"status": "completed", "stop_reason": "done"},
            Outcome.GRADER_FAILED,
            "the platform says no more than: status completed, stop_reason done",
        ),
    ],
)
async def test_what_went_wrong_over_there_is_said_as_far_as_it_is_known(
    platform: FakePlatform, state: dict[str, Any], outcome: Outcome, detail: str | None
) -> None:
    platform.state = state

    rollout = await attempted(platform)

    assert (rollout.outcome, rollout.detail) == (outcome, detail)
    assert platform.cancelled == []
