"""Request and reply models of rollouts that the platform runs, and of environments that it leases.

What is not named is ignored, in both directions: the SDK sends more than is read here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hud_orchestrator.wire import Reply


class ToolName(Reply):
    """Names a tool."""

    name: str


class ChosenTool(Reply):
    """The tool that must be called."""

    type: Literal["function"]
    function: ToolName


class CompletionKwargs(Reply):
    """How a hosted agent samples its turns, in OpenAI's words."""

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """The newer name of ``max_tokens``, and stronger."""
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    tool_choice: Literal["auto", "required", "none"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    extra_body: dict[str, Any] | None = None
    """Asks HUD's gateway for token ids, which it then keeps; the embedded service always does."""


class AgentConfig(Reply):
    """A hosted agent: what is read of the SDK's configuration of one."""

    model: str
    """The slug that it samples."""
    checkpoint: str | None = None
    """Sampled instead of the head."""
    system_prompt: str | None = None
    max_steps: int = 10
    """Turns of the model; less than 1: no limit."""
    timeout_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """For the agent; what it has done by then is graded."""
    tool_timeout_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    completion_kwargs: CompletionKwargs = CompletionKwargs()


class HostedAgent(Reply):
    """Who acts in a rollout that the platform runs."""

    type: Literal["openai_compatible"]
    """The kind that models of the catalog have."""
    config: AgentConfig


class HostedTask(Reply):
    """A task of an environment that the platform knows by name, as rows of tasksets have it."""

    env: str = Field(min_length=1)
    id: str = Field(min_length=1)
    args: dict[str, Any] | None = None
    slug: str | None = None


class RolloutSubmit(Reply):
    """Run a whole rollout: environment, agent and grade."""

    trace_id: str
    """A UUID; names the rollout from now on."""
    job_id: str | None = None
    env: str = Field(min_length=1)
    task: str = Field(min_length=1)
    """The template's id."""
    slug: str | None = None
    args: dict[str, Any] | None = None
    agent: HostedAgent
    group_id: str | None = None
    parent_trace_id: str | None = None
    runtime_config: dict[str, Any] | None = None
    verifier: HostedTask | None = None
    """The task whose grade decides, in place of this one's own."""


class RolloutCancel(Reply):
    """End a rollout that was submitted."""

    trace_id: str


class TraceState(Reply):
    """What the platform knows of a rollout."""

    status: str
    """``completed``, ``error`` or ``cancelled`` when it is over."""
    reward: float | None = None
    error: str | None = None
    evaluation_result: dict[str, Any] | None = None
    stop_reason: str | None = None
    metadata: dict[str, Any] | None = None
    num_turns: int | None = None


class LeaseRequest(Reply):
    """Start an environment for a while."""

    environment: str = Field(min_length=1)
    trace_id: str | None = None


class Lease(Reply):
    """An environment that runs until it is given back."""

    id: str
