from __future__ import annotations

from typing import Literal

import pytest

from hud_orchestrator.rules.schedule import Schedule


def schedule(shape: Literal["constant", "linear", "cosine"], *, warmup: int = 4) -> Schedule:
    return Schedule(peak=1.0, final=0.2, warmup_steps=warmup, total_steps=12, shape=shape)


def test_the_warm_up_rises_linearly_to_the_peak() -> None:
    assert [schedule("cosine").learning_rate(step) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("shape", "half_way"), [("constant", 1.0), ("linear", 0.6), ("cosine", 0.6)])
def test_the_rate_goes_from_peak_to_final(
    shape: Literal["constant", "linear", "cosine"], half_way: float
) -> None:
    rate = schedule(shape).learning_rate

    assert rate(8) == pytest.approx(half_way)
    assert rate(12) == pytest.approx(1.0 if shape == "constant" else 0.2)
    assert rate(5) > rate(11) or shape == "constant"


def test_the_cosine_starts_flat_and_the_linear_does_not() -> None:
    assert schedule("cosine").learning_rate(5) > schedule("linear").learning_rate(5)


def test_without_a_warm_up_the_first_step_is_close_to_the_peak() -> None:
    assert schedule("linear", warmup=0).learning_rate(1) == pytest.approx(1 - 0.8 / 12)


def test_the_last_rate_is_never_zero_because_a_step_needs_one() -> None:
    to_zero = Schedule(peak=1e-3, final=0.0, warmup_steps=0, total_steps=10, shape="linear")

    assert 0 < to_zero.learning_rate(10) < 1e-8
