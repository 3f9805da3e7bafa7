"""Who acts in a hosted rollout: the SDK's configuration of an agent, as our loop understands it."""

from __future__ import annotations

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.policy import Sampling
from hud_orchestrator.rules.seeds import derive
from hud_orchestrator.wire_hosting import AgentConfig, ChosenTool

MAX_TOKENS = 1024
"""Of a turn, when the client does not say."""

MAX_TURNS = 100
"""When the client wants no limit."""


def hosted_agent(config: AgentConfig) -> ChatAgent:
    """The loop that acts."""
    return ChatAgent(
        system_prompt=config.system_prompt,
        max_turns=config.max_steps if config.max_steps >= 1 else MAX_TURNS,
        tool_timeout_s=config.tool_timeout_seconds,
    )


def hosted_sampling(config: AgentConfig, *, seed: int, trace_id: str) -> Sampling:
    """How its turns are sampled; *seed* is the service's, for a client that gives none."""
    asked, choice = config.completion_kwargs, config.completion_kwargs.tool_choice
    return Sampling(
        top_p=asked.top_p or 1.0,
        max_tokens=asked.max_completion_tokens or asked.max_tokens or MAX_TOKENS,
        stop=[asked.stop] if isinstance(asked.stop, str) else asked.stop or [],
        seed=derive(seed, trace_id) if asked.seed is None else asked.seed,
        tool_choice=choice.function.name if isinstance(choice, ChosenTool) else choice or "auto",
        parallel_tool_calls=asked.parallel_tool_calls is not False,
    )
