"""What was sampled under each trace, and its reward, so that training requests can name trace ids.

    gateway reply with a Trace-Id ---record---> turns \\
    telemetry with samples -------report------> spans  +--resolve--> a trajectory
    trace exit ---------------------exit------> reward /

Turns are what counts; spans are used where the gateway saw nothing. All of it is in memory only and
bounded: when there are too many tokens or traces, the oldest traces go, and a restart forgets them all.
"""

from __future__ import annotations

import math
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hud_orchestrator.local.replies import Refused
from hud_orchestrator.wire import TraceEnter, TraceExit, TrajectoryPayload, TrajectorySample

KEPT_TOKENS = 8_000_000
"""Tokens of all traces, prompts included: eight bytes each, and eight more where one was sampled."""

KEPT_TRACES = 20_000
REMEMBERED_IDS = 100_000
"""Ids of traces that had to go, so that they can be told from ids that never were."""

_Key = TypeVar("_Key", str, tuple[int, str])


@dataclass(frozen=True, slots=True)
class _Turn:
    """One sample, in a fraction of the memory of its lists."""

    prompt: array[int]
    output: array[int]
    logprobs: array[float]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.output)

    def as_sample(self) -> TrajectorySample:
        return TrajectorySample(
            prompt_token_ids=self.prompt.tolist(),
            output_token_ids=self.output.tolist(),
            output_logprobs=self.logprobs.tolist(),
        )


@dataclass(slots=True)
class Trace:
    """What is known of one trace."""

    id: str
    """32 hexadecimal digits, where the client's id was a UUID."""
    entered: TraceEnter | None = None
    ended: TraceExit | None = None
    turns: dict[str, _Turn] = field(default_factory=dict)
    """By what identifies the request, in the order of the first replies."""
    spans: dict[tuple[int, str], _Turn] = field(default_factory=dict)
    """By step and span."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are kept of it."""
        return sum(turn.num_tokens for turn in [*self.turns.values(), *self.spans.values()])

    def samples(self) -> list[_Turn]:
        """The turns in order."""
        return list(self.turns.values()) or [self.spans[key] for key in sorted(self.spans)]


