"""The frozen values that travel between stages, and the few words they are made of.

``group`` is a position in the run's endless, seeded stream of tasks: it names a group for ever,
also across restarts. A policy ``version`` is the number of the step that published it; version 0 is
the policy that the run began with. A rollback takes versions back, and makes them anew: what the ones
before it sampled is of the version ``ABANDONED`` or in no batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NewType

import msgspec

from hud_orchestrator.steps import EpisodeStep

Action = Literal["warn", "pause", "lower_learning_rate", "roll_back"]
"""What a guard does."""

CallId = NewType("CallId", str)
"""Names one training call. Only the ledger hands one out, after its row is on disk."""


class Outcome(StrEnum):
    """How an attempt ended. Exactly one per ticket."""

    FINISHED = "finished"
    """The agent was done and the environment graded."""
    LENGTH = "length"
    """The agent's last turn ended at ``max_tokens`` or at the context's end; the environment graded it."""
    MAX_TURNS = "max_turns"
    """The agent had its last turn; the environment graded what it had."""
    CUT_SHORT = "cut_short"
    """The deadline stopped the agent; the environment graded what it had done."""
    UNGRADED = "ungraded"
    """The deadline stopped the agent, and no grade came in the time kept for it."""
    AGENT_ERROR = "agent_error"
    """The agent's own code raised; the environment may have graded what it had done."""
    TOOL_FAILURE = "tool_failure"
    """The environment's tools went away; it may have graded what was done."""
    NOT_STARTED = "environment_not_started"
    """The environment did not start, or refused the task."""
    LOST = "environment_lost"
    """The environment crashed, broke its protocol or went away."""
    GRADER_FAILED = "grader_failed"
    """The grader raised, reported an error, or gave something that is no grade."""
    GATEWAY_FAILED = "gateway_failed"
    """The gateway was unreachable or busy for too long."""
    GATEWAY_REFUSED = "gateway_refused"
    """The gateway refused the request, for example a prompt longer than the context."""
    NOT_BEGUN = "not_begun"
    """Its group's time was over before it could begin."""
    CANCELLED = "cancelled"
    """The run was stopped meanwhile. Reported, and never kept."""

    @property
    def clean(self) -> bool:
        """Whether the agent ended by itself, so that its reward is about nothing but what it did."""
        return self in (Outcome.FINISHED, Outcome.LENGTH, Outcome.MAX_TURNS)


class Phase(StrEnum):
    """The parts of an attempt, in order."""

    START = "start"
    """Getting an environment, and its first prompt."""
    ACT = "act"
    """The agent's turns."""
    GRADE = "grade"
    """The environment's judgement."""
    TEARDOWN = "teardown"
    """Giving the environment back."""


class Treatment(StrEnum):
    """What becomes of a member of a group, by how its attempt ended."""

    KEEP = "keep"
    """It trains with its reward."""
    SCALE = "scale"
    """It trains with its reward times ``rollout.scale_by``."""
    ZERO_ADVANTAGE = "zero_advantage"
    """It stays in its group with the mean reward of the others, so that it has no advantage of its own
    and leaves theirs as it is. (Their deviation it does not leave: a loss that divides by it counts all.)"""
    DROP_MEMBER = "drop_member"
    """It is left out: it neither trains nor counts in the baseline, and its group is smaller."""
    DROP_GROUP = "drop_group"
    """None of its group trains."""
    RETRY = "retry"
    """It is attempted again, and drops its group when that does not help."""


class StepState(StrEnum):
    """What is known of one attempt at a step."""

    PLANNED = "planned"
    """In hand: its batch is on disk, and calls may have left."""
    APPLIED = "applied"
    """The tree shows its checkpoint."""
    SKIPPED = "skipped"
    """Over without a checkpoint: nothing to train on, or lost and dropped."""
    ABANDONED = "abandoned"
    """It did not happen, or nothing proves that it did; the step is planned anew."""
    ROLLED_BACK = "rolled_back"
    """It was over, and the run has gone back to a step before it."""


class Ending(StrEnum):
    """How a group ended. Exactly one per group."""

    TRAINED = "trained"
    """A step took its gradient."""
    NO_SPREAD = "no_spread"
    """Every member had the same reward: no gradient."""
    NO_GRADIENT = "no_gradient"
    """The loss gave every token of the step a gradient of zero."""
    FAILED = "failed"
    """A member has no grade, and the run file drops such groups."""
    PARTIAL = "partial"
    """A member was graded and ended in a way for which the run file drops the group."""
    NO_TOKENS = "no_tokens"
    """Fewer than two members have something to train on: sampled tokens, or a trace elsewhere that has
    them and the reward to train with."""
    STALE = "stale"
    """Its policy was too old when the batch was cut."""
    LOST = "lost"
    """The answer to its step was lost, and the run file drops such steps."""
    NOT_FINITE = "not_finite"
    """The loss or the gradient of its step was not finite, and a guard watches for that."""
    ROLLED_BACK = "rolled_back"
    """The run went back from the policy that sampled it."""


INITIAL = "initial:"
"""What the name of a fork's weights before its first step begins with, where a gateway names them; the
model's id follows."""

