"""Which faults a seed has, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.network import Weather


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The faults of one seed."""

    weather: Weather
    deaths: int
    """How often the daemon is killed, if its run is long enough."""
    death_every: float
    """Mean number of pieces of the store's work, or of requests, until it is."""
    restart_every_s: float | None
    """Mean seconds between two restarts of the service."""
    idempotent: bool
    list_lag_s: float
    gateway_lag_s: float
    staleness: int
    groups_per_step: int

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
            deaths=rng.choice((0, 0, 0, 1, 1, 2, 2, 3, 4, 8)),
            death_every=rng.choice((25.0, 60.0, 150.0)),
            restart_every_s=rng.choice((None, None, 20.0, 100.0)),
            idempotent=idempotent,
            list_lag_s=rng.choice((0.0,) * 6 + (1.5, 1.5, 1.5, 15.0)),
            gateway_lag_s=rng.choice((0.0,) * 14 + (0.1, 0.1, 0.1, 0.5, 0.5, 3.0)),
            staleness=rng.choice((0, 0, 1, 2)),
            groups_per_step=rng.choice((1,) * 7 + (2,)),
        )