class Traces:
    """The traces of late. Used by the event loop only."""

    def __init__(self, *, kept_tokens: int = KEPT_TOKENS, kept_traces: int = KEPT_TRACES) -> None:
        self._kept_tokens = kept_tokens
        self._kept_traces = kept_traces
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._num_tokens = 0

    def get(self, trace_id: str) -> Trace:
        """What is known of a trace.

        Raises:
            Refused: 404, nothing, or no longer.
        """
        known = self._traces.get(plain_id(trace_id))
        if known is None:
            raise Refused(404, f"trace {trace_id} is {self._why_unknown(trace_id)}")
        return known

    def is_over(self, trace_id: str) -> bool:
        """Whether its exit was reported."""
        known = self._traces.get(plain_id(trace_id))
        return known is not None and known.ended is not None

    def all(self) -> list[Trace]:
        """Every trace that is kept, oldest first."""
        return list(self._traces.values())

    def enter(self, trace_id: str, entered: TraceEnter) -> None:
        """A rollout begins."""
        self._of(trace_id).entered = entered

    def exit(self, trace_id: str, ended: TraceExit) -> None:
        """A rollout has ended, perhaps with a reward."""
        self._of(trace_id).ended = ended

    def record(self, trace_id: str, sample: TrajectorySample, *, request: str | None = None) -> None:
        """Keep a turn whose reply was delivered.

        Args:
            trace_id: the request's ``Trace-Id``.
            sample: with the ids of its prompt.
            request: equal for a request and its repetitions: the latest reply to them replaces the others.
        """
        trace = self._of(trace_id)
        # What telemetry says about the same turns is no longer of use.
        self._num_tokens -= sum(span.num_tokens for span in trace.spans.values())
        trace.spans.clear()
        self._keep(trace, trace.turns, request or uuid.uuid4().hex, sample)

    def report(self, trace_id: str, samples: Iterable[tuple[int, str, TrajectorySample]]) -> None:
        """Keep samples that telemetry brought, each with the number of its step and the id of its span."""
        trace = self._of(trace_id)
        if trace.turns:
            return
        for step, span, sample in samples:
            self._keep(trace, trace.spans, (step, span), sample)

    def resolve(self, trace_ids: Sequence[str]) -> dict[str, TrajectoryPayload]:
        """The trajectory of each trace, by the id it was asked for with.

        A trace that ended in an error and was not graded has no reward, whatever number its exit brought.

        Raises:
            Refused: 404, traces are unknown or no longer kept; 422, traces have no reward or no tokens. All
                of them are named.
        """
        objections = {one: why for one in dict.fromkeys(trace_ids) if (why := self._objection(one))}
        if objections:
            unknown = any(plain_id(one) not in self._traces for one in objections)
            detail = "; ".join(f"trace {one} {why}" for one, why in objections.items())
            raise Refused(404 if unknown else 422, detail)
        return {one: self._trajectory(one) for one in trace_ids}

    def _trajectory(self, trace_id: str) -> TrajectoryPayload:
        trace = self._traces[plain_id(trace_id)]
        reward = _reward(trace)
        assert reward is not None
        samples = [turn.as_sample() for turn in trace.samples()]
        return TrajectoryPayload(samples=samples, reward=reward, trace_id=trace.id)

    def _objection(self, trace_id: str) -> str | None:
        trace = self._traces.get(plain_id(trace_id))
        if trace is None:
            return f"is {self._why_unknown(trace_id)}"
        if trace.ended is None:
            return "has no reward yet: no exit was reported"
        if _reward(trace) is None:
            return f"has no reward: it ended with status {trace.ended.status} and was not graded"
        turns = trace.samples()
        if not turns:
            return "has no tokens: nothing was sampled here under its Trace-Id, and no span brought any"
        return None if all(turn.prompt and turn.output for turn in turns) else "has a turn without token ids"

    def _why_unknown(self, trace_id: str) -> str:
        return "no longer kept" if plain_id(trace_id) in self._gone else "unknown"

    def _of(self, trace_id: str) -> Trace:
        key = plain_id(trace_id)
        trace = self._traces.get(key)
        if trace is None:
            trace = self._traces[key] = Trace(key)
            self._gone.pop(key, None)
            self._make_room()
        return trace

    def _keep(self, trace: Trace, turns: dict[_Key, _Turn], key: _Key, sample: TrajectorySample) -> None:
        if self._traces.get(trace.id) is not trace:
            # It has just had to go, with the beginning of what it is now given the rest of.
            return
        old, new = turns.get(key), _pack(sample)
        turns[key] = new
        self._num_tokens += new.num_tokens - (old.num_tokens if old else 0)
        self._make_room()

    def _make_room(self) -> None:
        """Let the oldest traces go; the newest stays, however long it is."""
        while len(self._traces) > 1 and (
            len(self._traces) > self._kept_traces or self._num_tokens > self._kept_tokens
        ):
            key, trace = self._traces.popitem(last=False)
            self._num_tokens -= trace.num_tokens
            self._gone[key] = None
            if len(self._gone) > REMEMBERED_IDS:
                self._gone.popitem(last=False)


def plain_id(trace_id: str) -> str:
    """A trace id as 32 hexadecimal digits, however it was written; what is no UUID stays as it is."""
    try:
        return uuid.UUID(trace_id).hex
    except ValueError:
        return trace_id


def _reward(trace: Trace) -> float | None:
    ended = trace.ended
    if ended is None or ended.reward is None or not math.isfinite(ended.reward):
        return None
    # An ungraded rollout reports a reward of 0, which says nothing about the policy.
    if ended.status != "completed" and ended.evaluation_result is None:
        return None
    return ended.reward


def _pack(sample: TrajectorySample) -> _Turn:
    return _Turn(
        array("q", sample.prompt_token_ids or ()),
        array("q", sample.output_token_ids),
        array("d", sample.output_logprobs),
    )