ABANDONED = -1
"""The version of every policy that the run has gone back from: older than any that it trains on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to attempt: a template of an environment, with arguments."""

    env: str
    id: str
    args: Mapping[str, Any]
    slug: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Facets by which tasks are chosen and results are shown."""
    agent_timeout_s: float | None = None
    """Seconds for the agent, by the row's ``agent_config.timeout_seconds``."""
    runtime_config: Mapping[str, Any] | None = None
    """What the row asks of the machine that its environment runs on."""
    verifier: Task | None = None
    """The task whose grade decides, in place of this one's own."""
    taskset_id: str | None = None
    """Of the platform's taskset that it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The right to attempt a task once."""

    group: int
    member: int
    task: Task
    purpose: str = "train"
    """``train``, or ``eval``; part of the seed."""
    members: int = 1
    """How many its group has."""
    trace_id: str | None = None
    """The trace of its attempt, where somebody else has named it. Left out: one of its own per attempt."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model turn. Like a step of an episode, it is written down by what does it quickest."""

    prompt_token_ids: tuple[int, ...]
    output_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each output token under the policy that sampled it, in nats. Shape [T]."""
    version: int
    """The policy version it was sampled from, or the one before when nobody knew of that yet."""
    unpublished: str | None = None
    """The checkpoint that it was sampled from, when nobody knew of that yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What became of a ticket."""

    ticket: Ticket
    trace_id: str
    outcome: Outcome
    samples: tuple[Sample, ...] = ()
    reward: float | None = None
    grade: Mapping[str, Any] | None = None
    """The environment's grade frame, whole."""
    answer: str | None = None
    detail: str | None = None
    """What went wrong, in one line."""
    attempts: int = 1
    seconds: float = 0.0
    phase: Phase = Phase.TEARDOWN
    """The phase that it ended in: the last one, unless something went wrong."""
    phases: Mapping[Phase, float] = field(default_factory=dict)
    """Seconds spent in each phase, over all attempts."""
    began_at: float = 0.0
    """When its last attempt began, in seconds since 1970."""
    steps: tuple[EpisodeStep, ...] = ()
    """What happened in its last attempt, in order."""
    remote: bool = False
    """Whether it was sampled elsewhere: the service knows its tokens, and its reward, by ``trace_id``."""
    untold_version: int | None = None
    """The oldest policy that can have sampled what no tokens are told of: turns without, or all of a
    remote rollout. ``None`` when there is nothing of that kind."""

    @property
    def num_tokens(self) -> int:
        """Tokens sampled here, over all turns."""
        return sum([len(sample.output_token_ids) for sample in self.samples])

    @property
    def has_tokens(self) -> bool:
        """Whether there are tokens to train on, here or at the service."""
        return self.remote or self.num_tokens > 0

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy that sampled a turn of it, ``None`` without turns."""
        told = min((sample.version for sample in self.samples), default=None)
        return min((v for v in (told, self.untold_version) if v is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Attempts at one task, in member order: all of them, or those that had ended before a restart."""

    number: int
    rollouts: tuple[Rollout, ...]

    @property
    def whole(self) -> bool:
        """Whether every attempt has ended."""
        return len(self.rollouts) == self.rollouts[0].ticket.members

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy that sampled any of it that can train, ``None`` when nothing can."""
        versions = [one.oldest_version for one in self.rollouts if one.has_tokens]
        return min((version for version in versions if version is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A group that was tried for a step and ended untrained, before a restart cut that step off."""

    number: int
    ending: Ending
    outcomes: tuple[Outcome, ...]
    rewards: tuple[float, ...]
    """Of its members that were graded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a group that is over says about its task."""

    slug: str
    rewards: tuple[float, ...]
    """Of its members that were graded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One trajectory as it will be trained on: its rollout, and the reward by the partial-grade policy."""

    rollout: Rollout
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainableGroup:
    """A group with a gradient. It may have fewer members than were attempted."""

    number: int
    members: tuple[Member, ...]
    oldest_version: int
    """The oldest policy that sampled any of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step trains on, in group order. Empty when no group had a gradient."""

    step: int
    groups: tuple[TrainableGroup, ...]
    dropped: Mapping[Ending, int] = field(default_factory=dict)
    """Groups that were tried for this step and carry nothing to train on."""
    rewards: tuple[float, ...] = ()
    """Rewards of every graded rollout tried for this step, dropped groups included."""
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    """How every rollout ended that was tried for this step."""
    holders: tuple[int, ...] = ()
    """Groups whose permits come back when the step is over: one for each place it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the gateway serves."""

    version: int
    checkpoint: str | None
    """The head's id, ``None`` before the first step of a fresh fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a run goes back to."""

    step: int
    """The last step that stays; 0: none does."""
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that has been taken, or skipped because there was nothing to train on."""

    number: int
    batch: Batch
    policy: Policy
    """What it published: the head before it, when it was skipped."""
    parent: str | None
    """The head before it."""
    learning_rate: float
    skipped: bool
    metrics: Mapping[str, float]
    seconds: float
