"""The section about what is attempted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hud_orchestrator.config.entries import Shorthand
from hud_orchestrator.config.section import Section, WantedValue


class TaskSource(Section):
    """Tasks from one place, or some of them."""

    source: str
    """A ``.json``, ``.jsonl`` or ``.py`` file, ``file.py:variable`` or a directory of such files, relative
    to the run file; or the name or id of a taskset of the platform."""

    weight: float | None = Field(default=None, gt=0)
    """Its share of the groups, relative to the other weights. Left out, in every entry: all tasks are one
    taskset."""

    where: dict[str, WantedValue] = Field(default_factory=dict)
    """Only tasks whose columns have these values: ``{difficulty: [easy, medium], suite: a}``."""

    limit: int | None = Field(default=None, ge=1)
    """The first so many of them at most."""


Sources = Annotated[list[TaskSource], Field(min_length=1), Shorthand("source")]


class CurriculumSection(Section):
    """Which training tasks are attempted more often, by how often the policy solves them.

    The solve rate of a task is the mean reward of its last groups. Off unless one of the first three keys
    is set.
    """

    weighting: Literal["even", "near_half"] = "even"
    """``near_half``: the closer to one half a task's solve rate, the more often it is attempted."""

    skip_solved: float | None = Field(default=None, gt=0, le=1)
    """Skip tasks with at least this solve rate; but see ``revisit``."""

    retire_hopeless: float | None = Field(default=None, ge=0, lt=1)
    """Never again attempt tasks with at most this solve rate."""

    after_visits: int = Field(default=3, ge=1)
    """Groups of a task before it can be skipped or retired."""

    window: int = Field(default=4, ge=1)
    """Groups of a task, the last ones, whose mean is its solve rate."""

    solved_at: float | None = None
    """A solve rate counts attempts with at least this reward. Left out: it is the mean reward."""

    revisit: float = Field(default=0.05, ge=0, le=1)
    """How often a skipped task is attempted all the same, and any task at least, relative to a new one."""

    @property
    def is_on(self) -> bool:
        """Whether it changes what is attempted."""
        return self.weighting != "even" or self.skip_solved is not None or self.retire_hopeless is not None


class TasksetSection(Section):
    """What is attempted.

    A taskset is a ``.json``, ``.jsonl`` or ``.py`` file or a directory, relative to the run file, or a
    taskset of the platform by name or id; ``file.py:variable`` picks one list of tasks, and
    ``reasoning-gym:chain_sum?size=500`` part of a task library. Several, or some of their tasks, are a
    list of ``{source, weight, where, limit}``.
    """

    train: Sources
    """The tasks that are trained on."""

    heldout: Sources | None = None
    """The tasks that evaluation uses. Left out, and ``heldout_split`` too: no evaluation."""

    heldout_split: float | None = Field(default=None, gt=0, lt=1)
    """This share of the training tasks is held out instead, chosen by the seed."""

    shuffle: bool = True
    """Visit the training tasks in a new random order each epoch, derived from the seed."""

    curriculum: CurriculumSection = CurriculumSection()

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out tasks."""
        return self.heldout is not None or self.heldout_split is not None
