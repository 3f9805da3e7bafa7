"""When a guard fires, and how often."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hud_orchestrator.rules.guards import GuardRule, Point, figure, lowered, not_finite, tripped

HIGH = GuardRule(name="high", metric="kl", above=0.5)


def points(*values: float, first: int = 1) -> list[Point]:
    return [Point(step=n, taken=n, value=value) for n, value in enumerate(values, first)]


def firings(rule: GuardRule, series: list[Point]) -> list[int]:
    """The steps at which *rule* fires while *series* goes on."""
    fired: list[int] = []
    for count in range(1, len(series) + 1):
        if tripped(rule, series[:count], fired_at=fired[-1] if fired else None) is not None:
            fired.append(series[count - 1].taken)
    return fired


def test_a_condition_has_to_hold_in_a_row() -> None:
    rule = replace(HIGH, in_a_row=2)

    assert firings(rule, points(1.0, 0.1, 1.0, 0.1, 1.0)) == []
    assert firings(rule, points(0.1, 1.0, 1.0)) == [3]
    # What made it fire does not count again.
    assert firings(rule, points(1.0, 1.0, 1.0, 1.0, 1.0)) == [2, 4]


def test_it_is_silent_while_it_cools_down() -> None:
    assert firings(replace(HIGH, cool_down=3), points(*[1.0] * 8)) == [1, 4, 7]


@pytest.mark.parametrize(
    ("rule", "series", "fires"),
    [
        (replace(HIGH, rearm=0.3), (0.6, 0.6, 0.4, 0.6, 0.3, 0.6), [1, 6]),
        (
            GuardRule(name="low", metric="entropy", below=0.1, rearm=0.2),
            (0.05, 0.15, 0.05, 0.2, 0.05),
            [1, 5],
        ),
        (
            GuardRule(name="fall", metric="eval.reward", falls_below_best=0.25, rearm=0.125),
            (1.0, 0.5, 0.8, 0.5, 0.875, 0.5),
            [2, 6],
        ),
    ],
)
def test_a_figure_that_wavers_about_its_bound_fires_once(
    rule: GuardRule, series: tuple[float, ...], fires: list[int]
) -> None:
    assert firings(rule, points(*series)) == fires
    assert len(firings(replace(rule, rearm=None), points(*series))) > len(fires)


def test_a_rollback_has_brought_the_figure_back() -> None:
    rule = GuardRule(name="fall", metric="eval.reward", falls_below_best=0.1, rearm=0.05, action="roll_back")
    # It fired at step 2, and the run went back to step 1 and took one step since, its third.
    line = [Point(step=1, taken=1, value=1.0), Point(step=2, taken=3, value=0.5)]

    assert tripped(rule, line, fired_at=2, fired_on=2) is not None
    # One that it did not go back from has to come back by itself.
    stayed = [Point(step=1, taken=1, value=1.0), Point(step=2, taken=2, value=0.5), line[1]]
    assert tripped(rule, stayed, fired_at=2, fired_on=2) is None
    # Nor has one that was fired on later than it was measured, as at a start with a new guard.
    late = [Point(step=2, taken=2, value=0.5), Point(step=6, taken=6, value=0.5)]
    assert tripped(rule, [Point(step=1, taken=1, value=1.0), *late], fired_at=4, fired_on=2) is None


def test_cooling_down_counts_steps_that_were_taken_and_not_their_numbers() -> None:
    rule = replace(HIGH, cool_down=4)
    # It fired after step 6, the run went back to step 3, and has taken one step since: its seventh.
    series = [*points(1.0, 1.0, 1.0), Point(step=4, taken=7, value=1.0)]

    assert tripped(rule, series, fired_at=6) is None
    series += [Point(step=n, taken=n + 3, value=1.0) for n in (5, 6, 7)]
    assert tripped(rule, series[:-1], fired_at=6) is None
    assert tripped(rule, series, fired_at=6) is not None


@pytest.mark.parametrize(
    ("rule", "fires", "does_not"),
    [
        (HIGH, 0.51, 0.5),
        (GuardRule(name="low", metric="entropy", below=0.1), 0.09, 0.1),
        (GuardRule(name="zero", metric="entropy", below=0.0), -0.01, 0.0),
        (GuardRule(name="wild", metric="loss", not_finite=True), math.nan, 1e30),
        (GuardRule(name="wild", metric="loss", not_finite=True), math.inf, -1e30),
    ],
)
def test_the_bound_itself_is_allowed(rule: GuardRule, fires: float, does_not: float) -> None:
    assert tripped(rule, points(fires), fired_at=None) is not None
    assert tripped(rule, points(does_not), fired_at=None) is None


def test_a_fall_is_measured_from_the_best_so_far() -> None:
    rule = GuardRule(name="fall", metric="eval.reward", falls_below_best=0.25, in_a_row=2)

    assert firings(rule, points(0.5, 1.0, 0.75, 0.75)) == [4]
    assert firings(rule, points(0.5, 1.0, 0.875, 0.75)) == []
    assert firings(rule, points(0.5, 0.25)) == []  # once is not twice


def test_it_says_what_it_saw() -> None:
    rule = GuardRule(name="fall", metric="eval.reward", falls_below_best=0.25, in_a_row=2)

    assert (
        tripped(rule, points(0.5, 1.0, 0.75, 0.625), fired_at=None)
        == "eval.reward 0.625 is 0.25 or more below the best, 1, 2 times in a row"
    )
    assert tripped(HIGH, points(0.75), fired_at=None) == "kl 0.75 is above 0.5"


def test_factors_add_up_to_a_floor_and_no_further() -> None:
    rule = replace(HIGH, factor=0.5, least_scale=0.2)

    scales = [1.0]
    for _ in range(4):
        scales.append(lowered(scales[-1], rule))
    assert scales == [1.0, 0.5, 0.25, 0.2, 0.2]
    # Another guard has lowered it further; this one does not raise it.
    assert lowered(0.1, rule) == 0.1


def test_a_figure_goes_by_the_names_that_losses_have_for_it() -> None:
    assert figure("loss", {"loss:sum": 2.0}) == 2.0
    assert figure("loss", {"loss": 1.0, "loss:sum": 2.0}) == 1.0
    assert figure("kl", {"kl_k1": 1.0, "kl_k3": 0.0}) == 0.0
    assert figure("grad_norm", {}) is None


@pytest.mark.parametrize(("best", "value", "fall"), [(0.3, 0.2, 0.1), (0.7, 0.5, 0.2), (0.8, 0.7, 0.1)])
def test_a_fall_by_just_so_much_is_one_whatever_the_last_bits_say(
    best: float, value: float, fall: float
) -> None:
    rule = GuardRule(name="fall", metric="eval.reward", falls_below_best=fall)

    assert tripped(
        rule,
        [Point(step=step, taken=step, value=v) for step, v in enumerate((best, value), 1)],
        fired_at=None,
    )
    assert not tripped(
        rule,
        [Point(step=step, taken=step, value=v) for step, v in enumerate((best, value + 1e-6), 1)],
        fired_at=None,
    )


def test_a_figure_that_was_told_and_is_finite_is_not_why_a_step_is_refused() -> None:
    assert not_finite({}) == {"loss", "grad_norm"}
    assert not_finite({"loss:sum": 0.5}) == {"grad_norm"}
    assert not_finite({"loss:sum": math.inf, "grad_norm": 1.0}) == {"loss"}
