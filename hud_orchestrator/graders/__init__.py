"""Graders for templates: small functions that say how good an answer is, and one that asks a model.

Those that look at text give a number from 0 to 1; :func:`weighted` makes a whole grade of several.
:func:`unit_tests` and :class:`Judge` give a whole grade themselves. An answer of ``None``, of an agent that
was cut short, is worth 0 to all of them. What a grader raises makes the attempt a grader failure, never a
low reward.
"""

from __future__ import annotations

from hud_orchestrator.graders.confined import Ended, Limits, run_confined
from hud_orchestrator.graders.judge import Judge
from hud_orchestrator.graders.numbers import numeric
from hud_orchestrator.graders.python_tests import unit_tests
from hud_orchestrator.graders.rubric import Criterion
from hud_orchestrator.graders.schema import json_schema
from hud_orchestrator.graders.text import exact, regex
from hud_orchestrator.graders.weights import weighted

__all__ = [
    "Criterion",
    "Ended",
    "Judge",
    "Limits",
    "exact",
    "json_schema",
    "numeric",
    "regex",
    "run_confined",
    "unit_tests",
    "weighted",
]
