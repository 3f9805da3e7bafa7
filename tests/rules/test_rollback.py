"""Where a run can go back to."""

from __future__ import annotations

import pytest

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Target
from hud_orchestrator.rules.rollback import Line, best

LINE = Line(first_head=None, checkpoints=["aaaa1", "aaaa2", None, "cccc4", "dddd5"])


def test_it_goes_back_by_steps_and_a_skipped_step_stands_on_the_head_before_it() -> None:
    assert LINE.back(1) == Target(step=4, checkpoint="cccc4")
    assert LINE.back(2) == Target(step=3, checkpoint="aaaa2")
    assert LINE.back(4) == Target(step=1, checkpoint="aaaa1")


def test_a_checkpoint_may_be_named_by_the_beginning_of_its_id_and_keeps_steps_that_were_skipped_on_it() -> (
    None
):
    assert LINE.named("aaaa2") == Target(step=3, checkpoint="aaaa2")
    assert LINE.named("CCCC") == Target(step=4, checkpoint="cccc4")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("aaaa", "2 checkpoints of this run begin so"),
        ("ffff", "no step of this run's present line made it; there are aaaa1 .step 1."),
        ("ccc", "give at least 4 characters of an id"),
        ("dddd5", "is the head already"),
    ],
)
def test_what_cannot_be_gone_back_to_is_refused_in_words(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        LINE.named(name)


def test_no_head_can_be_set_to_what_a_fresh_fork_began_with() -> None:
    with pytest.raises(ConfigError, match="the fork began without one"):
        LINE.back(5)
    assert Line(first_head="base", checkpoints=["one"]).back(1) == Target(step=0, checkpoint="base")


def test_there_is_nothing_beyond_the_first_step_or_the_last() -> None:
    with pytest.raises(ConfigError, match=r"stands after step 5 and cannot go back to -1; allowed: 0 to 4"):
        LINE.back(6)
    with pytest.raises(ConfigError, match="no step is over yet"):
        Line(first_head="base", checkpoints=[]).back(1)


def test_the_best_is_the_newest_of_equal_ones_and_has_a_checkpoint() -> None:
    scores = {0: 9.0, 1: 0.5, 2: 0.75, 4: 0.75, 5: 0.25}

    assert best(LINE, evaluations=scores, rewards={1: 99.0}) == Target(step=4, checkpoint="cccc4")
    assert best(LINE, evaluations={0: 9.0}, rewards={3: 1.0}) is None
    assert best(LINE, evaluations={}, rewards={}) is None


def test_without_evaluations_a_steps_reward_counts_for_the_policy_before_it() -> None:
    assert best(LINE, evaluations={}, rewards={1: 9.0, 2: 0.5, 5: 0.25}) == Target(step=1, checkpoint="aaaa1")
