"""The section about what the service is told of rollouts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import Section


class ReportingSection(Section):
    """Telling the service what becomes of rollouts, beside the run and never in its way.

    What cannot be delivered in time is dropped and counted. ``HUD_TELEMETRY_ENABLED=false`` turns all of
    it off.
    """

    enabled: bool = True
    """Report the run as a job and every attempt as a trace: to HUD with ``service: hud``, else to the
    local service."""

    spans: Literal["tokens", "steps", "none"] = "tokens"
    """What is told of an attempt besides its end. ``steps``: its turns, its calls of tools and what they
    answered. ``tokens``: those, and the token ids and log-probabilities of every turn."""

    queue: int = Field(default=1000, ge=1)
    """Reports that may wait to be delivered; an attempt that begins when there are more is not reported."""

    flush_s: float = Field(default=10, ge=0)
    """Seconds at the end of a run for what is still waiting."""
