from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hud_orchestrator.losses.registry import BUILT_IN

RATIOS = torch.tensor([0.5, 0.9, 1.0, 1.1, 5.0, 1.5], dtype=torch.float64)
ADVANTAGES = torch.tensor([-1.0, 0.5, 2.0, -0.5, 1.0, -2.0], dtype=torch.float64)
MASK = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
LOGPROBS = torch.tensor([-1.0, -2.0, -0.5, -3.0, -1.5, -0.1], dtype=torch.float64)
SAMPLING = LOGPROBS - RATIOS.log()

EXPECTED = {
    "cross_entropy": -MASK,
    "importance_sampling": -MASK * RATIOS * ADVANTAGES,
    # Silent where clipping makes the objective worse: A < 0 below 0.8, A > 0 above 1.2.
    "ppo": -MASK * RATIOS * ADVANTAGES * torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 1.0]),
    "cispo": -MASK * RATIOS.clamp(0.0, 4.0) * ADVANTAGES,
    "dro": -MASK * (ADVANTAGES - 0.05 * (LOGPROBS - SAMPLING)),
}


def loss_at(name: str, logprobs: Tensor) -> Tensor:
    built_in = BUILT_IN[name]
    return built_in.compute(logprobs, SAMPLING, ADVANTAGES, MASK, built_in.configure({}))


def gradient(name: str) -> Tensor:
    leaf = LOGPROBS.clone().requires_grad_()
    return torch.autograd.grad(loss_at(name, leaf), leaf)[0]


def test_every_built_in_loss_is_checked_here() -> None:
    assert set(EXPECTED) == set(BUILT_IN)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_gradient_is_the_one_of_the_docstring(name: str) -> None:
    torch.testing.assert_close(gradient(name), EXPECTED[name])


# cispo holds its weight constant, so its loss is no potential of its gradient.
@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"cispo"}))
def test_the_gradient_agrees_with_finite_differences(name: str) -> None:
    width = 1e-6
    slopes = []
    for index in range(len(LOGPROBS)):
        nudge = torch.zeros_like(LOGPROBS)
        nudge[index] = width
        slopes.append((loss_at(name, LOGPROBS + nudge) - loss_at(name, LOGPROBS - nudge)) / (2 * width))
    torch.testing.assert_close(gradient(name), torch.stack(slopes), atol=1e-6, rtol=1e-6)


def test_cispo_is_the_policy_gradient_with_its_weight_frozen() -> None:
    weight = RATIOS.clamp(0.0, 4.0)
    leaf = LOGPROBS.clone().requires_grad_()
    frozen = -(MASK * weight * ADVANTAGES * leaf).sum()
    torch.testing.assert_close(gradient("cispo"), torch.autograd.grad(frozen, leaf)[0])


@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_is_a_sum_so_slices_add_up_to_the_whole(name: str) -> None:
    built_in = BUILT_IN[name]
    parts = [
        built_in.compute(
            *(one[part] for one in (LOGPROBS, SAMPLING, ADVANTAGES, MASK)), built_in.configure({})
        )
        for part in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(parts[0] + parts[1], loss_at(name, LOGPROBS))


@pytest.mark.parametrize(
    ("name", "given", "complaint"),
    [
        ("ppo", {"epsilon": 0.2}, "clip_high_threshold, clip_low_threshold"),
        ("importance_sampling", {"beta": 1.0}, "it knows: none"),
        ("ppo", {"clip_low_threshold": 1.3}, "low <= high"),
        ("dro", {"beta": 0.0}, "above 0"),
        ("dro", {"beta": math.inf}, "finite"),
    ],
)
def test_a_wrong_configuration_is_named(name: str, given: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BUILT_IN[name].configure(given)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        BUILT_IN["ppo"].compute(LOGPROBS, SAMPLING[:1], ADVANTAGES, MASK, BUILT_IN["ppo"].configure({}))
