"""The sections about attempting tasks: the agent's side and the clock's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import PlainValue, Section


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
    """Most model turns in one episode, calls of tools included; an environment that asks for more grades
    what it has."""

    tool_choice: str = Field(default="auto", min_length=1)
    """``auto``: the model may call tools or answer. ``required``: every turn is a call, so an episode
    goes on to ``max_turns``. ``none``: tools are shown and not called. Anything else is the name of the
    tool that every turn calls."""

    parallel_tool_calls: bool = True
    """Whether one turn may call several tools, or one several times; otherwise its first call counts."""

    tool_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds after which a tool that does not answer is told to the model as an error. Left out: the
    rollout's deadline alone bounds it."""

    use: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """An agent of your own, ``package.module:Class``, found from the run file's directory too. Left out:
    our loop of turns and tools."""

    options: dict[str, PlainValue] = Field(default_factory=dict)
    """Keyword arguments for the class that ``use`` names."""


Graded = Literal["keep", "scale", "zero_advantage", "drop_member", "drop_group"]
Ungraded = Literal["zero_advantage", "drop_member", "drop_group"]
Failed = Literal["retry", "zero_advantage", "drop_member", "drop_group"]
Half = Literal["retry", "keep", "scale", "zero_advantage", "drop_member", "drop_group"]


class OutcomesSection(Section):
    """What becomes of a rollout, by how it ended.

    ``keep`` its reward; ``scale`` it by ``scale_by``; ``zero_advantage``: it stays in its group with the
    mean reward of the others, so that it neither has an advantage nor changes theirs; ``drop_member``:
    leave it out, so that it neither trains nor counts in the baseline; ``drop_group``: train on none of
    its group; ``retry``: attempt it again, at most ``infrastructure_retries`` times and inside its
    deadline, and drop its group if that does not help.
    """

    length: Graded = "keep"
    """The last turn ended at ``agent.max_tokens`` or at the end of the context."""

    max_turns: Graded = "keep"
    """The agent used up ``agent.max_turns``."""

    cut_short: Graded = "keep"
    """The deadline stopped the agent, and what it had done was graded."""

    ungraded: Ungraded = "drop_group"
    """The deadline stopped the agent, and no grade came in the time kept for it."""

    agent_error: Half = "drop_group"
    """The agent's own code raised. ``keep`` and ``scale`` train what was graded all the same."""

    tool_failure: Half = "retry"
    """The environment's tools went away."""

    environment_not_started: Failed = "retry"
    """The environment did not start, or refused the task."""

    environment_lost: Failed = "retry"
    """The environment crashed, broke its protocol or went away."""

    grader_failed: Failed = "drop_group"
    """The grader raised, or gave something that is no grade."""

    gateway_failed: Failed = "retry"
    """The gateway was unreachable or busy for too long."""

    gateway_refused: Ungraded = "drop_group"
    """The gateway refused the request, for example a prompt longer than the context."""


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

    outcomes: OutcomesSection = OutcomesSection()

    scale_by: float = Field(default=0.5, ge=0, le=1)
    """What the treatment ``scale`` multiplies a reward by."""

    infrastructure_retries: int = Field(default=2, ge=0)
    """Times that a rollout is attempted again at most, where ``outcomes`` says ``retry``."""
