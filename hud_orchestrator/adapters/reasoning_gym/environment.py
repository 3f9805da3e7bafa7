"""The environment: asks a problem that stands in its row, and lets the family's verifier grade the answer."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from hud_orchestrator.adapters.adapted import library, thawed
from hud_orchestrator.environments.template import Environment, EvaluationResult, SubScore

env = Environment("reasoning-gym")


@env.template()
async def problem(
    family: str,
    item: dict[str, Any],
    prompt: str = "",
    extract: str = "",
    options: dict[str, Any] | None = None,
) -> Any:
    """One problem of a family.

    Args:
        family: the name of the family.
        item: the problem as the library made it: ``question``, ``answer`` and ``metadata``.
        prompt: what is asked; empty, the library's question.
        extract: a pattern; the group of its last match, or the match, is the answer. Empty, all of it is.
        options: of the family.
    """
    entry = thawed(item)
    said = yield prompt or entry["question"]
    answer = _extracted(said, extract)
    score, objection = (0.0, None) if answer is None else _score(family, options or {}, entry, answer)
    info = {"family": family, "answer": entry["answer"]}
    yield EvaluationResult(
        reward=score,
        info=info if objection is None else {**info, "verifier": objection},
        subscores=[
            SubScore(name="verifier", value=min(max(score, 0.0), 1.0)),
            SubScore(name="solved", value=float(score >= 1), weight=0),
        ],
    )


def _extracted(said: str | None, pattern: str) -> str | None:
    if said is None or not pattern:
        return said
    found = list(re.finditer(pattern, said, re.DOTALL))
    if not found:
        return None
    return found[-1].group(1 if found[-1].re.groups else 0)


def _score(
    family: str, options: dict[str, Any], entry: dict[str, Any], answer: str
) -> tuple[float, str | None]:
    """The verifier's score, and what it said if it could not read the answer."""
    verifier = _dataset(family, json.dumps(options, sort_keys=True))
    try:
        return float(verifier.score_answer(answer, entry)), None
    except Exception as error:
        # Some verifiers raise on text that they cannot read, which is what a model writes. One that raises on
        # the answer of its own problem is broken, and no reward may come of it.
        if entry["answer"] is not None:
            verifier.score_answer(entry["answer"], entry)
        return 0.0, f"{type(error).__name__}: {error}"


@functools.lru_cache(maxsize=64)
def _dataset(family: str, options: str) -> Any:
    # Some verifiers look at the options of their family, so they come along.
    return library("reasoning_gym", extra="reasoning-gym").create_dataset(
        family, size=1, **thawed(json.loads(options))
    )
