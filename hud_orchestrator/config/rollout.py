"""The sections about attempting tasks: the agent's side and the clock's."""

from __future__ import annotations

from pydantic import Field

from hud_orchestrator.config.outcomes import OutcomesSection
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

    start_s: float | None = Field(default=None, gt=0)
    """Seconds for an environment to start and give its first prompt. Left out: until the agent's time is
    over; with a limit, one that hangs at its start can be tried again earlier."""

    group_s: float | None = Field(default=None, gt=0)
    """Seconds for a whole group, from its first rollout's begin, retries included, pauses of ``resilience``
    aside: then what is in flight is cut short and graded, and what has not begun does not begin. Left out:
    ``deadline_s`` times (2 + ``infrastructure_retries``)."""

    outcomes: OutcomesSection = OutcomesSection()

    scale_by: float = Field(default=0.5, ge=0, le=1)
    """What the treatment ``scale`` multiplies a reward by."""

    infrastructure_retries: int = Field(default=2, ge=0)
    """Times that a rollout is attempted again at most, where ``outcomes`` says ``retry``."""

    @property
    def group_limit_s(self) -> float:
        """Seconds for a group: one deadline until its last member has a slot, one for each attempt."""
        if self.group_s is not None:
            return self.group_s
        return self.deadline_s * (2 + self.infrastructure_retries)
