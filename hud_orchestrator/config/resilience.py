"""The section about going on, or not, when things around a run fail."""

from __future__ import annotations

from pydantic import Field

from hud_orchestrator.config.section import Section


class ResilienceSection(Section):
    """When attempts pause because what they need is broken, and when the run gives up."""

    failure_share: float = Field(default=0.5, gt=0, le=1)
    """Attempts pause when this share of the newest ones was failed by the gateway, or by one environment;
    retries are attempts too. One that failed otherwise counts when not one did better."""

    failure_window: int = Field(default=16, ge=1)
    """How many of the newest attempts are looked at."""

    least_attempts: int = Field(default=8, ge=1)
    """Nothing is concluded from fewer attempts than this."""

    pause_s: float = Field(default=2, gt=0)
    """Seconds of the first pause. Then a few attempts find out whether it is over; each further pause in
    a row is twice as long."""

    longest_pause_s: float = Field(default=60, gt=0)
    """Seconds of the longest pause."""

    probes: int = Field(default=2, ge=1)
    """Attempts after a pause that must all go well before the others follow."""

    give_up_after_s: float = Field(default=900, ge=0)
    """Seconds after which the run ends, when what is broken has not been mended. What has never worked
    in this session is given up after three pauses."""

    gateway_patience_s: float = Field(default=60, gt=0)
    """Seconds that a turn waits for a gateway which has stopped to answer, before its rollout fails."""
