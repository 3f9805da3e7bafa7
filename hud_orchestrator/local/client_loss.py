"""A loss on the client's side: the tensors that it needs, and the batch that its gradient makes.

The client computes a loss C of the log-probabilities that ``forward`` gave it, and sends back
``weights = -dC/dlogprobs``. The linear loss ``-sum(weights * logprobs)`` has the same gradient in
them, and so, by the chain rule, the same gradient in the parameters. ``backward`` computes that
one anew; nothing but token ids is kept in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from hud_orchestrator.local.datums import Batch, Datum, Limits, read_datums
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.losses.registry import BuiltIn
from hud_orchestrator.wire import BackwardRequest, DatumTensors, ForwardRequest, TrajectoryPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A checked ``forward``: what a ``backward`` needs to know of it."""

    datums: list[Datum]
    """Without credit, which the client has yet to give."""
    rewards: list[float]
    """As they were sent, before scaling. One per trajectory."""
    reward_scale: float
    group_size: int | None


def read_forward(
    request: ForwardRequest, trajectories: Sequence[TrajectoryPayload], limits: Limits
) -> Forward:
    """Check everything about *request* that can be checked without computing.

    Sampling log-probabilities are demanded, for a loss that compares with made-up ones would be wrong
    without a word. A client whose loss ignores them sends zeros.

    Raises:
        Refused: 422, with the place and the number that is wrong.
    """
    return Forward(
        datums=read_datums(request, trajectories, limits, needs_logprobs=True),
        rewards=[trajectory.reward for trajectory in trajectories],
        reward_scale=request.reward_scale,
        group_size=request.group_size,
    )


def tensors_of(forward: Forward, logprobs: Sequence[list[float]]) -> list[DatumTensors]:
    """What ``forward`` answers. *logprobs*: one list per datum, of shape [prompt + output - 1]."""
    size = forward.group_size
    return [
        DatumTensors(
            reward=forward.rewards[datum.trajectory] * forward.reward_scale,
            traj_idx=datum.trajectory,
            group_idx=None if size is None else datum.trajectory // size,
            logprobs=current,
            sampling_logprobs=[0.0] * (len(datum.prompt) - 1) + list(datum.sampling_logprobs),
            mask=[0.0] * (len(datum.prompt) - 1) + [1.0] * len(datum.output),
        )
        for datum, current in zip(forward.datums, logprobs, strict=True)
    ]


def weigh(forward: Forward, request: BackwardRequest) -> Batch:
    """The batch whose gradient a ``backward`` adds.

    A weight on a token that the policy did not choose is refused: leaving it out would train on
    another loss than the client's.

    Raises:
        Refused: 422, with the datum and the number that is wrong.
    """
    given, datums = request.weights, forward.datums
    if len(given) != len(datums):
        raise Refused(422, f"weights: {len(given)} lists for the {len(datums)} datums of this forward")
    return Batch(
        datums=[
            replace(datum, credit=_credit(datum, weights, where=f"weights[{index}]"))
            for index, (datum, weights) in enumerate(zip(datums, given, strict=True))
        ],
        rewards=forward.rewards,
        loss=_CLIENT_LOSS,
        config={},
    )


def _credit(datum: Datum, weights: list[float], *, where: str) -> list[float]:
    observed = len(datum.prompt) - 1
    length = observed + len(datum.output)
    if len(weights) != length:
        raise Refused(422, f"{where} has {len(weights)} numbers, its datum has {length} logprobs")
    for position, weight in enumerate(weights):
        if not math.isfinite(weight):
            raise Refused(422, f"{where}[{position}] is not a finite number: {weight}")
        if position < observed and weight:
            raise Refused(422, f"{where}[{position}] is {weight} where mask is 0; multiply the loss by mask")
    return weights[observed:]


def _weighted(
    logprobs: Tensor,
    sampling_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: Mapping[str, float],
) -> Tensor:
    """``-sum(weights * logprobs)``; the weights come in the advantages' place."""
    del sampling_logprobs, config
    return -(mask * advantages * logprobs).sum()


_CLIENT_LOSS = BuiltIn(name="custom", compute=_weighted)
"""Not in the registry, for no request may name it."""
