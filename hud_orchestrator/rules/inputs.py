"""What a training call may be given, turned into the contract's inputs and checked before any bytes leave.

    what                                    becomes                     refused when
    trace id                                the same string             it is empty
    TrajectoryPayload, its dict or its like the payload                 it has no sample
    Member                                  a payload, its own reward   nothing was sampled
    Rollout                                 a payload                   cut short, or not graded
    either, sampled elsewhere               its trace id                as above, or its reward was changed
    a run of the hud SDK                    a payload                   timed out, failed, or not graded

A rollout or run that was graded but sampled somewhere else, with no tokens of its own, becomes its trace
id: the service knows what it sampled. One that should train although it is refused here is passed as a
:class:`~hud_orchestrator.wire.TrajectoryPayload`, which says its reward explicitly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from hud_orchestrator.records import Member, Outcome, Rollout, Sample
from hud_orchestrator.wire import TrajectoryPayload, TrajectorySample

Input = str | TrajectoryPayload

REMEDY = "drop its group, or give a TrajectoryPayload with a reward"


def read_inputs(items: Iterable[Any], *, group_size: int | None) -> list[Input]:
    """The inputs of one training call, in the order of *items*.

    Args:
        items: trace ids, payloads, rollouts, members and runs, mixed freely.
        group_size: members per group; groups are contiguous slices. ``None``: all are one group.

    Raises:
        ValueError: an item cannot be trained on as it is, or groups are incomplete or interleaved.
    """
    given = list(items)
    if not given:
        raise ValueError("there is nothing to train on: give at least one input")
    inputs = [_input(item, f"inputs[{index}]") for index, item in enumerate(given)]
    if group_size is not None:
        _check_groups([_group_of(item) for item in given], group_size)
    return inputs


def without_spread(inputs: Sequence[Input], *, group_size: int | None) -> bool:
    """Whether every group's rewards are equal, so that a group-relative loss has no gradient.

    ``False`` for a single input, and when a reward is not known here.
    """
    rewards = [one.reward for one in inputs if isinstance(one, TrajectoryPayload)]
    if len(rewards) != len(inputs) or len(rewards) < 2:
        return False
    size = group_size or len(rewards)
    slices = (rewards[start : start + size] for start in range(0, len(rewards), size))
    return all(max(group) == min(group) for group in slices)


def _input(item: Any, where: str) -> Input:
    if isinstance(item, str):
        if not item.strip():
            raise ValueError(f"{where}: the trace id is empty")
        return item
    if isinstance(item, TrajectoryPayload):
        return item
    if isinstance(item, Member):
        return _payload(item.rollout, item.reward, where)
    if isinstance(item, Rollout):
        return _rollout(item, where)
    if isinstance(item, Mapping) or hasattr(item, "samples"):
        return _like_a_payload(item, where)
    if hasattr(item, "trace") and hasattr(item, "grade"):
        return _run(item, where)
    raise ValueError(
        f"{where}: {type(item).__name__} is no input; "
        "give a trace id, a rollout, a run or a TrajectoryPayload"
    )


def _rollout(rollout: Rollout, where: str) -> Input:
    if rollout.outcome is Outcome.CUT_SHORT:
        raise ValueError(
            f"{where}: rollout {rollout.trace_id} was cut short; give it as a TrajectoryPayload "
            "with the reward that it should train with"
        )
    if rollout.reward is None:
        raise ValueError(
            f"{where}: rollout {rollout.trace_id} has no grade ({rollout.outcome.value}); {REMEDY}"
        )
    if not rollout.outcome.clean:
        raise ValueError(
            f"{where}: rollout {rollout.trace_id} failed ({rollout.detail or rollout.outcome.value}), "
            f"and its reward may be about the failure; {REMEDY}"
        )
    return _payload(rollout, rollout.reward, where)


def _payload(rollout: Rollout, reward: float, where: str) -> Input:
    if rollout.remote:
        if reward != rollout.reward:
            raise ValueError(
                f"{where}: rollout {rollout.trace_id} trains by its trace id, with the reward that the "
                f"service knows, {rollout.reward}; it cannot train with {reward}"
            )
        return rollout.trace_id
    samples = [_sample(sample) for sample in rollout.samples if sample.output_token_ids]
    return _with_tokens(samples, reward, rollout.trace_id, where)


def _sample(sample: Sample) -> TrajectorySample:
    return TrajectorySample(
        prompt_token_ids=list(sample.prompt_token_ids),
        output_token_ids=list(sample.output_token_ids),
        output_logprobs=list(sample.logprobs),
    )


def _like_a_payload(item: Any, where: str) -> TrajectoryPayload:
    """A dict, or another library's payload of the same shape."""
    data = item if isinstance(item, Mapping) else _dumped(item)
    try:
        return TrajectoryPayload.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}.{place}: {first['msg']}") from None


