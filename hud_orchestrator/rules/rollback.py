"""Where a run can go back to.

A run's history is a line: the steps that are over, each on top of the one before. Going back makes the
part after a step an abandoned branch, so what can be gone back to stands on the line, and has a checkpoint:
the weights that a fresh fork begins with have none, and no head can be set to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Target

SHORTEST_PREFIX = 4
"""Characters of a checkpoint's id that can stand for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The steps that are over."""

    first_head: str | None
    """The head that the run began with, ``None`` on a fresh fork."""
    checkpoints: Sequence[str | None]
    """What steps 1, 2 ... made, ``None`` for a step that was skipped."""

    @property
    def last(self) -> int:
        """The last step that is over."""
        return len(self.checkpoints)

    @property
    def heads(self) -> list[str | None]:
        """The head after step 0, 1 ...; ``None`` is that of a fresh fork."""
        heads = [self.first_head]
        for made in self.checkpoints:
            heads.append(made or heads[-1])
        return heads

    def window(self, end: int, *, steps: int) -> set[str]:
        """The heads after the *steps* steps up to *end*, which may be the one in hand."""
        return {head for head in self.heads[max(0, end + 1 - steps) : end + 1] if head is not None}

    def head(self, step: int) -> str | None:
        """The head after *step*, ``None``: that of a fresh fork."""
        return self.heads[step]

    def at(self, step: int) -> Target:
        """The place after *step*.

        Raises:
            ConfigError: the run cannot go back there; a line that says why.
        """
        if not 0 <= step < self.last:
            allowed = f"allowed: 0 to {self.last - 1}" if self.last else "no step is over yet"
            raise ConfigError(
                f"the run stands after step {self.last} and cannot go back to {step}; {allowed}"
            )
        checkpoint = self.head(step)
        if checkpoint is None:
            raise ConfigError(
                f"step {step} has no checkpoint, as the fork began without one, and no head can be set "
                "to that; go back to a later step, or begin anew with another run.name and model.slug"
            )
        return Target(step=step, checkpoint=checkpoint)

    def back(self, steps: int) -> Target:
        """The place *steps* before the last one.

        Raises:
            ConfigError: there are not so many.
        """
        return self.at(self.last - steps)

    def named(self, checkpoint: str) -> Target:
        """The place after which *checkpoint*, or an id that begins so, was the head; the last such step.

        Raises:
            ConfigError: no step made it, or several ids begin so, or it is the head.
        """
        heads = self.heads
        found = {head for head in heads if head is not None and head == checkpoint}
        if not found and len(checkpoint) >= SHORTEST_PREFIX:
            found = {head for head in heads if head is not None and head.startswith(checkpoint.lower())}
        if len(found) != 1:
            short = len(checkpoint) < SHORTEST_PREFIX
            unknown = f"give at least {SHORTEST_PREFIX} characters of an id" if short else self._unknown
            reason = f"{len(found)} checkpoints of this run begin so" if found else unknown
            raise ConfigError(f"{checkpoint}: {reason}")
        (one,) = found
        if one == heads[-1]:
            raise ConfigError(f"{checkpoint}: is the head already; name an earlier checkpoint")
        return Target(step=max(step for step, head in enumerate(heads) if head == one), checkpoint=one)

    @property
    def _unknown(self) -> str:
        known = [f"{head} (step {step})" for step, head in enumerate(self.heads[:-1]) if head]
        if not known:
            return "this run has no checkpoint to go back to"
        return (
            f"no step of this run's present line made it; there are {', '.join(known[-8:])}. To use one of "
            "another branch: hud-orchestrate models fork MODEL --checkpoint ID"
        )


def best(line: Line, *, evaluations: Mapping[int, float], rewards: Mapping[int, float]) -> Target | None:
    """The place with the highest score, the newest of equal ones, the present one included.

    Args:
        line: the steps that are over.
        evaluations: scores by policy version.
        rewards: the mean of every step, which is asked when there are no evaluations. It counts for the
            policy before the step, from which it was sampled.

    Returns:
        ``None`` when no version with a checkpoint has a score.
    """
    scores = evaluations or {step - 1: reward for step, reward in rewards.items()}
    heads = line.heads
    places = [
        (score, version) for version, score in scores.items() if version <= line.last and heads[version]
    ]
    if not places:
        return None
    _, version = max(places)
    checkpoint = heads[version]
    assert checkpoint is not None  # as it has a place
    return Target(step=version, checkpoint=checkpoint)
