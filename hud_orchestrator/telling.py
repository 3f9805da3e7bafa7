"""Who is told of attempts: the service that they sample from, unless the user wants nobody told."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict

import anyio

from hud_orchestrator.assembly import treatments
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.reporting.letters import Job
from hud_orchestrator.reporting.reporter import Terms, reporting
from hud_orchestrator.reporting.witness import Nobody, Witness
from hud_orchestrator.settings import Settings
from hud_orchestrator.store.history import History

COUNTS_S = 5.0
"""Seconds to write the counts of reports down, whatever ended the run."""


@asynccontextmanager
async def witness(
    loaded: LoadedRun,
    addresses: Addresses,
    history: History,
    policy: PolicyCell,
    counts: Counter[str],
    taskset_id: str | None,
) -> AsyncGenerator[Witness, None]:
    """Who is told about the attempts of a run, for the length of the block.

    What was told is counted in *counts*, and added up in the store when the block ends.
    """
    run = loaded.run
    if not tells(run, addresses):
        yield Nobody()
        return
    identity = await history.get("job") or uuid.uuid4().hex
    await history.set("job", identity)
    counts.update(json.loads(await history.get("reports") or "{}"))
    job = Job(
        id=identity,
        name=run.run.name,
        group_size=run.rollout.group_size,
        model=await history.get("slug") or run.model.slug,
        taskset_id=taskset_id,
    )
    try:
        async with witness_of(job, run, addresses, policy, counts) as told:
            yield told
    finally:
        with anyio.move_on_after(COUNTS_S, shield=True):
            await history.set("reports", json.dumps(dict(counts)))


@asynccontextmanager
async def witness_of(
    job: Job, run: RunFile, addresses: Addresses, policy: PolicyCell, counts: Counter[str]
) -> AsyncGenerator[Witness, None]:
    """Tells the service about *job* and its attempts for the length of the block, counting in *counts*."""
    terms = Terms(
        api_url=addresses.api_url,
        telemetry_url=addresses.telemetry_url,
        api_key=addresses.api_key,
        spans=run.reporting.spans,
        queue=run.reporting.queue,
        flush_s=run.reporting.flush_s,
    )
    async with reporting(job, terms, policy=policy, treatments=treatments(run), counts=counts) as reporter:
        yield reporter


def tells(run: RunFile, addresses: Addresses) -> bool:
    """Whether the user wants the service told."""
    # The addresses are known already: those in the environment may be wrong, and are not asked for.
    return run.reporting.enabled and Settings.load(**asdict(addresses)).telemetry_enabled