def _dumped(item: Any) -> Any:
    return item.model_dump() if hasattr(item, "model_dump") else vars(item)


def _run(run: Any, where: str) -> Input:
    """A run of the hud SDK, told by its attributes: the SDK is not imported."""
    trace, name = run.trace, f"{where}: run {getattr(run, 'trace_id', None) or '(no trace id)'}"
    if getattr(trace, "stop_reason", None) == "timeout":
        raise ValueError(
            f"{name} timed out; give it as a TrajectoryPayload with the reward that it should train with"
        )
    if getattr(run.grade, "is_error", False):
        raise ValueError(f"{name} has no valid grade; {REMEDY}")
    if getattr(trace, "status", None) == "error":
        raise ValueError(
            f"{name} failed ({getattr(trace, 'error', None) or 'no reason given'}), "
            f"and its reward may be about the failure; {REMEDY}"
        )
    found = [getattr(step, "sample", None) for step in trace.steps]
    samples = [_foreign_sample(one) for one in found if one is not None and one.output_token_ids]
    return _with_tokens(samples, float(run.reward), getattr(run, "trace_id", None), where)


def _foreign_sample(sample: Any) -> TrajectorySample:
    return TrajectorySample(
        prompt_token_ids=list(sample.prompt_token_ids or []) or None,
        prompt_chunks=getattr(sample, "prompt_chunks", None),
        output_token_ids=list(sample.output_token_ids),
        output_logprobs=list(sample.output_logprobs or []),
    )


def _with_tokens(samples: list[TrajectorySample], reward: float, trace_id: str | None, where: str) -> Input:
    if samples:
        return TrajectoryPayload(samples=samples, reward=reward, trace_id=trace_id)
    if trace_id:
        return trace_id
    raise ValueError(f"{where}: no tokens were sampled, and there is no trace id to find them by")


def _group_of(item: Any) -> object:
    """What tells its group from others, ``None`` when the item does not say."""
    if isinstance(item, Member):
        return item.rollout.ticket.group
    if isinstance(item, Rollout):
        return item.ticket.group
    return getattr(item, "group_id", None)


def _check_groups(groups: list[object], size: int) -> None:
    if size < 1:
        raise ValueError(f"group_size must be 1 or more, got {size}")
    if len(groups) % size:
        raise ValueError(f"{len(groups)} inputs cannot be cut into groups of group_size {size}")
    if any(group is None for group in groups):
        return
    incomplete = [str(group) for group, count in Counter(groups).items() if count != size]
    if incomplete:
        raise ValueError(
            f"incomplete GRPO groups: {', '.join(incomplete[:5])}; each must occur group_size ({size}) times"
        )
    for start in range(0, len(groups), size):
        if len(set(groups[start : start + size])) > 1:
            raise ValueError(
                f"inputs {start} to {start + size - 1} mix several groups; groups are contiguous slices, "
                "so put the members of each one next to each other"
            )
