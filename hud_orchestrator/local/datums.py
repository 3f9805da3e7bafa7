"""Check a training request as a whole, and flatten its trajectories to datums, one per turn.

Nothing here computes with the model, and nothing is kept: a request that is refused changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hud_orchestrator.local.advantages import group_advantages
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.losses.registry import BUILT_IN, BuiltIn
from hud_orchestrator.wire import ForwardBackwardRequest, ForwardRequest, TrajectoryPayload, TrajectorySample

DIVIDE_BY_STD = "advantage_std"
"""The key of ``loss_fn_config`` that the service itself knows, whatever the loss."""

LARGEST_REWARD = 1e30
"""Bound of a scaled reward: squares of it stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Datum:
    """One turn: what the policy saw, and what it did."""

    trajectory: int
    """Position in the request's ``inputs`` of the trajectory that it belongs to."""
    prompt: Sequence[int]
    output: Sequence[int]
    sampling_logprobs: Sequence[float]
    """One per output token, in nats; empty when the client sent none and the loss needs none."""
    credit: Sequence[float] = ()
    """What the loss weighs each output token by: an advantage, or a weight of the client's. Empty
    until it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A checked request to add a gradient."""

    datums: list[Datum]
    """With credit."""
    rewards: list[float]
    """As they were sent, before scaling. One per trajectory."""
    loss: BuiltIn
    config: Mapping[str, float]
    groups_without_spread: int | None = None
    """``None``: the loss is the client's, and what its groups are is its own business."""
    substeps: int = 1

    @property
    def credited(self) -> list[Datum]:
        """The datums that can add something to the gradient."""
        return [datum for datum in self.datums if any(datum.credit)]

    @property
    def comparable(self) -> bool:
        """Whether every datum came with the log-probabilities it was sampled with."""
        return all(datum.sampling_logprobs for datum in self.datums)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can take."""

    context: int
    vocab_size: int


def read_batch(
    request: ForwardBackwardRequest, trajectories: Sequence[TrajectoryPayload], limits: Limits
) -> Batch:
    """Check everything about *request* that can be checked without computing.

    Args:
        request: what was asked.
        trajectories: its ``inputs``, in order, with trace ids resolved.
        limits: of the model.

    Raises:
        Refused: 422, with the place and the number that is wrong.
    """
    loss, config, divide_by_std = _loss(request)
    datums = read_datums(request, trajectories, limits, needs_logprobs=loss.off_policy)
    rewards = [trajectory.reward for trajectory in trajectories]
    advantages = group_advantages(
        rewards, group_size=request.group_size, scale=request.reward_scale, divide_by_std=divide_by_std
    )
    worth = advantages.values if loss.off_policy else [1.0] * len(rewards)
    return Batch(
        datums=[replace(one, credit=[worth[one.trajectory]] * len(one.output)) for one in datums],
        rewards=rewards,
        groups_without_spread=advantages.groups_without_spread,
        loss=loss,
        config=config,
        substeps=request.num_substeps,
    )


def read_datums(
    request: ForwardBackwardRequest | ForwardRequest,
    trajectories: Sequence[TrajectoryPayload],
    limits: Limits,
    *,
    needs_logprobs: bool,
) -> list[Datum]:
    """The turns of all trajectories, in order, without credit.

    Raises:
        Refused: 422, with the place and the number that is wrong.
    """
    size = request.group_size
    if size is not None and len(trajectories) % size:
        raise Refused(422, f"{len(trajectories)} inputs cannot be cut into groups of group_size {size}")
    for index, trajectory in enumerate(trajectories):
        _check_reward(trajectory.reward, request.reward_scale, where=f"inputs[{index}].reward")
    return [
        _datum(sample, index, limits, needs_logprobs=needs_logprobs, where=f"inputs[{index}].samples[{turn}]")
        for index, trajectory in enumerate(trajectories)
        for turn, sample in enumerate(trajectory.samples)
    ]


def _loss(request: ForwardBackwardRequest) -> tuple[BuiltIn, dict[str, float], bool]:
    loss = BUILT_IN.get(request.loss_fn)
    if loss is None:
        raise Refused(422, f"unknown loss_fn {request.loss_fn!r}; this service has: {', '.join(BUILT_IN)}")
    given = dict(request.loss_fn_config or {})
    divide_by_std = given.pop(DIVIDE_BY_STD, 0.0)
    if divide_by_std not in (0.0, 1.0):
        raise Refused(422, f"loss_fn_config: {DIVIDE_BY_STD} must be 0 or 1, got {divide_by_std}")
    try:
        return loss, loss.configure(given), bool(divide_by_std)
    except ValueError as error:
        raise Refused(422, f"loss_fn_config: {error}; every loss also takes {DIVIDE_BY_STD}") from error


def _check_reward(reward: float, scale: float, *, where: str) -> None:
    if not (math.isfinite(reward) and math.isfinite(scale)):
        raise Refused(422, f"{where} is not a finite number: {reward} x reward_scale {scale}")
    if max(abs(reward), abs(reward * scale)) > LARGEST_REWARD:
        raise Refused(422, f"{where} is beyond {LARGEST_REWARD:g}: {reward} x reward_scale {scale}")


def _datum(
    sample: TrajectorySample, trajectory: int, limits: Limits, *, needs_logprobs: bool, where: str
) -> Datum:
    prompt, output, logprobs = _prompt(sample, where), sample.output_token_ids, sample.output_logprobs
    if not prompt:
        raise Refused(422, f"{where} has no prompt: send prompt_token_ids or prompt_chunks")
    if not output:
        raise Refused(422, f"{where}.output_token_ids is empty")
    if len(logprobs) != len(output) and (needs_logprobs or logprobs):
        raise Refused(422, f"{where} has {len(output)} output_token_ids and {len(logprobs)} output_logprobs")
    if not all(map(math.isfinite, logprobs)):
        raise Refused(422, f"{where}.output_logprobs has a number that is not finite")
    if len(prompt) + len(output) > limits.context:
        length = f"{len(prompt)} prompt and {len(output)} output tokens"
        raise Refused(422, f"{where}: {length} exceed the context of {limits.context}")
    low, high = min(*prompt, *output), max(*prompt, *output)
    if low < 0 or high >= limits.vocab_size:
        wrong = low if low < 0 else high
        raise Refused(422, f"{where}: token id {wrong} is outside the vocabulary of {limits.vocab_size}")
    return Datum(trajectory=trajectory, prompt=prompt, output=output, sampling_logprobs=logprobs)


def _prompt(sample: TrajectorySample, where: str) -> list[int]:
    """The prompt's token ids; chunks, when present, are what counts."""
    if sample.prompt_chunks is None:
        return list(sample.prompt_token_ids or [])
    return [
        token
        for index, chunk in enumerate(sample.prompt_chunks)
        for token in _chunk_tokens(chunk, f"{where}.prompt_chunks[{index}]")
    ]


def _chunk_tokens(chunk: Mapping[str, Any], where: str) -> list[int]:
    kind, tokens = chunk.get("type"), chunk.get("tokens")
    if kind != "encoded_text":
        raise Refused(422, f"{where} is of type {kind!r}; this service takes encoded_text only")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise Refused(422, f"{where}.tokens is not a list of integers")
    return tokens
