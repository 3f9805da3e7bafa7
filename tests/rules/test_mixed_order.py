"""Several tasksets, interleaved by weight."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from hud_orchestrator.records import Task
from hud_orchestrator.rules.order import MixedOrder, TaskOrder
from tests.builders import TASK


def tasks(prefix: str, count: int) -> list[Task]:
    return [replace(TASK, slug=f"{prefix}{i}") for i in range(count)]


def mixed(weights: dict[str, float], *, seed: int = 1, size: int = 5) -> MixedOrder:
    orders = [TaskOrder(tasks(prefix, size), seed=seed, shuffle=True) for prefix in weights]
    return MixedOrder(orders, weights=list(weights.values()), seed=seed)


def sources(order: MixedOrder, groups: range) -> str:
    return "".join(order.task(group).slug[0] for group in groups)


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 3, "b": 1e-3}])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_after_any_number_of_groups_every_source_has_had_its_share(
    weights: dict[str, float], seed: int
) -> None:
    seen = sources(mixed(weights, seed=seed), range(2000))

    for count in range(1, 2001, 7):
        had = Counter(seen[:count])
        for prefix, weight in weights.items():
            # A source is off by less than one for every split on its way.
            assert abs(had[prefix] - count * weight / sum(weights.values())) < len(weights)


def test_every_source_is_read_in_epochs_of_its_own() -> None:
    order = mixed({"a": 1, "b": 3})
    seen = [order.task(group).slug for group in range(80)]

    of_b = [slug for slug in seen if slug[0] == "b"]
    assert {frozenset(of_b[i : i + 5]) for i in range(0, 60, 5)} == {frozenset(f"b{i}" for i in range(5))}


def test_any_position_can_be_read_at_once() -> None:
    order = mixed({"a": 0.3, "b": 0.3, "c": 0.4})
    forwards = [order.task(group) for group in range(500)]

    fresh = mixed({"a": 0.3, "b": 0.3, "c": 0.4})
    assert [fresh.task(group) for group in reversed(range(500))] == forwards[::-1]
    assert fresh.task(10**15).slug[0] in "abc"


def test_another_seed_begins_elsewhere() -> None:
    assert len({sources(mixed({"a": 1, "b": 2.5}, seed=seed), range(20)) for seed in range(10)}) > 1
