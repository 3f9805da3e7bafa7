"""How a rollout that runs elsewhere ended, told by its trace; and our own rollouts as traces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hud_orchestrator.records import Outcome
from hud_orchestrator.reporting.letters import ended as letter_of
from hud_orchestrator.rules.trace_states import outcome_of, reward_of
from hud_orchestrator.wire_hosting import TraceState
from tests.builders import rollout

GRADE = {"score": 0.5, "subscores": [{"name": "part", "value": 0.5}]}


@pytest.mark.parametrize(
    ("outcome", "graded"),
    [(one, True) for one in Outcome if one is not Outcome.CANCELLED]
    + [(one, False) for one in Outcome if one is not Outcome.CANCELLED and not one.clean],
)
def test_an_outcome_survives_the_way_there_and_back(outcome: Outcome, graded: bool) -> None:
    ended = replace(
        rollout(outcome=outcome, reward=0.5 if graded else None),
        grade=GRADE if graded else None,
        detail="why",
    )

    told = letter_of(ended, treatments={}, version=0).body
    state = TraceState.model_validate(told)

    assert outcome_of(state) is outcome
    assert reward_of(state) == ended.reward
    assert state.evaluation_result == ended.grade


@pytest.mark.parametrize(
    ("state", "outcome", "reward"),
    [
        ({"status": "completed", "reward": 0.5}, Outcome.FINISHED, 0.5),
        ({"status": "completed", "reward": 0.5, "stop_reason": "max_steps"}, Outcome.MAX_TURNS, 0.5),
        ({"status": "completed", "reward": 0.5, "stop_reason": "length"}, Outcome.LENGTH, 0.5),
        ({"status": "completed", "reward": None}, Outcome.GRADER_FAILED, None),
        ({"status": "completed", "reward": float("nan")}, Outcome.GRADER_FAILED, None),
        ({"status": "error", "reward": 0.0, "error": "lost"}, Outcome.LOST, None),
        ({"status": "error", "reward": 0.0, "stop_reason": "timeout"}, Outcome.UNGRADED, None),
        (
            {"status": "error", "reward": 0.5, "stop_reason": "timeout", "evaluation_result": GRADE},
            Outcome.CUT_SHORT,
            0.5,
        ),
        ({"status": "error", "reward": 0.5, "evaluation_result": GRADE}, Outcome.AGENT_ERROR, 0.5),
        (
            {"status": "completed", "reward": 0.0, "evaluation_result": {"score": 0.0, "isError": True}},
            Outcome.GRADER_FAILED,
            None,
        ),
        ({"status": "cancelled", "reward": 1.0, "evaluation_result": GRADE}, Outcome.LOST, None),
        ({"status": "completed", "reward": 1.0, "metadata": {"outcome": "new"}}, Outcome.FINISHED, 1.0),
    ],
)
def test_a_trace_that_somebody_else_wrote_is_read_by_its_status_and_its_grade(
    state: dict[str, Any], outcome: Outcome, reward: float | None
) -> None:
    told = TraceState.model_validate(state)

    assert outcome_of(told) is outcome
    assert reward_of(told) == reward
