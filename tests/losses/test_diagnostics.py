from __future__ import annotations

import math

import pytest
import torch

from hud_orchestrator.losses.client.differentiate import weights_of
from hud_orchestrator.losses.client.registry import CLIENT_LOSSES, resolve
from tests.losses.datums import leaves_of, moved

DATA = [
    moved([0.5, 1.1, 2.0], reward=1.0, traj_idx=0, observed=2),
    moved([0.5, 3.0], reward=0.0, traj_idx=1),
]
RATIOS = [0.5, 1.1, 2.0, 0.5, 3.0]
LOGPROBS = [-0.9, -1.0, -1.1, -0.7, -0.8]


@pytest.mark.parametrize("name", CLIENT_LOSSES)
def test_every_loss_reports_the_distance_from_the_sampling_policy(name: str) -> None:
    loss, metrics = CLIENT_LOSSES[name].function(DATA, leaves_of(DATA))
    assert metrics["loss"] == pytest.approx(float(loss.detach()))
    assert metrics["ratio_mean"] == pytest.approx(sum(RATIOS) / 5)
    assert metrics["ratio_max"] == pytest.approx(3.0)
    assert metrics["kl_k1"] == pytest.approx(-sum(map(math.log, RATIOS)) / 5)
    assert metrics["kl_k3"] == pytest.approx(sum(r - 1 - math.log(r) for r in RATIOS) / 5)
    assert metrics["entropy_estimate"] == pytest.approx(-sum(LOGPROBS) / 5)
    sampled = [lp - math.log(r) for lp, r in zip(LOGPROBS, RATIOS, strict=True)]
    assert metrics["sampling_logprob_mean"] == pytest.approx(sum(sampled) / 5)
    assert metrics["tokens"] == 5
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize(
    ("name", "settings", "outside", "effective"),
    [
        ("importance_sampling", {}, 0, 5),
        # Outside: 0.5, 2.0, 0.5, 3.0. Silent: 2.0 of the winner, 0.5 of the loser.
        ("ppo", {}, 4, 3),
        ("ppo", {"dual_clip": 2.5}, 4, 2),
        ("double_sided", {}, 4, 1),
        ("cispo", {"clip_high_threshold": 1.5}, 2, 5),
        ("tis", {}, 1, 5),
        ("icepop", {"mask_below": 0.6}, 2, 3),
        ("dro", {}, 0, 5),
        # Means of 1.03 and 1.22: the winner's is within 1.04, the loser's is not, but may fall.
        ("gspo", {"eps_high": 0.04}, 2, 5),
        ("gspo", {"eps_high": 0.01}, 5, 2),
        ("ppo", {"kl": 0.1}, 4, 5),
    ],
)
def test_the_shares_tell_what_was_clipped_and_what_still_learns(
    name: str, settings: dict[str, float], outside: int, effective: int
) -> None:
    _, metrics = CLIENT_LOSSES[name].function(DATA, leaves_of(DATA), **settings)
    assert metrics["clipped_share"] == pytest.approx(outside / 5)
    assert metrics["effective_tokens"] == effective


def test_equal_rewards_leave_no_effective_token() -> None:
    data = [moved([1.1, 0.9], reward=0.5, traj_idx=index) for index in range(3)]
    result = weights_of(resolve("ppo", {}), data)
    assert result.metrics["effective_tokens"] == 0
    assert not any(any(row) for row in result.weights)


def test_a_loss_can_be_evaluated_without_a_gradient() -> None:
    with torch.no_grad():
        loss, metrics = CLIENT_LOSSES["gspo"].function(DATA, leaves_of(DATA))
    assert metrics["loss"] == float(loss)
    assert "effective_tokens" not in metrics
