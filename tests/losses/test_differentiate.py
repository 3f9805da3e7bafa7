from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hud_orchestrator.losses.client.differentiate import weights_of
from hud_orchestrator.losses.client.registry import CLIENT_LOSSES, resolve
from hud_orchestrator.losses.unusable import LossUnusable
from hud_orchestrator.wire import DatumTensors
from tests.losses.datums import Datum, moved, random_batch

DATA = [moved([1.1, 0.9], reward=1.0, traj_idx=0, observed=1), moved([1.2], reward=0.0, traj_idx=1)]


def total(leaves: list[Tensor]) -> Tensor:
    return torch.cat(leaves).sum()


def test_a_loss_written_for_the_sdk_gives_the_weights_of_the_contract() -> None:
    """The contract's own example: log-ratio 0.1, reward 1, so exp(0.1) on actions and 0 elsewhere."""

    def loss_fn(data: list[Any], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, Any]]:
        assert isinstance(data, list)
        loss = torch.zeros(())
        for datum, lp in zip(data, logprobs, strict=True):
            assert lp.is_leaf
            assert lp.dtype == torch.float32
            q, mask = torch.tensor(datum.sampling_logprobs), torch.tensor(datum.mask)
            loss = loss - ((lp - q).exp() * datum.reward * mask).sum()
        return loss, {"masked_tokens": 7, "mean": torch.tensor(0.5), "wild": math.nan}

    data = [
        DatumTensors(
            reward=1.0,
            traj_idx=0,
            logprobs=[-2.0, -1.0, -0.5],
            sampling_logprobs=[0.0, -1.1, -0.6],
            mask=[0.0, 1.0, 1.0],
        )
    ]
    result = weights_of(loss_fn, data)
    assert result.weights[0] == pytest.approx([0.0, 1.10517, 1.10517], rel=1e-5)
    assert result.loss == pytest.approx(-2.21034, rel=1e-5)
    assert result.metrics == {"masked_tokens": 7.0, "mean": 0.5, "loss": result.loss}
    assert result.dropped == ("wild",)


def test_the_figure_called_loss_is_left_as_the_loss_gave_it() -> None:
    result = weights_of(lambda data, leaves: (total(leaves), {"loss": 42}), DATA)
    assert result.metrics == {"loss": 42.0}
    assert result.weights == [[-1.0, -1.0, -1.0], [-1.0]]


@pytest.mark.parametrize("name", CLIENT_LOSSES)
def test_the_weights_are_minus_the_gradient_for_every_loss(name: str) -> None:
    data = random_batch(2)
    leaves = [torch.tensor(datum.logprobs).requires_grad_() for datum in data]
    CLIENT_LOSSES[name].function(data, leaves)[0].backward()
    weights = weights_of(resolve(name, {}), data).weights
    for row, leaf in zip(weights, leaves, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(torch.tensor(row), -leaf.grad, rtol=0, atol=0)


def raising(data: list[Any], leaves: list[Tensor]) -> tuple[Tensor, dict[str, Any]]:
    return data[7], {}


@pytest.mark.parametrize(
    ("loss_fn", "complaint"),
    [
        (lambda data, leaves: total(leaves), r"must return \(loss, metrics\), got a tensor of torch.float32"),
        (lambda data, leaves: (1.0, {}), "must be a scalar tensor, got float"),
        (lambda data, leaves: (leaves[0], {}), r"must be a scalar tensor, got a tensor .* shape \(3,\)"),
        (lambda data, leaves: (total(leaves).detach(), {}), "does not depend on any logprobs"),
        (
            lambda data, leaves: (leaves[0].sum(), {}),
            r"does not depend on the logprobs of datum 1 \(1 of 2\)",
        ),
        (lambda data, leaves: (total(leaves) / 0, {}), "datum 0, position 0 is inf, and the loss is -inf"),
        (
            lambda data, leaves: (leaves[0].sum() + (leaves[1] + 0.7).clamp(max=0).sqrt().sum(), {}),
            "datum 1, position 0 is inf",
        ),
        (
            lambda data, leaves: (total(leaves) + math.inf, {}),
            "the loss is inf, though its gradient is finite",
        ),
        (lambda data, leaves: (total(leaves), {"name": "ppo"}), "metric 'name' must be a number, got 'ppo'"),
        (lambda data, leaves: (total(leaves), {"all": [1.0]}), "metric 'all' must be a number"),
        (lambda data, leaves: (total(leaves), {3: 1.0}), "the name of a metric must be a string, got 3"),
        (raising, "loss raising: IndexError: list index out of range"),
    ],
)
def test_a_loss_that_cannot_be_used_is_told_in_one_line(loss_fn: Callable[..., Any], complaint: str) -> None:
    with pytest.raises(LossUnusable, match=complaint) as refused:
        weights_of(loss_fn, DATA)
    assert "\n" not in str(refused.value)


def test_there_must_be_something_to_differentiate() -> None:
    with pytest.raises(ValueError, match="no datums"):
        weights_of(resolve("ppo", {}), [])


def test_an_overflowing_ratio_is_named_before_anything_is_sent() -> None:
    data = [*DATA, Datum(reward=1.0, traj_idx=2, sampling_logprobs=[-9000.0])]
    with pytest.raises(
        ValueError, match="loss importance_sampling: the gradient at datum 2, position 0 is -inf"
    ):
        weights_of(resolve("importance_sampling", {}), data)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ({"mask": [1.0, 1.0]}, "datum 2: logprobs have length 1, mask has 2"),
        ({"sampling_logprobs": []}, "datum 2: logprobs have length 1, sampling_logprobs has 0"),
        ({"mask": [0.5]}, "datum 2, position 0: mask must be 0 or 1, got 0.5"),
        ({"logprobs": [math.nan]}, "datum 2, position 0: logprobs must be a finite number, got nan"),
        (
            {"sampling_logprobs": [-math.inf]},
            "datum 2, position 0: sampling_logprobs must be a finite number",
        ),
        ({"reward": math.inf}, "datum 2: reward must be a finite number, got inf"),
    ],
)
def test_a_damaged_datum_is_named(broken: dict[str, Any], complaint: str) -> None:
    datum = Datum(**({"reward": 1.0, "traj_idx": 2} | broken))
    with pytest.raises(ValueError, match=complaint):
        weights_of(resolve("gspo", {}), [*DATA, datum])


def test_a_batch_without_an_action_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 1 positions in 1 datums is an action"):
        weights_of(resolve("dapo", {}), [Datum(reward=1.0, traj_idx=0, mask=[0.0])])


@pytest.mark.parametrize("name", CLIENT_LOSSES)
def test_what_stands_at_observed_positions_cannot_matter(name: str) -> None:
    """Not even NaN, which times 0 would be NaN."""
    damaged = moved([1.1, 0.9], reward=1.0, traj_idx=0, observed=1)
    damaged.logprobs[0] = damaged.sampling_logprobs[0] = math.nan
    bare = Datum(reward=1.0, traj_idx=0, mask=[0.0])
    as_it_was = weights_of(resolve(name, {}), DATA).weights
    assert weights_of(resolve(name, {}), [damaged, bare, DATA[1]]).weights == [
        as_it_was[0],
        [0.0],
        as_it_was[1],
    ]
