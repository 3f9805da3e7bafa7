"""What is said about a job and its traces, in the words of HUD's routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from hud_orchestrator.records import Outcome, Rollout, Ticket, Treatment
from hud_orchestrator.reporting.spans import uploads
from hud_orchestrator.rules.grouping import group_id

_COMPLETED = {Outcome.FINISHED: "done", Outcome.LENGTH: "length", Outcome.MAX_TURNS: "max_steps"}
_TIMED_OUT = frozenset({Outcome.CUT_SHORT, Outcome.UNGRADED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One request."""

    path: str
    body: Mapping[str, Any]
    telemetry: bool = False
    """Whether it goes to the address for telemetry."""

    def content(self) -> bytes:
        """The body as JSON, without what is ``None``."""
        body = {key: value for key, value in self.body.items() if value is not None}
        # Somebody's grade may have a number that JSON does not know, or something that is no JSON at all.
        return to_json(body, inf_nan_mode="null", fallback=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The run, as it is reported."""

    id: str
    """32 hexadecimal digits, the same after a restart."""
    name: str
    group_size: int
    model: str
    taskset_id: str | None = None

    def entered(self) -> Letter:
        """The run begins, or goes on."""
        body = {"name": self.name, "group": self.group_size, "taskset_id": self.taskset_id}
        return Letter(path=f"/v2/trace/job/{self.id}/enter", body=body)

    def began(self, ticket: Ticket, trace_id: str, *, version: int) -> Letter:
        """An attempt begins, while *version* of the policy is the newest."""
        return Letter(
            path=f"/v2/trace/{trace_id}/enter",
            body={
                "job_id": self.id,
                "group_id": group_id(self.id, ticket, version=version),
                "task_slug": ticket.task.slug,
                "model": self.model,
            },
        )


def ended(rollout: Rollout, *, treatments: Mapping[Outcome, Treatment], version: int) -> Letter:
    """An attempt has ended, that began while *version* of the policy was the newest."""
    status = _status(rollout.outcome)
    return Letter(
        path=f"/v2/trace/{rollout.trace_id}/exit",
        body={
            "status": status,
            # HUD's word for no grade; who reads it looks at the evaluation.
            "reward": 0.0 if rollout.reward is None else rollout.reward,
            "error": _error(rollout) if status == "error" else None,
            "evaluation_result": None if rollout.grade is None else _without_info(rollout.grade),
            "stop_reason": "timeout" if rollout.outcome in _TIMED_OUT else _COMPLETED.get(rollout.outcome),
            "metadata": _metadata(rollout, treatments.get(rollout.outcome), version),
        },
    )


def told(rollout: Rollout, *, tokens: bool) -> Iterator[Letter]:
    """What happened in an attempt, in as few uploads as their limits allow."""
    for spans in uploads(rollout, tokens=tokens):
        yield Letter(
            path=f"/trace/{rollout.trace_id}/telemetry-upload", body={"telemetry": spans}, telemetry=True
        )


def _status(outcome: Outcome) -> str:
    if outcome is Outcome.CANCELLED:
        return "cancelled"
    return "completed" if outcome in _COMPLETED else "error"


def _error(rollout: Rollout) -> str:
    errors = [step.error for step in rollout.steps if step.error]
    return rollout.detail or (errors[-1] if errors else rollout.outcome.value)


def _metadata(rollout: Rollout, treatment: Treatment | None, version: int) -> dict[str, Any]:
    versions = [sample.version for sample in rollout.samples]
    return {
        "outcome": rollout.outcome,
        "treatment": treatment,
        "phase": rollout.phase,
        "seconds": {phase: round(seconds, 4) for phase, seconds in rollout.phases.items()},
        "attempts": rollout.attempts,
        "purpose": rollout.ticket.purpose,
        "group": rollout.ticket.group,
        "member": rollout.ticket.member,
        "after_step": version,
        "version_min": min(versions, default=None),
        "version_max": max(versions, default=None),
        "tokens": rollout.num_tokens,
    }


def _without_info(grade: Mapping[str, Any]) -> dict[str, Any]:
    """*grade* without the ``info`` of its subscores."""
    subscores = grade.get("subscores")
    return {**grade, "subscores": _bare(subscores)} if isinstance(subscores, list) else dict(grade)


def _bare(subscores: list[Any]) -> list[Any]:
    return [
        {
            key: _bare(value) if key == "children" and isinstance(value, list) else value
            for key, value in one.items()
            if key != "info"
        }
        if isinstance(one, Mapping)
        else one
        for one in subscores
    ]
