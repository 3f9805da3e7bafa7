"""The policy of one episode: its turns, each with the tokens, log-probabilities and version it had.

From the second turn on, a conversation that goes on where it was is continued token for token: the
gateway gets the tokens of everything so far, and tokenizes only the messages that are new. So what the
model reads is what it wrote, and a later turn's prompt extends the earlier turn's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from hud_orchestrator.agents.protocol import Message, ToolCall, Transcript, Turn
from hud_orchestrator.agents.tools import as_choice, as_openai
from hud_orchestrator.clients.gateway import ChatRequest, Choice, Completion
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.records import Sample, Ticket
from hud_orchestrator.rules.seeds import derive
from hud_orchestrator.toolbox import ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How turns are sampled, but for the temperature, which evaluation has its own of."""

    top_p: float
    max_tokens: int
    stop: Sequence[str]
    seed: int
    tool_choice: str = "auto"
    """``auto``, ``required``, ``none`` or the name of a tool; of no meaning in a turn without tools."""
    parallel_tool_calls: bool = True


class EpisodePolicy:
    """Samples the turns of one attempt at a ticket."""

    def __init__(
        self,
        gateway: PacedGateway,
        cell: PolicyCell,
        sampling: Sampling,
        transcript: Transcript,
        *,
        ticket: Ticket,
        attempt: int,
        temperature: float,
        trace_id: str,
    ) -> None:
        self._gateway = gateway
        self._cell = cell
        self._sampling = sampling
        self._transcript = transcript
        self._ticket = ticket
        self._attempt = attempt
        self._temperature = temperature
        self._trace_id = trace_id
        self._turns = 0
        self._waiting = 0
        self._said: list[Message] = []
        """The conversation up to and with the newest turn."""
        self._tokens: list[int] | None = None
        """Its tokens, where the gateway told them."""

    @property
    def kept_waiting(self) -> str | None:
        """Why the gateway answers nobody, when a turn that was asked for has never come."""
        return self._gateway.trouble if self._waiting else None

    async def sample(self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = ()) -> Turn:
        """Sample the next turn, and note its tokens.

        Raises:
            ServiceUnreachable, ServiceBusy: no usable answer in many tries.
            KeyRefused, RequestRejected: the gateway said no.
        """
        # Read before the request leaves: the oldest policy that can have served it.
        asked_at, since = self._cell.current.version, anyio.current_time()
        self._waiting += 1
        completion = await self._gateway.chat(self._request(messages, tools), trace_id=self._trace_id)
        self._waiting -= 1
        choice = completion.choices[0]
        served = completion.system_fingerprint
        version = self._cell.version_of(served, asked_at=asked_at, training=self._ticket.purpose == "train")
        new = served is not None and not self._cell.knows(served)
        sample = _sample(choice, version, unpublished=served if new else None)
        self._turns += 1
        message = choice.message.as_said()
        self._said = [*messages, message]
        self._tokens = None
        if sample is None:
            self._transcript.untold.append(version)
        else:
            self._transcript.samples.append(sample)
            self._tokens = [*sample.prompt_token_ids, *sample.output_token_ids]
        turn = Turn(
            text=choice.message.content or "",
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
                for call in choice.message.functions
            ),
            message=message,
            finish_reason=choice.finish_reason,
            sample=sample,
        )
        self._note(turn, completion, since)
        return turn

    def _note(self, turn: Turn, completion: Completion, since: float) -> None:
        thought = turn.message.get("reasoning_content") or turn.message.get("reasoning")
        self._transcript.notes.said(
            turn.text,
            since=since,
            reasoning=thought if isinstance(thought, str) else None,
            tool_calls=[call.facts() for call in turn.tool_calls],
            finish_reason=turn.finish_reason,
            model=completion.model,
            usage=completion.usage,
            sample=None if turn.sample is None else len(self._transcript.samples) - 1,
        )

    def _request(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ChatRequest:
        ticket = self._ticket
        continued: dict[str, Any] = {}
        if self._tokens is not None and list(messages[: len(self._said)]) == self._said:
            # The contract does not count the system messages at the beginning.
            systems = sum(message["role"] == "system" for message in self._said)
            continued = {
                "prompt_token_ids": self._tokens,
                "continuation_from": len(self._said) - systems,
            }
        return ChatRequest(
            model=self._gateway.model,
            messages=messages,
            max_tokens=self._sampling.max_tokens,
            temperature=self._temperature,
            top_p=self._sampling.top_p,
            stop=self._sampling.stop or None,
            checkpoint=self._gateway.checkpoint,
            seed=derive(
                self._sampling.seed, ticket.purpose, ticket.group, ticket.member, self._attempt, self._turns
            ),
            **self._tools(tools),
            **continued,
        )

    def _tools(self, tools: Sequence[ToolSpec]) -> dict[str, Any]:
        if not tools:
            return {}
        sampling, offered = self._sampling, {"tools": [as_openai(tool) for tool in tools]}
        # What a gateway does by default is left out: some know one of the words only.
        chosen = {} if sampling.tool_choice == "auto" else {"tool_choice": as_choice(sampling.tool_choice)}
        single = {} if sampling.parallel_tool_calls else {"parallel_tool_calls": False}
        return offered | chosen | single


def _sample(choice: Choice, version: int, *, unpublished: str | None) -> Sample | None:
    """The turn's tokens; ``None`` when they are not all there, for a service would refuse the batch."""
    logprobs = tuple(choice.token_logprobs)
    if choice.token_ids is None or choice.prompt_token_ids is None:
        return None
    if len(logprobs) != len(choice.token_ids) or not all(map(math.isfinite, logprobs)):
        return None
    return Sample(
        prompt_token_ids=tuple(choice.prompt_token_ids),
        output_token_ids=tuple(choice.token_ids),
        logprobs=logprobs,
        version=version,
        unpublished=unpublished,
    )
