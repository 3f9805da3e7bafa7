"""What may be trained on, and what is refused before any bytes leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from hud_orchestrator.records import Member, Outcome
from hud_orchestrator.rules.inputs import read_inputs, without_spread
from hud_orchestrator.wire import TrajectoryPayload, TrajectorySample
from tests.builders import rollout


@dataclass
class Step:
    sample: Any = None


@dataclass
class Trace:
    steps: list[Step]
    stop_reason: str | None = "done"
    status: str = "completed"
    error: str | None = None


@dataclass
class Grade:
    is_error: bool = False


@dataclass
class Run:
    """Has the attributes of a run of the hud SDK, and nothing else in common with it."""

    trace: Trace
    reward: float = 1.0
    trace_id: str | None = "a" * 32
    group_id: str | None = None
    grade: Grade = field(default_factory=Grade)


@dataclass
class Told:
    prompt_token_ids: list[int] | None
    output_token_ids: list[int]
    output_logprobs: list[float]
    prompt_chunks: list[dict[str, Any]] | None = None


def run(**more: Any) -> Run:
    return Run(Trace([Step(), Step(Told([1, 2], [3], [-0.5]))]), **more)


def payload(reward: float = 1.0) -> TrajectoryPayload:
    return TrajectoryPayload(
        samples=[TrajectorySample(prompt_token_ids=[1], output_token_ids=[2], output_logprobs=[-1.0])],
        reward=reward,
    )


def test_kinds_are_mixed_freely_and_keep_their_order() -> None:
    attempt = rollout(reward=0.25)
    given = ["b" * 32, payload(), attempt, Member(rollout=attempt, reward=0.5), run(reward=0.75)]
    given.append({"samples": [{"output_token_ids": [4]}], "reward": 2})

    trace, *payloads = read_inputs(given, group_size=None)

    assert trace == "b" * 32
    assert [one.reward for one in payloads if isinstance(one, TrajectoryPayload)] == [1, 0.25, 0.5, 0.75, 2]
    assert payloads[3] == TrajectoryPayload(
        samples=[TrajectorySample(prompt_token_ids=[1, 2], output_token_ids=[3], output_logprobs=[-0.5])],
        reward=0.75,
        trace_id="a" * 32,
    )


def test_another_library_s_payload_is_taken_by_its_shape() -> None:
    class Foreign:
        def __init__(self) -> None:
            self.samples = [{"prompt_token_ids": [1], "output_token_ids": [2]}]
            self.reward = 0.5

    (read,) = read_inputs([Foreign()], group_size=None)

    assert isinstance(read, TrajectoryPayload)
    assert read.reward == 0.5


def test_a_graded_run_that_was_sampled_elsewhere_is_its_trace_id() -> None:
    assert read_inputs([Run(Trace([]))], group_size=None) == ["a" * 32]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Run(Trace([], stop_reason="timeout")), "timed out"),
        (run(grade=Grade(is_error=True)), "no valid grade"),
        (Run(Trace([], status="error", error="boom")), "failed (boom)"),
        (Run(Trace([]), trace_id=None), "no tokens were sampled"),
        (rollout(outcome=Outcome.CUT_SHORT, reward=0.5), "was cut short"),
        (rollout(outcome=Outcome.UNGRADED, reward=None), "has no grade (ungraded)"),
        (rollout(outcome=Outcome.TOOL_FAILURE, reward=0.5), "failed (tool_failure)"),
        ("  ", "the trace id is empty"),
        (7, "int is no input"),
        ({"samples": [], "reward": 1}, "inputs[0].samples"),
    ],
)
def test_what_cannot_be_trained_on_as_it_is_is_refused_by_name(item: Any, words: str) -> None:
    with pytest.raises(ValueError, match="inputs") as refused:
        read_inputs([item], group_size=None)

    assert words in str(refused.value)


def test_an_explicit_reward_makes_a_cut_short_rollout_trainable() -> None:
    cut = rollout(outcome=Outcome.CUT_SHORT, reward=0.5)

    (read,) = read_inputs([Member(rollout=cut, reward=0.1)], group_size=None)

    assert isinstance(read, TrajectoryPayload)
    assert read.reward == 0.1


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        read_inputs([], group_size=None)


@pytest.mark.parametrize("size", [0, -1])
def test_a_group_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"group_size must be 1 or more, got {size}"):
        read_inputs([payload()], group_size=size)


def test_inputs_that_do_not_divide_into_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="3 inputs cannot be cut into groups of group_size 2"):
        read_inputs([payload()] * 3, group_size=2)


def test_incomplete_groups_are_named() -> None:
    groups = ["x", "x", "x", "y"]
    with pytest.raises(ValueError, match="incomplete GRPO groups: x, y"):
        read_inputs([run(group_id=group) for group in groups], group_size=2)


def test_interleaved_groups_are_refused_because_groups_are_slices() -> None:
    groups = ["x", "y", "x", "y"]
    with pytest.raises(ValueError, match="inputs 0 to 1 mix several groups"):
        read_inputs([run(group_id=group) for group in groups], group_size=2)


def test_groups_that_nobody_named_are_taken_as_they_come() -> None:
    assert len(read_inputs([payload(), run(group_id="x")], group_size=2)) == 2


@pytest.mark.parametrize(
    ("rewards", "size", "flat"),
    [
        ([1, 1, 0, 0], 2, True),
        ([1, 1, 0, 0], None, False),
        ([1, 0, 0, 0], 2, False),
        ([1], None, False),
    ],
)
def test_spread_is_looked_for_inside_groups(rewards: list[float], size: int | None, flat: bool) -> None:
    assert without_spread([payload(reward) for reward in rewards], group_size=size) is flat


def test_a_reward_that_only_the_service_knows_may_differ() -> None:
    assert not without_spread([payload(1), "b" * 32], group_size=None)
