from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hud_orchestrator.losses.client.registry import CLIENT_LOSSES, ClientLoss
from tests.losses.datums import Datum, gradient, leaves_of, moved, random_batch

# Two trajectories of one group: the first won in two turns, the second lost in one.
DATA = [
    moved([0.4, 1.1], reward=1.0, traj_idx=0, group_idx=0, observed=2),
    moved([1.5, 6.0], reward=1.0, traj_idx=0, group_idx=0),
    moved([0.4, 0.9, 1.5, 6.0], reward=0.0, traj_idx=1, group_idx=0, observed=1),
]
R = torch.tensor([0.4, 1.1, 1.5, 6.0, 0.4, 0.9, 1.5, 6.0], dtype=torch.float64)
A = torch.tensor([0.5] * 4 + [-0.5] * 4, dtype=torch.float64)
A_STD = A / (0.5 + 1e-6)
BAND = {"eps_low": 0.2, "eps_high": 0.28}
LIVE = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
"""Where a clip of 0.8 and 1.28 leaves a gradient: below 1.28 for the winner, above 0.8 for the loser."""
INSIDE = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
R_0, R_1 = (0.4 * 1.1 * 1.5 * 6.0) ** 0.25, (0.4 * 0.9 * 1.5 * 6.0) ** 0.25
"""1.41 and 1.34: geometric means of each trajectory's ratios, over all of its turns."""


def each(first: float, second: float) -> Tensor:
    return torch.tensor([first] * 4 + [second] * 4, dtype=torch.float64)


CASES: list[tuple[str, dict[str, Any], Tensor]] = [
    ("importance_sampling", {}, -R * A),
    ("ppo", BAND, -R * A * LIVE),
    ("ppo", {"eps_low": 1.0, "eps_high": 0.28}, -R * A * torch.tensor([1, 1, 0, 0, 1, 1, 1, 1])),
    ("ppo", BAND | {"dual_clip": 3.0}, -R * A * LIVE * torch.tensor([1, 1, 1, 1, 1, 1, 1, 0])),
    ("cispo", {}, -R.clamp(0.0, 4.0) * A),
    ("cispo", {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}, -R.clamp(0.8, 1.2) * A),
    ("tis", {}, -R.clamp(max=2.0) * A),
    ("icepop", {}, -R * A * torch.tensor([0, 1, 1, 0, 0, 1, 1, 0])),
    ("icepop", {"mask_below": 0.0, "mask_above": 1.2}, -R * A * torch.tensor([1, 1, 0, 0, 1, 1, 0, 0])),
    ("double_sided", BAND, -R * A * INSIDE),
    ("dro", {}, -(A - 0.05 * R.log())),
    ("dro", {"beta": 0.3}, -(A - 0.3 * R.log())),
    ("dapo", {}, -R * A_STD * LIVE / 8),
    ("dapo", {"advantage": "group"}, -R * A * LIVE / 8),
    ("dr_grpo", BAND | {"max_tokens": 100}, -R * A * LIVE / (2 * 100)),
    ("gspo", {"eps_high": 0.5}, each(-R_0 * 0.5, R_1 * 0.5) / (0.5 + 1e-6) / (2 * 4)),
    # 1.41 is above the bound and silent where it won; 1.34 is above it too, but lost.
    ("gspo", BAND | {"advantage": "group"}, each(0.0, R_1 * 0.5) / (2 * 4)),
]


def test_every_client_loss_has_its_gradient_written_out_here() -> None:
    assert {name for name, _, _ in CASES} == set(CLIENT_LOSSES)


@pytest.mark.parametrize(("name", "settings", "expected"), CASES)
def test_the_gradient_is_the_one_of_the_docstring(
    name: str, settings: dict[str, Any], expected: Tensor
) -> None:
    found = gradient(CLIENT_LOSSES[name].function, DATA, **settings)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


VALUES: list[tuple[str, dict[str, Any], float]] = [
    ("importance_sampling", {}, float(-(R * A).sum())),
    ("ppo", BAND, -0.5 * (0.4 + 1.1 + 1.28 + 1.28) + 0.5 * (0.8 + 0.9 + 1.5 + 6.0)),
    ("ppo", BAND | {"dual_clip": 3.0}, -0.5 * (0.4 + 1.1 + 1.28 + 1.28) + 0.5 * (0.8 + 0.9 + 1.5 + 3.0)),
    ("double_sided", BAND | {"advantage": "plain"}, -1.1),
    ("dapo", {"advantage": "group"}, (-0.5 * 4.06 + 0.5 * 9.2) / 8),
    ("dr_grpo", BAND | {"max_tokens": 100}, (-0.5 * 4.06 + 0.5 * 9.2) / 200),
    ("gspo", BAND | {"advantage": "group"}, (-0.5 * 1.28 + 0.5 * R_1) / 2),
]


@pytest.mark.parametrize(("name", "settings", "expected"), VALUES)
def test_a_loss_that_is_an_objective_has_its_value(
    name: str, settings: dict[str, Any], expected: float
) -> None:
    loss, _ = CLIENT_LOSSES[name].function(DATA, leaves_of(DATA), **settings)
    assert float(loss.detach()) == pytest.approx(expected)


