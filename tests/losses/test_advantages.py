from __future__ import annotations

import math

import pytest

from hud_orchestrator.losses.client.advantages import datum_advantages
from tests.losses.datums import Datum

# Trajectory 0 took three turns. A mean over datums would be 0.8, over trajectories it is 0.6.
TURNS = [
    Datum(1.0, 0, 0), Datum(1.0, 0, 0), Datum(1.0, 0, 0), Datum(0.2, 1, 0), Datum(0.6, 2, 0),
    Datum(5.0, 3, 1), Datum(3.0, 4, 1),
]  # fmt: skip


def test_a_group_is_centred_on_the_mean_of_its_trajectories_whatever_their_turns() -> None:
    found = datum_advantages(TURNS, advantage="group")
    assert found == pytest.approx([0.4, 0.4, 0.4, -0.4, 0.0, 1.0, -1.0])


def test_group_std_also_divides_by_the_deviation_of_the_trajectories() -> None:
    found = datum_advantages(TURNS, advantage="group_std")
    std = math.sqrt((0.4**2 + 0.4**2) / 3)
    centred = [0.4, 0.4, 0.4, -0.4, 0.0]
    assert found == pytest.approx([*(one / (std + 1e-6) for one in centred), 1 / 1.000001, -1 / 1.000001])


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    found = datum_advantages(TURNS, advantage="leave_one_out")
    assert found == pytest.approx([0.6, 0.6, 0.6, -0.6, 0.0, 2.0, -2.0])


def test_plain_is_the_reward_itself() -> None:
    assert datum_advantages(TURNS, advantage="plain") == [1.0, 1.0, 1.0, 0.2, 0.6, 5.0, 3.0]


def test_without_groups_the_whole_batch_is_one() -> None:
    data = [Datum(1.0, 0), Datum(1.0, 0), Datum(0.0, 1), Datum(2.0, 2)]
    assert datum_advantages(data, advantage="group") == [0.0, 0.0, -1.0, 1.0]


@pytest.mark.parametrize("advantage", ["group", "group_std", "leave_one_out"])
def test_equal_rewards_give_exactly_nothing(advantage: str) -> None:
    data = [Datum(0.1, index) for index in range(7)]
    assert datum_advantages(data, advantage=advantage) == [0.0] * 7


def test_a_group_of_one_has_nobody_to_leave_out() -> None:
    data = [Datum(1.0, 0, 4), Datum(1.0, 0, 4), Datum(1.0, 1, 5), Datum(0.0, 2, 5)]
    with pytest.raises(ValueError, match="group 4 has 1 trajectory, and leave_one_out"):
        datum_advantages(data, advantage="leave_one_out")
    assert datum_advantages(data, advantage="group") == [0.0, 0.0, 0.5, -0.5]


@pytest.mark.parametrize("second", [Datum(0.5, 0, 0), Datum(1.0, 0, 1)])
def test_turns_of_one_trajectory_must_agree(second: Datum) -> None:
    with pytest.raises(ValueError, match="datum 1 says that trajectory 0 has reward"):
        datum_advantages([Datum(1.0, 0, 0), second], advantage="group")
