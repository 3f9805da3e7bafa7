"""A batch as the bodies of training calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from hud_orchestrator.records import Batch, Member, TrainableGroup
from hud_orchestrator.rules.grading import SPREAD_TOLERANCE
from hud_orchestrator.wire import (
    ForwardBackwardRequest,
    OptimStepRequest,
    TrajectoryPayload,
    TrajectorySample,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The run file's numbers that travel in training calls."""

    loss: str
    loss_config: Mapping[str, float] = field(default_factory=dict)
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
            inputs=[_payload(member) for group in groups for member in group.members],
            loss_fn=recipe.loss,
            loss_fn_config=dict(recipe.loss_config) or None,
            group_size=size,
            reward_scale=recipe.reward_scale,
            num_substeps=recipe.substeps,
        )
        for size, groups in groupby(by_size, key=lambda group: len(group.members))
    ]


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


def _payload(member: Member) -> TrajectoryPayload:
    return TrajectoryPayload(
        samples=[
            TrajectorySample(
                prompt_token_ids=list(sample.prompt_token_ids),
                output_token_ids=list(sample.output_token_ids),
                output_logprobs=list(sample.logprobs),
            )
            for sample in member.rollout.samples
            if sample.output_token_ids
        ],
        reward=member.reward,
        trace_id=member.rollout.trace_id,
    )
