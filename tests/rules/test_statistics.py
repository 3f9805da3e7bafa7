"""Intervals against simulation and tables, pass@k against counting, scores against hand-made attempts."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import pytest

from hud_orchestrator.records import Outcome, Rollout
from hud_orchestrator.rules.scores import difference, scores
from hud_orchestrator.rules.statistics import Estimate, clustered_mean, pass_at_k, t_quantile
from tests.builders import rollout


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 3, 3.182), (0.975, 5, 2.571), (0.975, 30, 2.042),
     (0.95, 4, 2.132), (0.995, 10, 3.169), (0.025, 7, -2.365)],
)  # fmt: skip
def test_students_t_is_that_of_the_tables(share: float, freedom: int, value: float) -> None:
    assert t_quantile(share, freedom) == pytest.approx(value, rel=0.01)


def holds(estimate: Estimate | None, value: float) -> bool:
    assert estimate is not None
    assert estimate.interval is not None
    return estimate.interval[0] <= value <= estimate.interval[1]


def test_an_interval_holds_the_true_mean_as_often_as_it_says_although_attempts_are_alike() -> None:
    rnd = random.Random(5)
    held = naive = 0
    for _ in range(600):
        tasks = []
        for _ in range(12):
            skill = rnd.betavariate(1, 1)
            tasks.append([float(rnd.random() < skill) for _ in range(8)])
        estimate = clustered_mean(tasks)
        one_by_one = clustered_mean([[value] for task in tasks for value in task])
        held += holds(estimate, 0.5)
        naive += holds(one_by_one, 0.5)

    assert 0.92 < held / 600 < 0.98
    assert naive / 600 < 0.9


def test_there_is_no_interval_where_there_is_no_spread_to_see() -> None:
    assert clustered_mean([]) is None
    assert clustered_mean([[]]) is None
    single = clustered_mean([[0.5]])
    assert single is not None
    assert (single.mean, single.interval) == (0.5, None)


@pytest.mark.parametrize(("attempts", "solved"), [(1, 0), (1, 1), (5, 2), (6, 1), (6, 6), (7, 0)])
def test_pass_at_k_is_the_share_of_choices_with_a_solution(attempts: int, solved: int) -> None:
    ended = [True] * solved + [False] * (attempts - solved)
    for k in range(1, attempts + 1):
        assert pass_at_k(attempts, solved, k) == pytest.approx(fmean(map(any, combinations(ended, k))))


def test_pass_at_more_than_was_attempted_is_not_defined() -> None:
    with pytest.raises(ValueError, match="pass@4 of 1 solved in 3 attempts"):
        pass_at_k(3, 1, 4)


def attempt(task: int, member: int, reward: float | None, **more: object) -> Rollout:
    made = rollout(task, member, reward=reward)
    columns = {"difficulty": "easy" if task == 0 else "hard"}
    named = replace(made.ticket.task, slug=f"task-{task}", columns=columns)
    return replace(made, ticket=replace(made.ticket, task=named), **more)  # type: ignore[arg-type]


def test_a_failed_attempt_is_in_no_mean_and_is_counted_with_its_reason() -> None:
    lost = attempt(1, 1, None, outcome=Outcome.LOST, detail="the sandbox died")
    scored = scores([attempt(1, 0, 1.0), lost, attempt(0, 0, 1.0), attempt(0, 1, 1.0)], solved_at=1.0)

    assert scored.reward is not None
    assert scored.reward.mean == 1.0
    assert (scored.attempts, scored.graded) == (4, 3)
    assert scored.failures == {Outcome.LOST: (1, "the sandbox died")}
    assert scored.tasks == {"task-0": (1.0, 1.0), "task-1": (1.0,)}


def test_when_everything_failed_there_is_no_mean_at_all() -> None:
    scored = scores([attempt(0, 0, None, outcome=Outcome.NOT_STARTED)], solved_at=1.0)
    assert (scored.reward, scored.pass_at, scored.graded) == (None, {}, 0)
    assert scored.tasks == {"task-0": ()}


def test_rewards_are_summed_up_by_column_and_pass_at_k_for_powers_of_two_and_all() -> None:
    made = [attempt(task, member, float(member < 2 + task)) for task in (0, 1) for member in range(6)]
    scored = scores(made, solved_at=1.0)

    assert {value: one.mean for value, one in scored.columns["difficulty"].items()} == {
        "easy": pytest.approx(2 / 6), "hard": pytest.approx(3 / 6),
    }  # fmt: skip
    assert list(scored.pass_at) == [1, 2, 4, 6]
    assert scored.pass_at[1] == pytest.approx(5 / 12)
    assert scored.pass_at[6] == 1.0


def test_subscores_inside_others_have_the_names_of_both() -> None:
    inner = {"name": "tests", "value": 0.5, "children": None}
    grade = {"score": 1.0, "subscores": [{"name": "code", "value": 0.8, "children": [inner]}]}
    scored = scores([attempt(0, 0, 1.0, grade=grade), attempt(0, 1, 1.0)], solved_at=1.0)

    assert {name: one.mean for name, one in scored.subscores.items()} == {"code": 0.8, "code/tests": 0.5}


def test_a_difference_is_taken_task_by_task_over_what_both_have() -> None:
    first = scores([attempt(t, 0, 0.1 * t) for t in range(5)], solved_at=1.0)
    second = scores([attempt(t, 0, 0.1 * t + 0.2) for t in range(4)], solved_at=1.0)
    found = difference(second, first)

    assert found is not None
    assert found.interval == pytest.approx((0.2, 0.2))
    assert found.clusters == 4
