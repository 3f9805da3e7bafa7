"""What an evaluation found, for programs: the keys of the SDK's ``hud eval --json``, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from hud_orchestrator.cli.evaluate.contest import Measured
from hud_orchestrator.records import Rollout
from hud_orchestrator.rules.scores import Scores, difference
from hud_orchestrator.rules.statistics import LEVEL, Estimate

METHOD = f"t with standard errors clustered by task, {LEVEL:.0%}"


def document(
    measured: Sequence[Measured], found: Sequence[Scores], *, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything there is to say, with *facts* about what was asked."""
    rollouts = [rollout for one in measured for rollout in one.rollouts]
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    return {
        **facts,
        "run_count": len(rollouts),
        "mean_reward": fmean(rewards) if rewards else None,
        "error_count": len(rollouts) - len(rewards),
        "elapsed_seconds": round(sum(one.seconds for one in measured), 3),
        "interval": METHOD,
        "candidates": [
            _candidate(one, scored, found[0]) for one, scored in zip(measured, found, strict=True)
        ],
        "runs": [_run(one, rollout) for one in measured for rollout in one.rollouts],
    }


def _candidate(one: Measured, scored: Scores, first: Scores) -> dict[str, Any]:
    return {
        "model": one.candidate.slug,
        "checkpoint": one.candidate.checkpoint,
        "job_id": one.job_id,
        "reports": dict(one.reports),
        "run_count": scored.attempts,
        "error_count": scored.attempts - scored.graded,
        "elapsed_seconds": round(one.seconds, 3),
        "reward": _estimate(scored.reward),
        "difference_to_first": None if scored is first else _estimate(difference(scored, first)),
        "pass_at": {str(k): rate for k, rate in scored.pass_at.items()},
        "outcomes": {str(outcome): count for outcome, count in scored.outcomes.items()},
        "failures": {
            str(outcome): {"count": count, "last": detail}
            for outcome, (count, detail) in scored.failures.items()
        },
        "subscores": {name: _estimate(one) for name, one in scored.subscores.items()},
        "columns": {
            column: {value: _estimate(one) for value, one in values.items()}
            for column, values in scored.columns.items()
        },
        "tasks": {slug: list(rewards) for slug, rewards in scored.tasks.items()},
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def _run(one: Measured, rollout: Rollout) -> dict[str, Any]:
    task, failed = rollout.ticket.task, rollout.reward is None
    return {
        "task_id": task.id,
        "slug": task.slug,
        "reward": rollout.reward,
        "is_error": failed,
        "trace_error": rollout.detail if failed else None,
        "trace_id": rollout.trace_id,
        "model": one.candidate.slug,
        "checkpoint": one.candidate.checkpoint,
        "attempt": rollout.ticket.member,
        "outcome": str(rollout.outcome),
        "detail": rollout.detail,
        "answer": rollout.answer,
        "grade": rollout.grade,
        "columns": dict(task.columns),
        "seconds": round(rollout.seconds, 3),
    }
