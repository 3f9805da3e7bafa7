"""A language model as a grader, by a rubric, over any OpenAI-compatible endpoint.

    judge = Judge(
        model="some-model", base_url="https://host/v1",
        rubric=[Criterion(name="right", description="Names the capital of France.", weight=2),
                Criterion(name="brief", description="One sentence.")],
    )

    @env.template()
    async def capital():
        task = "What is the capital of France?"
        yield await judge.grade((yield task), task=task)

Its HTTP client is imported when it is first asked: an environment without a judge needs none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hud_orchestrator.environments.template import EvaluationResult
from hud_orchestrator.graders.rubric import Criterion
from hud_orchestrator.graders.weights import weighted

FORBIDDEN_KEY = "HUD_API_KEY"
"""Environments do not get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Asks a model for a score of each criterion.

    Raises:
        ValueError: there is no criterion, two have one name, or a number cannot be used.
    """

    model: str
    rubric: Sequence[Criterion]
    base_url: str
    """The endpoint, ``/v1`` included: ``/chat/completions`` is appended."""
    key_variable: str = "JUDGE_API_KEY"
    """The environment variable that holds the key; it is not set where the endpoint needs none."""
    concurrency: int = 8
    """Verdicts in the making at once for this model of this endpoint, by all environment processes of a
    machine together."""
    deadline_s: float = 60
    """Seconds for one verdict, waiting for a turn and all retries included."""
    attempts: int = 4
    """Times that a request is made, while the endpoint is busy or away."""
    re_asks: int = 2
    """Times that the judge is asked again when its reply is not a verdict."""
    max_tokens: int = 1024
    temperature: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, or others than these have."""

    def __post_init__(self) -> None:
        names = [criterion.name for criterion in self.rubric]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a rubric needs criteria with names of their own, not {names}")
        if self.key_variable == FORBIDDEN_KEY:
            raise ValueError(f"{FORBIDDEN_KEY} is not given to environments; name a variable of the judge's")
        least = {"concurrency": 1, "attempts": 1, "re_asks": 0, "max_tokens": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {low}")
        if not (math.isfinite(self.deadline_s) and self.deadline_s > 0):
            raise ValueError(f"deadline_s is {self.deadline_s}, expected seconds above 0")

    async def grade(self, answer: str | None, *, task: str) -> EvaluationResult:
        """Grade *answer* to *task*: a subscore for each criterion, and their weighted mean.

        An answer of ``None`` is worth 0, and the judge is not asked.

        Raises:
            JudgeFailed: there is no verdict; let it out of the template, and the attempt is a grader
                failure.
        """
        weights = {criterion.name: criterion.weight for criterion in self.rubric}
        if answer is None:
            return weighted(dict.fromkeys(weights, 0.0), weights)
        from hud_orchestrator.graders.asking import ask

        scores, reason = await ask(self, task=task, answer=answer)
        return weighted(scores, weights, content=reason)
