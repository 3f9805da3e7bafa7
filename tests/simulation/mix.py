"""Which faults a seed has, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.network import Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The faults of one seed."""

    weather: Weather
    kill_every: float | None
    """Mean number of pieces of the store's work between two deaths."""
    restart_every_s: float | None
    """Mean seconds between two restarts of the service."""
    idempotent: bool
    list_lag_s: float
    gateway_lag_s: float
    staleness: int

    @classmethod
    def of(cls, rng: Random) -> Mix:
        """Some seeds are calm in most ways; some are not."""

        def some(largest: float) -> float:
            return largest * rng.random() if rng.random() < 0.4 else 0.0

        # A service that is sent a call twice does it twice, unless it looks at the id.
        idempotent = rng.random() < 0.7
        return cls(
            weather=Weather(
                refused=some(0.05),
                lost_request=some(0.04),
                lost_answer=some(0.06),
                failed_before=some(0.08),
                failed_after=some(0.06),
                duplicated=some(0.05) if idempotent else 0.0,
                slow=some(0.03),
                latency_s=rng.choice((0.01, 0.05, 0.5)),
            ),
            kill_every=rng.choice((None, 40.0, 150.0, 25.0)),
            restart_every_s=rng.choice((None, None, 20.0, 100.0)),
            idempotent=idempotent,
            list_lag_s=rng.choice((0.0, 0.0, 2.0, 20.0)),
            gateway_lag_s=rng.choice((0.0, 0.0, 1.0, 5.0)),
            staleness=rng.choice((0, 0, 1, 2)),
        )
