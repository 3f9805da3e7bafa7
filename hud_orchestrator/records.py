"""The frozen values that travel between stages, and the few words they are made of.

``group`` is a position in the run's endless, seeded stream of tasks: it names a group for ever,
also across restarts. A policy ``version`` is the number of the step that published it; version 0 is
the policy that the run began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

CallId = NewType("CallId", str)
"""Names one training call. Only the ledger hands one out, after its row is on disk."""


class Outcome(StrEnum):
    """How an attempt ended. Exactly one per ticket."""

    FINISHED = "finished"
    """The agent was done and the environment graded."""
    MAX_TURNS = "max_turns"
    """The agent had its last turn; the environment graded what it had."""
    CUT_SHORT = "cut_short"
    """The deadline stopped the agent; the environment graded what it had done."""
    UNGRADED = "ungraded"
    """No grade came before the deadline."""
    ENVIRONMENT_FAILED = "environment_failed"
    """The environment did not start, crashed, or broke its protocol."""
    GATEWAY_FAILED = "gateway_failed"
    """The gateway was unreachable or busy for too long."""
    REFUSED = "refused"
    """The gateway refused the request, for example a prompt longer than the context."""

    @property
    def graded(self) -> bool:
        """Whether there is a reward."""
        return self in (Outcome.FINISHED, Outcome.MAX_TURNS, Outcome.CUT_SHORT)

    @property
    def infrastructure(self) -> bool:
        """Whether attempting again could help."""
        return self in (Outcome.ENVIRONMENT_FAILED, Outcome.GATEWAY_FAILED)


class Ending(StrEnum):
    """How a group ended. Exactly one per group."""

    TRAINED = "trained"
    """A step took its gradient."""
    NO_SPREAD = "no_spread"
    """Every member had the same reward: no gradient."""
    NO_GRADIENT = "no_gradient"
    """The loss gave every token of the step a gradient of zero."""
    FAILED = "failed"
    """A member has no grade."""
    PARTIAL = "partial"
    """A member was cut short, and the run file drops such groups."""
    NO_TOKENS = "no_tokens"
    """Fewer than two members have sampled tokens to train on."""
    STALE = "stale"
    """Its policy was too old when the batch was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to attempt: a template of an environment, with arguments."""

    env: str
    id: str
    args: Mapping[str, Any]
    slug: str
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The right to attempt a task once."""

    group: int
    member: int
    task: Task
    purpose: str = "train"
    """``train``, or ``eval``; part of the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One model turn."""

    prompt_token_ids: tuple[int, ...]
    output_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each output token under the policy that sampled it, in nats. Shape [T]."""
    version: int
    """The policy version it was sampled from."""


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

    @property
    def num_tokens(self) -> int:
        """Tokens sampled, over all turns."""
        return sum(len(sample.output_token_ids) for sample in self.samples)

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy that sampled a turn of it, ``None`` without turns."""
        return min((sample.version for sample in self.samples), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All attempts at one task, in member order."""

    number: int
    rollouts: tuple[Rollout, ...]

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy that sampled any of it."""
        versions = [version for r in self.rollouts if (version := r.oldest_version) is not None]
        return min(versions, default=None)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step trains on, in group order. Empty when no group had a gradient."""

    step: int
    groups: tuple[TrainableGroup, ...]
    dropped: Mapping[Ending, int] = field(default_factory=dict)
    """Groups that were tried for this step and carry nothing to train on."""
    rewards: tuple[float, ...] = ()
    """Rewards of every graded rollout tried for this step, dropped groups included."""
    permits: int = 0
    """Permits that come back when the step is over: one for each place it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the gateway serves."""

    version: int
    checkpoint: str | None
    """The head's id, ``None`` before the first step of a fresh fork."""


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
