from __future__ import annotations

from dataclasses import replace

from hud_orchestrator.rules.order import TaskOrder
from hud_orchestrator.rules.seeds import derive
from tests.builders import TASK

TASKS = [replace(TASK, slug=str(i)) for i in range(50)]


def slugs(order: TaskOrder, groups: range) -> list[str]:
    return [order.task(group).slug for group in groups]


def test_every_epoch_visits_every_task_once_in_an_order_of_its_own() -> None:
    order = TaskOrder(TASKS, seed=1, shuffle=True)
    first, second = slugs(order, range(50)), slugs(order, range(50, 100))

    assert sorted(first) == sorted(second) == sorted(task.slug for task in TASKS)
    assert first != second
    assert first != [task.slug for task in TASKS]


def test_a_position_names_the_same_task_however_it_is_reached() -> None:
    forwards = slugs(TaskOrder(TASKS, seed=1, shuffle=True), range(300))
    order = TaskOrder(TASKS, seed=1, shuffle=True)

    assert [order.task(group).slug for group in reversed(range(300))] == forwards[::-1]


def test_another_seed_gives_another_order() -> None:
    orders = {tuple(slugs(TaskOrder(TASKS, seed=seed, shuffle=True), range(50))) for seed in range(10)}

    assert len(orders) == 10


def test_without_shuffling_the_taskset_is_read_as_it_stands() -> None:
    assert slugs(TaskOrder(TASKS, seed=1, shuffle=False), range(55)) == [str(i % 50) for i in range(55)]


def test_derived_seeds_differ_by_every_word_and_fit_31_bits() -> None:
    seeds = {
        derive(s, p, g, m) for s in (0, 1) for p in ("train", "eval") for g in range(20) for m in range(20)
    }

    assert len(seeds) == 2 * 2 * 20 * 20
    assert all(0 <= seed < 2**31 for seed in seeds)
