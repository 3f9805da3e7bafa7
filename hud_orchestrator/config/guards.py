"""The section about what may not happen to a run, and what is done when it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import Section

Metric = Literal[
    "eval.reward",
    "reward_mean",
    "reward_std",
    "cut_short_share",
    "failed_share",
    "loss",
    "entropy",
    "kl",
    "ratio_max",
    "clipped_share",
    "grad_norm",
]

CONDITIONS = ("above", "below", "falls_below_best", "not_finite")

DEFAULT_FACTOR: Mapping[str, float] = {"lower_learning_rate": 0.5}


class GuardSection(Section):
    """A condition on one figure, and an action.

    It fires when the condition has held ``in_a_row`` times, and again at the earliest ``cool_down`` steps
    later, and after the figure has come back to ``rearm``. Of ``above``, ``below``, ``falls_below_best`` and
    ``not_finite``, one is given.
    """

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$")
    """What it is called in the log. Left out: its figure and condition."""

    metric: Metric
    """The figure: ``eval.reward``, of evaluations, or one of steps."""

    above: float | None = None
    """Holds for a figure above this."""

    below: float | None = None
    """Holds for a figure below this."""

    falls_below_best: float | None = Field(default=None, gt=0)
    """Holds for a figure at least so much below the highest one of the run."""

    not_finite: bool = False
    """Holds for a figure that is not a number, or infinite."""

    in_a_row: int = Field(default=1, ge=1)
    """How many times the condition has to hold before the guard fires."""

    cool_down: int = Field(default=10, ge=0)
    """Steps after it has fired in which it does not fire again."""

    rearm: float | None = None
    """What the figure has to come back to before the guard fires again, so that one which wavers about its
    bound fires once: with ``above: 0.5`` and ``rearm: 0.3``, 0.3 or less; with ``falls_below_best``, so much
    below the best, or less. Left out: it need not."""

    action: Literal["warn", "pause", "lower_learning_rate", "roll_back"] = "warn"
    """``warn``: a line in the log. ``pause``: the run ends with exit code 79, and another ``run`` goes on.
    ``lower_learning_rate``: from the next step on. ``roll_back``: to an earlier checkpoint."""

    steps: int | None = Field(default=None, ge=1, le=100)
    """How many steps ``roll_back`` goes back. Left out: to the best checkpoint."""

    most: int = Field(default=3, ge=1)
    """Rollbacks by this guard; where it would go back once more, it pauses the run instead."""

    factor: float | None = Field(default=None, gt=0, le=1)
    """The learning rate is multiplied by this from then on. Left out: 0.5 for ``lower_learning_rate``, and
    unchanged by ``roll_back``."""

    floor: float = Field(default=0.0, ge=0)
    """No factor lowers ``trainer.learning_rate.peak`` below this."""

    @property
    def label(self) -> str:
        """What it is called."""
        if self.name is not None:
            return self.name
        words = [name if value is True else f"{name} {value:g}" for name, value in self.conditions.items()]
        return " ".join([self.metric, *words])

    @property
    def conditions(self) -> dict[str, float]:
        """The conditions that are given."""
        given = {name: getattr(self, name) for name in CONDITIONS}
        return {name: value for name, value in given.items() if value is not None and value is not False}
