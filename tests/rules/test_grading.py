from __future__ import annotations

import pytest

from hud_orchestrator.records import Ending, Group, Outcome, TrainableGroup
from hud_orchestrator.rules.grading import GradingRule
from tests.builders import group, rollout


def rule(partial: str = "keep", *, factor: float = 0.5, drop_no_spread: bool = True) -> GradingRule:
    return GradingRule(partial=partial, factor=factor, drop_no_spread=drop_no_spread)  # type: ignore[arg-type]


def with_one_cut_short() -> Group:
    cut = rollout(0, 1, reward=0.8, outcome=Outcome.CUT_SHORT)
    return Group(number=0, rollouts=(rollout(0, 0, reward=0.0), cut, rollout(0, 2, reward=1.0)))


def trained_rewards(verdict: TrainableGroup | Ending) -> list[float]:
    assert isinstance(verdict, TrainableGroup)
    return [member.reward for member in verdict.members]


def test_a_cut_short_member_keeps_its_reward() -> None:
    assert trained_rewards(rule("keep").apply(with_one_cut_short())) == [0.0, 0.8, 1.0]


def test_a_cut_short_member_has_its_reward_scaled_and_nobody_elses() -> None:
    assert trained_rewards(rule("scale", factor=0.25).apply(with_one_cut_short())) == [0.0, 0.2, 1.0]


def test_a_masked_member_neither_trains_nor_counts_in_the_baseline() -> None:
    assert trained_rewards(rule("mask").apply(with_one_cut_short())) == [0.0, 1.0]


def test_a_cut_short_member_ends_its_group_when_the_run_file_says_so() -> None:
    assert rule("drop_group").apply(with_one_cut_short()) is Ending.PARTIAL


@pytest.mark.parametrize(
    "outcome",
    [Outcome.UNGRADED, Outcome.ENVIRONMENT_FAILED, Outcome.GATEWAY_FAILED, Outcome.REFUSED],
)
def test_a_member_without_a_grade_ends_its_group_and_is_never_a_zero(outcome: Outcome) -> None:
    failed = Group(number=0, rollouts=(rollout(0, 0), rollout(0, 1, reward=None, outcome=outcome)))

    assert rule().apply(failed) is Ending.FAILED


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


def test_masking_can_take_away_the_spread() -> None:
    cut = rollout(0, 1, reward=0.8, outcome=Outcome.CUT_SHORT)
    same = Group(number=0, rollouts=(rollout(0, 0, reward=1.0), cut, rollout(0, 2, reward=1.0)))

    assert rule("mask").apply(same) is Ending.NO_SPREAD