def test_gspo_is_silent_where_a_lost_trajectory_has_become_unlikelier() -> None:
    data = [
        moved([0.9, 1.2], reward=1.0, traj_idx=0),
        moved([0.5, 0.7, 0.8], reward=0.0, traj_idx=1),
    ]
    found = gradient(CLIENT_LOSSES["gspo"].function, data, advantage="group", **BAND)
    mean = (0.9 * 1.2) ** 0.5
    expected = torch.tensor([-mean * 0.5 / 4, -mean * 0.5 / 4, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_gspo_has_the_gradient_of_its_token_form() -> None:
    """stop_gradient(R_s) * pi / stop_gradient(pi) per token, averaged within and then over trajectories."""

    def token_form(data: list[Datum], leaves: list[Tensor]) -> tuple[Tensor, None]:
        lp = torch.cat([leaves[0][2:], leaves[1], leaves[2][1:]])
        ratio = each(R_0, R_1) * (lp - lp.detach()).exp()
        advantages = A / (0.5 + 1e-6)
        objective = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.5) * advantages)
        return -(objective / 4).sum() / 2, None

    settings = {"eps_low": 0.2, "eps_high": 0.5}
    torch.testing.assert_close(
        gradient(token_form, DATA), gradient(CLIENT_LOSSES["gspo"].function, DATA, **settings)
    )


SHARES = {"dapo": 1 / 8, "dr_grpo": 1 / (2 * 1024), "gspo": 1 / (2 * 4)}
SLOPES = {"k1": -torch.ones(8), "k2": R.log(), "k3": R - 1}


@pytest.mark.parametrize("estimator", SLOPES)
@pytest.mark.parametrize("name", CLIENT_LOSSES)
def test_a_kl_penalty_adds_its_slope_under_the_same_normalisation(name: str, estimator: str) -> None:
    function = CLIENT_LOSSES[name].function
    added = gradient(function, DATA, kl=0.3, kl_estimator=estimator) - gradient(function, DATA)
    expected = 0.3 * SHARES.get(name, 1.0) * SLOPES[estimator].double()
    torch.testing.assert_close(added, expected, rtol=1e-9, atol=1e-12)


# Losses that hold their weight constant are no potential of their gradient; with the weights that they
# have at the point, held still by the test, they are.
FROZEN: dict[str, Callable[[Tensor], Tensor]] = {
    "cispo": lambda ratio: ratio.clamp(0.0, 4.0),
    "tis": lambda ratio: ratio.clamp(max=2.0),
    "icepop": lambda ratio: ratio * ((ratio >= 0.5) & (ratio <= 5.0)),
}


def potential(loss: ClientLoss, data: list[Datum], **settings: Any) -> Callable[[list[Tensor]], Tensor]:
    if loss.name not in FROZEN:
        return lambda leaves: loss.function(data, leaves, **settings)[0]
    weigh = FROZEN[loss.name]
    rewards = {datum.traj_idx: datum.reward for datum in data}
    weights = []
    for datum in data:
        members = [rewards[index] for index in rewards if index // 3 == datum.group_idx]
        ratio = (torch.tensor(datum.logprobs) - torch.tensor(datum.sampling_logprobs)).double().exp()
        advantage = datum.reward - sum(members) / len(members)
        weights.append(torch.tensor(datum.mask).double() * weigh(ratio) * advantage)
    return lambda leaves: (
        -torch.stack([(w * leaf).sum() for w, leaf in zip(weights, leaves, strict=True)]).sum()
    )


@pytest.mark.parametrize("name", CLIENT_LOSSES)
def test_the_gradient_agrees_with_finite_differences_on_random_data(name: str) -> None:
    loss, data = CLIENT_LOSSES[name], random_batch(5)
    settings: dict[str, float] = {} if name in FROZEN else {"kl": 0.1}
    if name == "gspo":
        # With its own bounds, nearly every trajectory of such ratios would be silent.
        settings |= {"eps_low": 0.1, "eps_high": 0.1}
    leaves = leaves_of(data)
    found = torch.autograd.grad(loss.function(data, leaves, **settings)[0], leaves)
    value, width = potential(loss, data, **settings), 1e-6
    points = [leaf.detach() for leaf in leaves]
    for number, point in enumerate(points):
        for position in range(len(point)):
            ends = []
            for sign in (1, -1):
                there = [one.clone() for one in points]
                there[number][position] += sign * width
                ends.append(value(there))
            slope = (ends[0] - ends[1]) / (2 * width)
            torch.testing.assert_close(found[number][position], slope, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["ppo", "dapo", "dr_grpo", "gspo", "cispo", "tis", "icepop", "double_sided"])
def test_a_token_that_moved_without_measure_cannot_break_a_bounded_loss(name: str) -> None:
    """A log-ratio of 9000 overflows exp; PPO's minimum of infinity and a bound has the gradient 0 * inf."""
    data = [
        Datum(reward=1.0, traj_idx=0, sampling_logprobs=[-9000.0]),
        moved([1.0], reward=0.0, traj_idx=1),
    ]
    leaves = [torch.tensor(datum.logprobs, requires_grad=True) for datum in data]
    loss, _ = CLIENT_LOSSES[name].function(data, leaves)
    gradients = torch.autograd.grad(loss, leaves)
    assert loss.isfinite()
    assert all(bool(one.isfinite().all()) for one in gradients)
