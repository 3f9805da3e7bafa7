"""The policy's side of an episode: sample a turn, hand it over, until the environment has enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hud_orchestrator.records import Sample

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One sampled turn; without a sample it cannot be trained on."""

    text: str
    sample: Sample | None


Sampler = Callable[[Sequence[Message], int], Awaitable[Turn]]
"""Samples a turn from the messages so far and the turn's number, counted from 0."""


class Conversation(Protocol):
    """The part of an episode that the loop talks to."""

    @property
    def prompt(self) -> list[Message]:
        """The first messages."""
        ...

    async def turn(self, answer: str) -> list[Message] | None:
        """Hand over an answer; further messages, or ``None`` when the environment has its grade."""
        ...


@dataclass(slots=True, kw_only=True)
class Transcript:
    """What the agent has done so far. It stays readable when the agent is cut short."""

    samples: list[Sample] = field(default_factory=list)
    text: str | None = None
    """The newest turn."""
    pending: str | None = None
    """The newest turn, when it is left to the grade call to hand it over."""
    out_of_turns: bool = False


async def chat(
    conversation: Conversation,
    *,
    sample: Sampler,
    transcript: Transcript,
    system_prompt: str | None,
    max_turns: int,
) -> None:
    """Converse until the environment has its grade or *max_turns* are used up."""
    messages: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages += conversation.prompt
    for number in range(max_turns):
        turn = await sample(messages, number)
        if turn.sample is not None:
            transcript.samples.append(turn.sample)
        transcript.text = turn.text
        if max_turns == 1:
            transcript.pending = turn.text  # the grade call hands it over: every environment knows that one
            return
        further = await conversation.turn(turn.text)
        if further is None:
            return
        messages += [{"role": "assistant", "content": turn.text}, *further]
    transcript.out_of_turns = True
