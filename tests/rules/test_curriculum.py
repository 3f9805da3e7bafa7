"""Tasks are attempted by how often the policy has solved them, and always the same ones again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from hud_orchestrator.records import Visit
from hud_orchestrator.rules.curriculum import Curriculum, CurriculumRule
from hud_orchestrator.rules.order import MixedOrder, TaskOrder
from tests.builders import TASK

TASKS = [replace(TASK, slug=str(i)) for i in range(10)]
OFF: dict[str, Any] = {
    "near_half": False, "skip_solved": None, "retire_hopeless": None, "after_visits": 2, "window": 2,
    "solved_at": None, "revisit": 0.0,
}  # fmt: skip


def curriculum(**rule: Any) -> Curriculum:
    order = TaskOrder(TASKS, seed=1, shuffle=True)
    return Curriculum(order, CurriculumRule(**{**OFF, **rule}), TASKS, seed=7)


def visits(rates: dict[str, float], times: int = 2) -> list[Visit]:
    return [Visit(slug=slug, rewards=(rate, rate)) for _ in range(times) for slug, rate in rates.items()]


def dealt(order: Curriculum, groups: range = range(4000)) -> Counter[str]:
    return Counter(order.task(group).slug for group in groups)


def test_tasks_that_nobody_has_tried_come_in_the_order_without_a_curriculum() -> None:
    plain = TaskOrder(TASKS, seed=1, shuffle=True)

    asked = curriculum(near_half=True, skip_solved=0.9, retire_hopeless=0.1)

    assert [asked.task(n) for n in range(100)] == [plain.task(n) for n in range(100)]


def test_solved_tasks_are_skipped_and_hopeless_ones_retired_after_enough_visits() -> None:
    order = curriculum(skip_solved=0.9, retire_hopeless=0.1)
    order.consume(visits({"0": 1.0, "1": 0.0}, times=1))
    assert set(dealt(order)) == {str(i) for i in range(10)}

    order.consume(visits({"0": 1.0, "1": 0.0, "2": 0.5}, times=1))

    found = dealt(order)
    assert set(found) == {str(i) for i in range(2, 10)}
    assert max(found.values()) - min(found.values()) < 0.1 * 4000 / 8
    assert order.counts() == {"new": 7, "learning": 1, "solved": 1, "hopeless": 1, "solve_rate": 0.5}


def test_a_skipped_task_is_revisited_now_and_then_and_comes_back_when_it_is_forgotten() -> None:
    order = curriculum(skip_solved=0.9, revisit=0.1)
    order.consume(visits({"0": 1.0}))
    assert dealt(order)["0"] == pytest.approx(4000 * 0.1 / 9.1, rel=0.3)

    order.consume(visits({"0": 0.5}))

    assert dealt(order)["0"] == 400


def test_the_nearer_to_one_half_the_more_often_a_task_is_attempted() -> None:
    order = curriculum(near_half=True, revisit=0.05)
    rates = {str(i): i / 9 for i in range(10)}
    order.consume(visits(rates))

    found = dealt(order, range(40_000))

    weights = {slug: max(4 * rate * (1 - rate), 0.05) for slug, rate in rates.items()}
    for slug, weight in weights.items():
        assert found[slug] == pytest.approx(40_000 * weight / sum(weights.values()), rel=0.1)


def test_only_the_last_visits_count_and_a_reward_can_stand_for_solving() -> None:
    order = curriculum(skip_solved=0.9, solved_at=0.8)
    order.consume(visits({"0": 0.0}, times=5))
    order.consume(visits({"0": 0.85}))

    assert order.counts()["solved"] == 1
    order.consume([Visit(slug="0", rewards=(0.79, 0.85))])
    assert order.counts()["solved"] == 0


def test_a_group_that_nobody_graded_says_nothing_about_its_task() -> None:
    order = curriculum(retire_hopeless=0.1)
    order.consume([Visit(slug="0", rewards=())] * 5)

    assert order.counts()["new"] == 10


def test_the_tasks_depend_on_what_was_consumed_and_not_on_what_was_asked_for() -> None:
    rule = {"near_half": True, "skip_solved": 0.9, "retire_hopeless": 0.1}
    first, resumed = curriculum(**rule), curriculum(**rule)
    steps = [visits({"0": 1.0, "1": 0.0, "2": 0.2}, times=1), visits({"0": 1.0, "1": 0.0, "3": 0.9}, times=1)]
    for step in steps:
        dealt(first, range(50))
        first.consume(step)

    resumed.consume([visit for step in steps for visit in step])

    assert [resumed.task(n) for n in reversed(range(200))] == [first.task(n) for n in range(200)][::-1]


def test_when_every_task_is_retired_the_run_goes_on_with_the_plain_order() -> None:
    order = curriculum(retire_hopeless=0.5)
    order.consume(visits({task.slug: 0.0 for task in TASKS}))

    assert set(dealt(order).values()) == {400}


def test_a_position_of_one_source_goes_to_tasks_of_that_source() -> None:
    parts = [TASKS[:5], TASKS[5:]]
    mixture = MixedOrder([TaskOrder(part, seed=1, shuffle=True) for part in parts], weights=[3, 1], seed=1)
    order = Curriculum(mixture, CurriculumRule(**{**OFF, "retire_hopeless": 0.1}), TASKS, seed=7)
    order.consume(visits(dict.fromkeys("0123", 0.0)))

    found = dealt(order)

    assert found["4"] == pytest.approx(3000, abs=2)
    assert set(found) == set("456789")
