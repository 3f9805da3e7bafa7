from __future__ import annotations

import pytest

from hud_orchestrator.config.outcomes import OutcomesSection
from hud_orchestrator.records import Ending, Group, Outcome, TrainableGroup, Treatment
from hud_orchestrator.rules.grading import GradingRule
from tests.builders import group, rollout


def rule(cut_short: str = "keep", *, scale_by: float = 0.5, drop_no_spread: bool = True) -> GradingRule:
    treatments = {Outcome.CUT_SHORT: Treatment(cut_short)}
    return GradingRule(treatments=treatments, scale_by=scale_by, drop_no_spread=drop_no_spread)


def with_one_cut_short() -> Group:
    cut = rollout(0, 1, reward=0.8, outcome=Outcome.CUT_SHORT)
    return Group(number=0, rollouts=(rollout(0, 0, reward=0.0), cut, rollout(0, 2, reward=1.0)))


def trained_rewards(verdict: TrainableGroup | Ending) -> list[float]:
    assert isinstance(verdict, TrainableGroup)
    return [member.reward for member in verdict.members]


def test_a_cut_short_member_keeps_its_reward() -> None:
    assert trained_rewards(rule("keep").apply(with_one_cut_short())) == [0.0, 0.8, 1.0]


def test_a_cut_short_member_has_its_reward_scaled_and_nobody_elses() -> None:
    assert trained_rewards(rule("scale", scale_by=0.25).apply(with_one_cut_short())) == [0.0, 0.2, 1.0]


def test_a_dropped_member_neither_trains_nor_counts_in_the_baseline() -> None:
    assert trained_rewards(rule("drop_member").apply(with_one_cut_short())) == [0.0, 1.0]


def test_a_cut_short_member_ends_its_group_when_the_run_file_says_so() -> None:
    assert rule("drop_group").apply(with_one_cut_short()) is Ending.PARTIAL


@pytest.mark.parametrize(
    "outcome",
    [Outcome.UNGRADED, Outcome.LOST, Outcome.NOT_STARTED, Outcome.GATEWAY_FAILED, Outcome.GRADER_FAILED],
)
def test_a_member_without_a_grade_ends_its_group_and_is_never_a_zero(outcome: Outcome) -> None:
    failed = Group(number=0, rollouts=(rollout(0, 0), rollout(0, 1, reward=None, outcome=outcome)))

    assert rule().apply(failed) is Ending.FAILED


def test_a_member_that_did_not_begin_is_left_out_of_a_group_that_is_otherwise_whole() -> None:
    late = rollout(0, 2, reward=None, outcome=Outcome.NOT_BEGUN, tokens=0)
    shortened = Group(number=0, rollouts=(rollout(0, 0, reward=0.0), rollout(0, 1, reward=1.0), late))
    treatments = {Outcome(key): Treatment(value) for key, value in OutcomesSection().model_dump().items()}

    assert trained_rewards(
        GradingRule(treatments=treatments, scale_by=1, drop_no_spread=True).apply(shortened)
    ) == [0.0, 1.0]


def test_equal_rewards_carry_no_gradient() -> None:
    assert rule().apply(group(rewards=(0.3, 0.3, 0.3))) is Ending.NO_SPREAD
    assert trained_rewards(rule(drop_no_spread=False).apply(group(rewards=(0.3, 0.3)))) == [0.3, 0.3]


def test_a_member_without_tokens_is_left_out() -> None:
    mixed = Group(
        number=0,
        rollouts=(rollout(0, 0, reward=0.5, tokens=0), rollout(0, 1, reward=0.0), rollout(0, 2, reward=1.0)),
    )

    assert trained_rewards(rule().apply(mixed)) == [0.0, 1.0]


def test_one_member_with_tokens_cannot_be_compared_with_anybody() -> None:
    lonely = Group(number=0, rollouts=(rollout(0, 0, tokens=0), rollout(0, 1)))

    assert rule().apply(lonely) is Ending.NO_TOKENS


def test_dropping_a_member_can_take_away_the_spread() -> None:
    cut = rollout(0, 1, reward=0.8, outcome=Outcome.CUT_SHORT)
    same = Group(number=0, rollouts=(rollout(0, 0, reward=1.0), cut, rollout(0, 2, reward=1.0)))

    assert rule("drop_member").apply(same) is Ending.NO_SPREAD


def test_a_member_without_advantage_leaves_everybody_elses_as_it_is() -> None:
    with_it = trained_rewards(rule("zero_advantage").apply(with_one_cut_short()))

    assert with_it == [0.0, 0.5, 1.0]
    mean = sum(with_it) / 3
    assert [reward - mean for reward in with_it] == [-0.5, 0.0, 0.5]


def test_a_member_without_a_grade_may_stay_without_advantage() -> None:
    treatments = {Outcome.UNGRADED: Treatment.ZERO_ADVANTAGE}
    patient = GradingRule(treatments=treatments, scale_by=1, drop_no_spread=True)
    members = (rollout(0, 0, reward=0.0), rollout(0, 1, reward=None, outcome=Outcome.UNGRADED), rollout(0, 2))

    assert trained_rewards(patient.apply(Group(number=0, rollouts=members))) == [0.0, 0.5, 1.0]


def test_a_retry_that_did_not_help_drops_the_group() -> None:
    treatments = {Outcome.TOOL_FAILURE: Treatment.RETRY}
    rule = GradingRule(treatments=treatments, scale_by=1, drop_no_spread=True)
    failed = rollout(0, 1, reward=0.3, outcome=Outcome.TOOL_FAILURE)

    assert rule.apply(Group(number=0, rollouts=(rollout(0, 0), failed))) is Ending.PARTIAL


def test_equal_rewards_beside_a_member_without_advantage_carry_no_gradient() -> None:
    cut = rollout(0, 1, reward=0.8, outcome=Outcome.CUT_SHORT)
    same = Group(number=0, rollouts=(rollout(0, 0, reward=1.0), cut, rollout(0, 2, reward=1.0)))

    assert rule("zero_advantage").apply(same) is Ending.NO_SPREAD
