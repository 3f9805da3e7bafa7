"""Replies that ``wire`` has no model for: the service writes them, and our own clients do not read them.

A key with a default may be missing; every other one is there, and there are no more.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Detail(_Written):
    """A refusal."""

    detail: str
    """What is wrong, and what to do."""


class _OpenAIError(_Written):
    message: str
    type: str
    param: None
    code: int


class OpenAIErrorBody(Detail):
    """A refusal on a path of OpenAI's API: its clients read ``error``."""

    error: _OpenAIError


class Accepted(_Written):
    """Nothing is said about what was accepted."""


class Health(_Written):
    """The service runs."""

    status: Literal["ok"]
    sampling: int = Field(ge=0)
    """Sequences that are being sampled."""
    waiting: int = Field(ge=0)
    """Sequences that wait for a place."""


class _OpenAIModel(_Written):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(_Written):
    """The catalog as OpenAI's clients read it."""

    object: Literal["list"]
    data: list[_OpenAIModel]


class HeadSet(_Written):
    """The head is where it was asked to be."""

    checkpoint_id: str


class _Token(_Written):
    token: str
    logprob: float = Field(le=0)
    bytes: None


class _SampledToken(_Token):
    top_logprobs: list[_Token]


class _Logprobs(_Written):
    content: list[_SampledToken]


class _CalledFunction(_Written):
    name: str
    arguments: str


class _ToolCall(_Written):
    id: str
    type: Literal["function"]
    function: _CalledFunction


class _AssistantMessage(_Written):
    role: Literal["assistant"]
    content: str | None
    tool_calls: list[_ToolCall] = Field(default=[], min_length=1)


class _ChatChoice(_Written):
    index: int = Field(ge=0)
    message: _AssistantMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: _Logprobs | None
    prompt_token_ids: list[int] = []
    """With ``return_token_ids``: what the choice was conditioned on."""
    token_ids: list[int] = []
    """With ``return_token_ids``: what was sampled, the end of the turn included."""


class _Usage(_Written):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(_Written):
    """What was sampled."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    """The checkpoint that it was sampled from."""
    choices: list[_ChatChoice] = Field(min_length=1)
    usage: _Usage


class ReportedTrace(_Written):
    """What was reported of a rollout."""

    id: str
    job_id: str | None
    group_id: str | None
    task_slug: str | None
    model: str | None
    status: str
    reward: float | None
    error: str | None
    evaluation_result: dict[str, Any] | None
    stop_reason: str | None
    metadata: dict[str, Any] | None
    num_turns: int = Field(ge=0)


class TracePage(_Written):
    """The rollouts of a job, oldest first."""

    items: list[ReportedTrace]
    total: int = Field(ge=0)


class _Job(_Written):
    id: str
    name: str
    group: int
    taskset_id: str | None


class JobPage(_Written):
    """The jobs of late, newest first."""

    items: list[_Job]
    total: int = Field(ge=0)


class Events(_Written):
    """What happened in a rollout, step by step, as far as telemetry told."""

    events: list[dict[str, Any]]
    """Each has a ``kind``: ``agent_message``, ``tool_call``, ``task_call``, ``user_message`` ..."""


class Who(_Written):
    """There are no users here; clients ask all the same."""

    user_id: str
    team_id: str


class RolloutAccepted(_Written):
    """A rollout runs, waits for its turn, or is over: ``GET /v2/trace/{id}`` tells."""

    trace_id: str


class RolloutCancelled(_Written):
    """Whether the rollout was still in flight."""

    cancelled: bool


class Leased(_Written):
    """An environment that runs until it is given back, or is not used for long."""

    id: str
    environment: str
