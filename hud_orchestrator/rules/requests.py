"""A batch as the bodies of training calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from hud_orchestrator.records import Batch, TrainableGroup
from hud_orchestrator.rules.grading import SPREAD_TOLERANCE
from hud_orchestrator.rules.inputs import read_inputs
from hud_orchestrator.wire import DatumTensors, ForwardBackwardRequest, ForwardRequest, OptimStepRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The run file's numbers that travel in training calls."""

    loss: str
    loss_config: Mapping[str, Any] = field(default_factory=dict)
    needs_spread: bool = True
    """Whether a group whose rewards are equal has no gradient."""
    reward_scale: float = 1.0
    substeps: int = 1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float | None = None


def spread(group: TrainableGroup) -> bool:
    """Whether the group's rewards differ, so that it has a gradient under a group-relative loss."""
    rewards = [member.reward for member in group.members]
    return max(rewards) - min(rewards) > SPREAD_TOLERANCE


def forward_backward_requests(batch: Batch, recipe: Recipe) -> list[ForwardBackwardRequest]:
    """One request per group size, because groups are contiguous slices of one length.

    Losses are sums over tokens, so the gradients of the requests add up to the batch's.
    """
    by_size = sorted(batch.groups, key=lambda group: (-len(group.members), group.number))
    return [
        ForwardBackwardRequest(
            inputs=read_inputs((m for group in groups for m in group.members), group_size=size),
            loss_fn=recipe.loss,
            loss_fn_config=dict(recipe.loss_config) or None,
            group_size=size,
            reward_scale=recipe.reward_scale,
            num_substeps=recipe.substeps,
        )
        for size, groups in groupby(by_size, key=lambda group: len(group.members))
    ]


def forward_request(batch: Batch, recipe: Recipe) -> ForwardRequest:
    """One request for the whole batch: a client-side loss may compare all of it."""
    members = [member for group in batch.groups for member in group.members]
    return ForwardRequest(inputs=read_inputs(members, group_size=None), reward_scale=recipe.reward_scale)


def with_groups(data: Sequence[DatumTensors], batch: Batch) -> list[DatumTensors]:
    """Tensors with the index of the group that each belongs to; groups may differ in size."""
    group_of = [index for index, group in enumerate(batch.groups) for _ in group.members]
    return [datum.model_copy(update={"group_idx": group_of[datum.traj_idx]}) for datum in data]


def optim_step_request(recipe: Recipe, *, learning_rate: float) -> OptimStepRequest:
    """The body of a step."""
    return OptimStepRequest(
        learning_rate=learning_rate,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
    )
