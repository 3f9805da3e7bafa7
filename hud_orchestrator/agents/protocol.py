"""What an agent is given, and what it leaves behind: for our own loop, and for one of yours.

An agent of your own is a class, ``package.module:Class`` in the run file, with one method::

    class Careful:
        def __init__(self, **options): ...

        async def act(self, episode, policy) -> str | None:
            turn = await policy.sample(episode.prompt)
            return turn.text

``policy.sample`` is the only way to the model: it keeps every turn's tokens for training. The answer
that is returned goes to the environment's grader. Cut short, ``act`` is cancelled, and what it had
sampled and done by then is graded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hud_orchestrator.agents.notes import Notes
from hud_orchestrator.records import Outcome, Sample
from hud_orchestrator.toolbox import ToolResult, ToolSpec

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model asks for."""

    id: str
    name: str
    arguments: str
    """JSON text, as the model wrote it: it need not be valid."""

    def facts(self) -> dict[str, str]:
        """Its fields."""
        return {"id": self.id, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One sampled turn."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    message: Message
    """The turn as the next request repeats it."""
    finish_reason: str | None = None
    sample: Sample | None = None
    """Its tokens; without them it cannot be trained on."""


class Policy(Protocol):
    """The model, for one episode."""

    async def sample(self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = ()) -> Turn:
        """Sample the next turn of a conversation.

        Messages that begin with all of the last request's, and the turn it gave, are continued token for
        token: the prompt is then exactly what was there before, and the new messages.
        """
        ...


class Episode(Protocol):
    """The part of an environment's episode that an agent sees."""

    @property
    def prompt(self) -> list[Message]:
        """The first messages."""
        ...

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """What the agent may call."""
        ...

    @property
    def conversational(self) -> bool:
        """Whether :meth:`turn` may be called: the environment may have more to say after an answer."""
        ...

    async def turn(self, answer: str) -> list[Message] | None:
        """Hand over an answer; further messages, or ``None`` when the environment has its grade."""
        ...

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one of :attr:`tools`."""
        ...


@dataclass(slots=True, kw_only=True)
class Transcript:
    """What an agent has done so far. It stays readable when the agent is cut short."""

    samples: list[Sample] = field(default_factory=list)
    untold: list[int] = field(default_factory=list)
    """The policy version of each turn that has no tokens."""
    text: str | None = None
    """The newest turn."""
    answer: str | None = None
    """The newest answer that the environment has not been given yet: the grade call hands it over."""
    ended: Outcome = Outcome.FINISHED
    """How the agent ended, when nothing stopped it."""
    notes: Notes = field(default_factory=Notes)
    """All of it, step by step."""


class Agent(Protocol):
    """The policy's side of an episode."""

    async def act(self, episode: Episode, policy: Policy, transcript: Transcript) -> None:
        """Act until there is nothing more to do, noting in *transcript* what has been done."""
        ...
