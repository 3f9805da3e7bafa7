"""The steps of an episode, noted as they happen: a clock reading and an object each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from hud_orchestrator.steps import Clipper, EpisodeStep, Source
from hud_orchestrator.toolbox import ToolResult


@dataclass(slots=True)
class Notes:
    """What has happened so far. It stays readable when an agent is cut short."""

    steps: list[EpisodeStep] = field(default_factory=list)
    began: float = field(default_factory=anyio.current_time)
    """On the loop's clock; steps count from here."""
    _clipper: Clipper = field(default_factory=Clipper)

    def told(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """The environment said something that is new to the model."""
        self._add(Source.USER, None, messages=[self._clipper.message(one) for one in messages])

    def said(
        self,
        content: str,
        *,
        since: float,
        reasoning: str | None = None,
        tool_calls: Sequence[Mapping[str, Any]] = (),
        **facts: Any,
    ) -> None:
        """The model took a turn, that it was asked for at *since*; *facts* are further fields of the step."""
        clip = self._clipper.text
        calls = [{**call, "arguments": clip(call["arguments"])} for call in tool_calls]
        thought = None if reasoning is None else clip(reasoning)
        self._add(
            Source.AGENT, since, content=clip(content), reasoning=thought, tool_calls=calls or (), **facts
        )

    def called(self, call: Mapping[str, Any], result: ToolResult | None, *, since: float) -> None:
        """A tool was called; without a *result*, it gave none."""
        told = result and {"content": self._clipper.parts(result.content), "isError": result.is_error}
        self._add(
            Source.TOOL, since, call={**call, "arguments": self._clipper.text(call["arguments"])}, result=told
        )

    def graded(self, *, since: float) -> None:
        """The environment gave its grade."""
        self._add(Source.TASK, since)

    def failed(self, error: str) -> None:
        """Something went wrong, or came to its end too early."""
        self._add(Source.SYSTEM, None, error=self._clipper.text(error))

    def _add(self, source: Source, since: float | None, **facts: Any) -> None:
        now = anyio.current_time()
        began = now if since is None else since
        self.steps.append(
            EpisodeStep(source=source, began=began - self.began, ended=now - self.began, **facts)
        )
