"""Rollouts that were sampled elsewhere: no tokens here, a trace id, and the reward that the service knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hud_orchestrator.records import Batch, Ending, Group, Member, Outcome, TrainableGroup, Treatment
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.inputs import read_inputs
from hud_orchestrator.rules.requests import Recipe, forward_backward_requests, forward_request, with_groups
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories
from hud_orchestrator.wire import DatumTensors
from tests.builders import remote, rollout


def rule(cut_short: Treatment, *, scale_by: float = 0.5) -> GradingRule:
    return GradingRule(treatments={Outcome.CUT_SHORT: cut_short}, scale_by=scale_by, drop_no_spread=True)


def three(cut_reward: float = 0.8) -> Group:
    cut = remote(0, 1, reward=cut_reward, outcome=Outcome.CUT_SHORT)
    return Group(number=0, rollouts=(remote(0, 0, reward=0.0), cut, remote(0, 2, reward=1.0)))


def trained(verdict: TrainableGroup | Ending) -> list[int]:
    assert isinstance(verdict, TrainableGroup)
    return [member.rollout.ticket.member for member in verdict.members]


def test_it_trains_without_samples_and_by_its_trace_id() -> None:
    verdict = rule(Treatment.KEEP).apply(three())
    assert isinstance(verdict, TrainableGroup)
    batch = Batch(step=1, groups=(verdict,))

    (request,) = forward_backward_requests(batch, Recipe(loss="ppo"))

    assert request.inputs == ["trace-0-0", "trace-0-1", "trace-0-2"]
    assert request.group_size == 3


def test_a_loss_of_ours_finds_the_group_of_every_trace() -> None:
    groups = [Group(number=n, rollouts=(remote(n, 0, reward=0.0), remote(n, 1))) for n in range(2)]
    verdicts = [rule(Treatment.KEEP).apply(group) for group in groups]
    batch = Batch(step=1, groups=tuple(v for v in verdicts if isinstance(v, TrainableGroup)))
    row = {"logprobs": [0.0], "sampling_logprobs": [0.0], "mask": [1.0]}
    # A trace may have several turns, and the service alone knows how many.
    data = [DatumTensors(reward=1.0, traj_idx=index, **row) for index in (0, 0, 1, 2, 3, 3)]

    assert forward_request(batch, Recipe(loss="ours")).inputs == [
        f"trace-{n}-{member}" for n in range(2) for member in range(2)
    ]
    assert [datum.group_idx for datum in with_groups(data, batch)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("treatment", [Treatment.SCALE, Treatment.ZERO_ADVANTAGE])
def test_a_reward_that_a_trace_id_cannot_carry_leaves_its_member_out_with_a_reason(
    treatment: Treatment,
) -> None:
    judge = rule(treatment)

    assert trained(judge.apply(three())) == [0, 2]
    ((left, reason),) = judge.left_out(three())
    assert left.ticket.member == 1
    assert reason == f"its trace id cannot carry another reward (rollout.outcomes.cut_short: {treatment})"


def test_a_scale_of_one_changes_no_reward() -> None:
    assert trained(rule(Treatment.SCALE, scale_by=1).apply(three())) == [0, 1, 2]


def test_a_group_of_which_too_little_can_train_ends_untrained() -> None:
    cut = Group(number=0, rollouts=(remote(0, 0), remote(0, 1, reward=0.5, outcome=Outcome.CUT_SHORT)))

    assert rule(Treatment.SCALE).apply(cut) is Ending.NO_TOKENS


def test_another_reward_than_the_services_is_refused_before_any_bytes_leave() -> None:
    with pytest.raises(ValueError, match=r"trains by its trace id, with the reward .* 1.0; .* with 0.5"):
        read_inputs([Member(rollout=remote(), reward=0.5)], group_size=None)


def test_it_is_as_old_as_the_policy_that_it_was_submitted_at() -> None:
    old = Group(number=0, rollouts=(remote(0, 0, reward=0.0, version=2), rollout(0, 1, version=4)))
    verdict = rule(Treatment.KEEP).apply(old)
    assert isinstance(verdict, TrainableGroup)
    cutter = BatchCutter(next_step=5, groups_per_step=1, replacements=0, staleness=1)

    cutter.keep(verdict)

    assert verdict.oldest_version == 2
    assert cutter.sweep() == {0: Ending.STALE}


@pytest.fixture
def trajectories(tmp_path: Path) -> Iterator[Trajectories]:
    database = Database(tmp_path / "store.db")
    yield Trajectories(database)
    database.close()


async def test_it_comes_back_from_the_store_as_it_was(trajectories: Trajectories) -> None:
    mixed = Group(number=7, rollouts=(remote(7, 0, version=3), rollout(7, 1, version=4)))

    await trajectories.add(mixed, ending=None)

    assert await trajectories.unended() == [mixed]
