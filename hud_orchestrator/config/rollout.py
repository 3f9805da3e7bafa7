"""The sections about attempting tasks: the agent's side and the clock's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import Section


class AgentSection(Section):
    """The policy's side of an episode."""

    system_prompt: str | None = None
    """Put before every conversation."""

    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature of training rollouts. 1 samples the policy itself; the losses assume it."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: keep the most likely tokens up to this probability mass."""

    max_tokens: int = Field(default=256, ge=1)
    """Most tokens sampled in one turn."""

    stop: list[str] = Field(default_factory=list, max_length=4)
    """Strings that end a turn."""

    max_turns: int = Field(default=1, ge=1)
    """Most model turns in one episode; an environment that asks for more grades what it has."""


class PartialSection(Section):
    """How a rollout trains whose agent was cut short by the deadline and graded on what it did."""

    policy: Literal["keep", "scale", "mask", "drop_group"] = "keep"
    """``keep`` its reward; ``scale`` it by ``factor``; ``mask``: leave the rollout out of its group,
    so that it neither trains nor moves the baseline; ``drop_group``: train on none of its group."""

    factor: float = Field(default=0.5, ge=0, le=1)
    """What ``scale`` multiplies the reward by."""


class RolloutSection(Section):
    """How tasks are attempted."""

    group_size: int = Field(default=8, ge=1)
    """Attempts at one task, whose rewards are compared with one another."""

    groups_per_step: int = Field(default=8, ge=1)
    """Groups in one training batch."""

    concurrency: int = Field(default=64, ge=1)
    """Rollouts in flight at most, and so environment processes at most."""

    deadline_s: float = Field(default=600, gt=0)
    """Wall-clock seconds from ticket to grade, for one rollout."""

    grading_reserve_s: float = Field(default=60, gt=0)
    """Seconds at the end of ``deadline_s`` kept for the grader. An agent still acting when they
    begin is cut short and graded on what it left behind."""

    partial: PartialSection = PartialSection()

    infrastructure_retries: int = Field(default=2, ge=0)
    """Times that a rollout is attempted again, inside its deadline, after its environment or the
    gateway failed. A failure that is left is an outcome, never a reward, and drops the group."""
