from __future__ import annotations

import random

from hud_orchestrator.records import Dropped, Ending, Outcome, TrainableGroup
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.grading import GradingRule
from tests.builders import group

RULE = GradingRule(treatments={}, scale_by=1, drop_no_spread=True)


def trainable(number: int, *, version: int = 0) -> TrainableGroup:
    verdict = RULE.apply(group(number, version=version))
    assert isinstance(verdict, TrainableGroup)
    return verdict


def cutter(*, next_step: int = 1, places: int = 2, replacements: int = 0, staleness: int = 0) -> BatchCutter:
    return BatchCutter(
        next_step=next_step, groups_per_step=places, replacements=replacements, staleness=staleness
    )


def test_a_batch_is_in_group_order_whatever_the_order_of_arrival() -> None:
    for seed in range(20):
        numbers = list(range(8))
        random.Random(seed).shuffle(numbers)
        cut = cutter(places=8)
        for number in numbers:
            cut.saw(group(number, rewards=(0.0, float(number))))
            cut.keep(trainable(number))
        batch = cut.cut()

        assert batch is not None
        assert [g.number for g in batch.groups] == list(range(8))
        assert batch.rewards == tuple(r for n in range(8) for r in (0.0, float(n)))


def test_a_dropped_group_is_sampled_anew_while_there_are_replacements() -> None:
    cut = cutter(places=2, replacements=1)

    assert cut.drop(0, Ending.NO_SPREAD) is True
    assert cut.drop(1, Ending.NO_SPREAD) is False
    assert cut.cut() is None
    cut.keep(trainable(2))
    batch = cut.cut()

    assert batch is not None
    assert [g.number for g in batch.groups] == [2]
    assert batch.dropped == {Ending.NO_SPREAD: 2}
    assert batch.holders == (2, 1)


def test_a_taskset_without_any_spread_still_ends_its_step() -> None:
    cut = cutter(places=2, replacements=3)
    replaced = [cut.drop(number, Ending.NO_SPREAD) for number in range(5)]
    batch = cut.cut()

    assert replaced == [True, True, True, False, False]
    assert batch is not None
    assert batch.groups == ()


def test_replacements_are_counted_anew_for_every_step() -> None:
    cut = cutter(places=1, replacements=1)
    assert [cut.drop(number, Ending.NO_SPREAD) for number in (0, 1)] == [True, False]
    assert cut.cut() is not None

    assert cut.step == 2
    assert cut.drop(9, Ending.NO_SPREAD) is True


def test_the_sweep_takes_out_what_is_too_old_for_the_step_it_would_train() -> None:
    cut = cutter(next_step=5, places=2, staleness=1)
    cut.keep(trainable(0, version=2))  # trained on version 4, it would be 2 steps old
    assert cut.sweep() == {}  # the places are not full: nothing is cut yet
    cut.keep(trainable(1, version=3))

    assert cut.sweep() == {0: Ending.STALE}
    assert cut.cut() is None
    cut.keep(trainable(2, version=4))
    assert cut.sweep() == {}
    batch = cut.cut()
    assert batch is not None
    assert [g.number for g in batch.groups] == [1, 2]
    assert batch.dropped == {Ending.STALE: 1}


def test_no_group_older_than_the_bound_is_ever_in_a_batch() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        staleness = chance.randint(0, 3)
        cut = cutter(next_step=4, places=3, staleness=staleness)
        for number in range(60):
            version = chance.randint(0, cut.step - 1)
            cut.keep(trainable(number, version=version))
            cut.sweep()
            batch = cut.cut()
            if batch is not None:
                assert all(batch.step - 1 - g.oldest_version <= staleness for g in batch.groups)


def before(number: int, reward: float) -> Dropped:
    return Dropped(
        number=number, ending=Ending.NO_SPREAD, outcomes=(Outcome.FINISHED,) * 2, rewards=(reward, reward)
    )


def test_what_was_dropped_before_a_restart_counts_as_if_it_had_been_now() -> None:
    whole, resumed = (
        BatchCutter(next_step=4, groups_per_step=3, replacements=1, staleness=1, dropped=dropped)
        for dropped in (None, {4: [before(0, 1.0), before(2, 0.0)], 5: [before(7, 1.0)]})
    )
    for number, reward in ((0, 1.0), (2, 0.0)):
        whole.saw(group(number, rewards=(reward, reward)))
        whole.drop(number, Ending.NO_SPREAD)
    for cut in (whole, resumed):
        for number in (1, 3):
            cut.saw(group(number, version=3))
            assert cut.cut() is None
            cut.keep(trainable(number, version=3))

    assert (whole.wasted_before, resumed.wasted_before) == (frozenset(), {2})
    batch = whole.cut()
    assert batch == resumed.cut()
    assert batch is not None
    assert batch.dropped == {Ending.NO_SPREAD: 2}
    # The one of the step after has used that step's replacement up.
    assert (whole.drop(8, Ending.NO_SPREAD), resumed.drop(8, Ending.NO_SPREAD)) == (True, False)


def test_what_was_tried_for_later_steps_leaves_room_for_the_one_in_hand() -> None:
    # The run file had more places and a larger staleness when these were tried.
    tried = {step: [before(step * 10 + nth, 1.0) for nth in range(8)] for step in (1, 2, 3, 4)}
    cut = BatchCutter(next_step=1, groups_per_step=2, replacements=1, staleness=1, dropped={2: tried[2]} | {
        step: tried[step] for step in (3, 4)
    })  # fmt: skip

    assert cut.places_left == 2
    assert cut.wasted_before == {21, 22}
    # Of the one in hand all counts, as it is over at once.
    full = BatchCutter(next_step=1, groups_per_step=2, replacements=1, staleness=1, dropped=tried)
    batch = full.cut()
    assert batch is not None
    assert batch.holders == tuple(range(11, 18))


def test_a_batch_that_is_made_anew_has_nothing_of_the_step_after() -> None:
    later = {2: [before(0, 1.0)]}
    cut = BatchCutter(next_step=1, groups_per_step=1, replacements=0, staleness=1, dropped=later)
    cut.drop(5, Ending.FAILED)
    assert cut.cut() is not None
    cut.redo()

    assert cut.places_left == 1
    cut.keep(trainable(6))
    first, second = cut.cut(), cut.cut()
    assert (first and first.holders, second and second.holders) == ((6,), (0,))


def test_what_was_dropped_for_more_places_than_there_are_now_holds_its_permits() -> None:
    tried = [before(number, 1.0) for number in range(8)]
    cut = BatchCutter(next_step=1, groups_per_step=2, replacements=2, staleness=0, dropped={1: tried})
    batch = cut.cut()

    assert batch is not None
    assert cut.wasted_before == set(batch.holders) == set(range(2, 8))
