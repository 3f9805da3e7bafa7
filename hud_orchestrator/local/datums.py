"""Check a training request as a whole, and flatten its trajectories to datums, one per turn.

Nothing here computes with the model, and nothing is kept: a request that is refused changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hud_orchestrator.local.advantages import Advantages, group_advantages
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.losses.registry import BUILT_IN, BuiltIn
from hud_orchestrator.wire import ForwardBackwardRequest, TrajectoryPayload, TrajectorySample

DIVIDE_BY_STD = "advantage_std"
"""The key of ``loss_fn_config`` that the service itself knows, whatever the loss."""


@dataclass(frozen=True, slots=True)
class Datum:
    """One turn: what the policy saw, and what it did."""

    prompt: Sequence[int]
    output: Sequence[int]
    sampling_logprobs: Sequence[float]
    """One per output token, in nats; empty when the client sent none and the loss needs none."""
    advantage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A checked request."""

    datums: list[Datum]
    rewards: list[float]
    """As they were sent, before scaling. One per trajectory."""
    advantages: Advantages
    loss: BuiltIn
    config: Mapping[str, float]
    substeps: int

    @property
    def comparable(self) -> bool:
        """Whether every datum came with the log-probabilities it was sampled with."""
        return all(datum.sampling_logprobs for datum in self.datums)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can take."""

    context: int
    vocab_size: int


def read_batch(request: ForwardBackwardRequest, limits: Limits) -> Batch:
    """Check everything about *request* that can be checked without computing.

    Raises:
        Refused: 422, with the place and the number that is wrong.
    """
    trajectories = _inline(request)
    loss, config, divide_by_std = _loss(request)
    size = request.group_size
    if size is not None and len(trajectories) % size:
        raise Refused(422, f"{len(trajectories)} inputs cannot be cut into groups of group_size {size}")
    rewards = [trajectory.reward for trajectory in trajectories]
    for index, reward in enumerate(rewards):
        if not math.isfinite(reward * request.reward_scale):
            raise Refused(
                422, f"inputs[{index}].reward is not a finite number: {reward} x {request.reward_scale}"
            )
    advantages = group_advantages(
        rewards, group_size=size, scale=request.reward_scale, divide_by_std=divide_by_std
    )
    datums = [
        _datum(sample, advantages.values[index], loss, limits, where=f"inputs[{index}].samples[{turn}]")
        for index, trajectory in enumerate(trajectories)
        for turn, sample in enumerate(trajectory.samples)
    ]
    return Batch(
        datums=datums,
        rewards=rewards,
        advantages=advantages,
        loss=loss,
        config=config,
        substeps=request.num_substeps,
    )


def _inline(request: ForwardBackwardRequest) -> list[TrajectoryPayload]:
    inline = [one for one in request.inputs if isinstance(one, TrajectoryPayload)]
    bare = [one for one in request.inputs if isinstance(one, str)]
    if bare:
        raise Refused(422, f"trace ids cannot be resolved, send trajectories inline: {', '.join(bare[:5])}")
    return inline


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


def _datum(sample: TrajectorySample, advantage: float, loss: BuiltIn, limits: Limits, *, where: str) -> Datum:
    prompt, output, logprobs = _prompt(sample, where), sample.output_token_ids, sample.output_logprobs
    if not prompt:
        raise Refused(422, f"{where} has no prompt: send prompt_token_ids or prompt_chunks")
    if not output:
        raise Refused(422, f"{where}.output_token_ids is empty")
    if len(logprobs) != len(output) and (loss.off_policy or logprobs):
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
    return Datum(prompt, output, logprobs, advantage if loss.off_policy else 1.0)


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
