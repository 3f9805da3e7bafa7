"""The section about what becomes of a rollout, by how it ended."""

from __future__ import annotations

from typing import Literal

from hud_orchestrator.config.section import Section

Graded = Literal["keep", "scale", "zero_advantage", "drop_member", "drop_group"]
Ungraded = Literal["zero_advantage", "drop_member", "drop_group"]
Failed = Literal["retry", "zero_advantage", "drop_member", "drop_group"]
Half = Literal["retry", "keep", "scale", "zero_advantage", "drop_member", "drop_group"]


class OutcomesSection(Section):
    """What becomes of a rollout, by how it ended.

    ``keep`` its reward; ``scale`` it by ``scale_by``; ``zero_advantage``: it stays in its group with the
    mean reward of the others, so that it neither has an advantage nor changes theirs; ``drop_member``:
    leave it out, so that it neither trains nor counts in the baseline; ``drop_group``: train on none of
    its group; ``retry``: attempt it again, at most ``infrastructure_retries`` times and inside
    ``group_s``, and drop its group if that does not help.
    """

    length: Graded = "keep"
    """The last turn ended at ``agent.max_tokens`` or at the end of the context."""

    max_turns: Graded = "keep"
    """The agent used up ``agent.max_turns``."""

    cut_short: Graded = "keep"
    """The deadline stopped the agent, and what it had done was graded."""

    ungraded: Ungraded = "drop_group"
    """The deadline stopped the agent, and no grade came in the time kept for it."""

    agent_error: Graded = "drop_group"
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

    not_begun: Ungraded = "drop_member"
    """The time of its group was over before it could begin."""
