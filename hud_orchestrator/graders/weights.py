"""Several scores as one grade."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hud_orchestrator.environments.template import EvaluationResult, SubScore

Part = float | EvaluationResult
"""A score from 0 to 1, or a whole grade."""


def weighted(
    parts: Mapping[str, Part], weights: Mapping[str, float] | None = None, *, content: str | None = None
) -> EvaluationResult:
    """The weighted mean of *parts*, with each of them as a subscore.

        yield weighted(
            {"right": numeric(answer, 42), "brief": float(len(answer) < 80)}, {"right": 3, "brief": 1}
        )

    Args:
        parts: a score from 0 to 1 or a whole grade, by name; the subscores of a grade are kept in the
            ``info`` of its own.
        weights: of the parts, not all 0; a part that is not named here weighs 1. A part of weight 0 is
            reported and does not count.
        content: a line about the grade for people.

    Returns:
        The grade. One of its parts reporting an error makes it one that reports an error.

    Raises:
        ValueError: there are no parts, a score is not from 0 to 1, or a weight is for no part, is negative,
            or nothing has one.
    """
    weights = weights or {}
    unknown = sorted(weights.keys() - parts.keys())
    if unknown:
        raise ValueError(f"weights for {unknown}, and the parts are {sorted(parts)}")
    scores = [_subscore(name, part, float(weights.get(name, 1.0))) for name, part in parts.items()]
    total = math.fsum(score.weight for score in scores)
    if not total > 0:
        raise ValueError(f"no part of {sorted(parts)} has a weight above 0")
    failed = [name for name, part in parts.items() if isinstance(part, EvaluationResult) and part.isError]
    return EvaluationResult(
        # Rounding must not carry a sum of ones above one.
        reward=min(math.fsum(score.weight * score.value for score in scores) / total, 1.0),
        content=f"graders failed: {', '.join(failed)}" if failed else content,
        isError=bool(failed),
        subscores=scores,
    )


def _subscore(name: str, part: Part, weight: float) -> SubScore:
    whole = part if isinstance(part, EvaluationResult) else EvaluationResult(reward=float(part))
    if not 0 <= whole.reward <= 1:
        raise ValueError(f"the score of {name} is {whole.reward!r}, expected a number from 0 to 1")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of {name} is {weight!r}, expected a number of at least 0")
    info = dict(whole.info)
    if whole.subscores:
        info["subscores"] = {score.name: score.value for score in whole.subscores}
    return SubScore(name=name, value=whole.reward, weight=weight, info=info or None)
