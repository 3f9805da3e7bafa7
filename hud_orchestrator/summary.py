"""How a run stands, as ``summary.json`` says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hud_orchestrator.config.run import RunFile
from hud_orchestrator.directory import RunDirectory, write_atomically
from hud_orchestrator.records import Target
from hud_orchestrator.rewinding import best_of
from hud_orchestrator.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run, over all its sessions."""

    name: str
    service: str
    model: str
    """The gateway slug."""
    steps: int
    """Steps that are over."""
    steps_wanted: int
    seconds: float
    """Wall-clock, over all sessions that ended by themselves."""
    eval_first: float | None
    """Held-out reward of the first evaluation, ``None`` without one."""
    eval_last: float | None
    reward_first: float | None
    """Mean training reward of the first step."""
    reward_last: float | None
    rollouts: Mapping[str, int]
    """Training rollouts by outcome."""
    reports: Mapping[str, int]
    """Attempts that the service was told about, ``reported`` or ``dropped``; none when nobody is told."""
    head: str | None
    """The checkpoint that the slug serves."""
    best: Target | None
    """The step with the highest held-out reward, or training reward where none is held out."""
    exit_code: int
    error: str | None = None
    """What ended the run, when something did."""
    rollback: Target | None = None
    """Where the next ``run`` goes back to before anything else: somebody asked for it when this one ended."""


async def summarize(run: RunFile, store: Store, *, exit_code: int, error: str | None) -> Summary:
    """Read the summary off the store."""
    history, rollback = store.history, await store.rollbacks.asked()
    steps, evaluations = await history.steps(), await history.evaluations()
    made = [step.checkpoint for step in steps if step.checkpoint is not None]
    return Summary(
        name=run.run.name,
        service=run.service,
        model=await history.get("slug") or run.model.slug,
        steps=steps[-1].number if steps else 0,
        steps_wanted=run.run.steps,
        seconds=round(await history.seconds(), 3),
        eval_first=evaluations[0].reward if evaluations else None,
        eval_last=evaluations[-1].reward if evaluations else None,
        reward_first=steps[0].metrics.get("reward_mean") if steps else None,
        reward_last=steps[-1].metrics.get("reward_mean") if steps else None,
        rollouts=dict(sorted((await store.trajectories.outcomes()).items())),
        reports=json.loads(await history.get("reports") or "{}"),
        head=made[-1] if made else await history.get("first_head") or None,
        best=await best_of(history),
        exit_code=exit_code,
        error=error,
        rollback=rollback.target if rollback else None,
    )


def write_summary(directory: RunDirectory, summary: Summary) -> None:
    """Replace ``summary.json``."""
    write_atomically(directory.summary, json.dumps(asdict(summary), indent=2) + "\n")
