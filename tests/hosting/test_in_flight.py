"""Hosted rollouts in flight, beside what is kept of their traces."""

from __future__ import annotations

import uuid
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.local.hosting.rollouts import HostedRollouts
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.traces import Traces
from hud_orchestrator.wire import TraceEnter
from hud_orchestrator.wire_hosting import RolloutSubmit
from tests.hosting.conftest import ENVIRONMENTS
from tests.resilience.gateway import free_port


async def test_a_rollout_that_outlives_what_is_kept_of_its_trace_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(ENVIRONMENTS)
    sums = InProcess(tmp_path / "sums.py", teardown_s=1)
    traces, trace_id = Traces(kept_traces=1), uuid.uuid4().hex
    agent = {"type": "openai_compatible", "config": {"model": "m"}}
    asked = {"trace_id": trace_id, "env": "sums", "task": "slow", "agent": agent}
    # Nobody answers its agent, which asks for a minute.
    nowhere = f"http://127.0.0.1:{free_port()}"
    with anyio.fail_after(30):
        async with Transport(nowhere, SecretStr("a-key")) as gateway, anyio.create_task_group() as group:
            rollouts = HostedRollouts({"sums": sums}, traces=traces, gateway=gateway, seed=0, group=group)
            rollouts.submit(RolloutSubmit.model_validate(asked))
            traces.enter(uuid.uuid4().hex, TraceEnter())

            assert rollouts.cancel(trace_id)

    ended = traces.get(trace_id).ended
    assert ended is not None
    assert ended.status == "cancelled"
    with pytest.raises(Refused, match="is unknown"):
        rollouts.cancel(uuid.uuid4().hex)
