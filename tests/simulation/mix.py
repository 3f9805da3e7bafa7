"""What a seed's world is like: its service, its faults, and how often they come."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from tests.simulation.network import UNCERTAIN, Weather

End = Literal["kill", "power cut", "request", "full", "signal"]
"""What cuts a life off: a kill or a power cut at a piece of the store's work, a kill while a request is under
way, a disk that fills up, or a signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The world of one seed."""

    weather: Weather
    ends: tuple[End, ...]
    """What cuts the first lives off, one each."""
    end_every: float
    """Mean number of pieces of the store's work, or of requests, until it does."""
    restart_every_s: float | None
    """Mean seconds between two restarts of the service."""
    set_clock_every_s: float | None
    """Mean seconds between two changes of the time of day."""
    idempotent: bool
    """Whether the service looks at the id of a call, and does not do it again."""
    counts: bool
    """Whether it says how many datums a checkpoint took."""
    rates: bool
    """Whether it says with which learning rate a checkpoint was made."""
    leases: bool
    """Whether it gives the model to one trainer at a time."""
    waits: bool
    """Whether the daemon waits for another one's lease to end."""
    list_lag_s: float
    gateway_lag_s: float
    staleness: int
    groups_per_step: int
    then: tuple[int, int] | None
    """Staleness and groups per step of all lives but the first."""
    group_size: int
    mute: float
    """Share of completions without token ids. Members without are left out: groups of several sizes."""
    drops: bool
    """Whether lost steps are dropped, and not done again."""
    own_loss: bool
    """Whether the daemon computes the loss."""
    rival: bool
    """Whether somebody else trains the same model."""
    back: tuple[int, int] | None
    """After how many steps a guard has the run go back, and by how many."""
    storm_every_s: float | None
    """Mean seconds between two storms, in which no request gets through, or none of one kind."""
    evaluates_every: int | None
    """Steps between two evaluations."""
    chooses: bool
    """Whether a curriculum chooses the tasks."""
    visited: bool
    """Whether somebody without a lease uses the model once, while the run is down."""

    @property
    def may_say_nothing(self) -> bool:
        """Whether an attempt may end without an answer, and be graded."""
        unanswered = any(getattr(self.weather, fate) for fate in (*UNCERTAIN, "rejected"))
        return unanswered or self.storm_every_s is not None

    @classmethod
    def of(cls, rng: Random) -> Mix:
        """Some seeds are calm in most ways; some are not."""

        def some(largest: float) -> float:
            return largest * rng.random() if rng.random() < 0.4 else 0.0

        # Of streams of their own, so that seeds without it are what they were before there was any.
        apart, later, last = (Random(rng.getstate()[1][place]) for place in (1, 2, 3))
        idempotent = rng.random() < 0.7
        leases = rng.random() < 0.3
        # A late gradient in a checkpoint that nobody counts cannot be told from what belongs there, nor
        # can one that has taken the place of another which the service forgot: leases keep both out.
        counts, restart_every_s = rng.random() < 0.8, rng.choice((None, None, 20.0, 100.0))
        back = (apart.randint(2, 6), apart.randint(1, 4)) if apart.random() < 0.3 else None
        uneven, rejects = later.random() < 0.15, later.random() < 0.15
        kinds: tuple[End, ...] = ("kill", "kill", "power cut", "request", "full", "signal")
        return cls(
            weather=Weather(
                refused=some(0.05),
                lost_request=some(0.04),
                lost_answer=some(0.06),
                failed_before=some(0.08),
                failed_after=some(0.06),
                duplicated=some(0.05) if idempotent and (counts or leases) else 0.0,
                late=some(0.03),
                slow=some(0.03),
                late_gradients=None if leases else counts and restart_every_s is None and rng.random() < 0.5,
                latency_s=rng.choice((0.01, 0.05, 0.5)),
                rejected=0.02 * later.random() if rejects else 0.0,
            ),
            ends=tuple(rng.choice(kinds) for _ in range(rng.choice((0, 0, 0, 1, 1, 1, 2, 2, 3, 6)))),
            end_every=rng.choice((25.0, 60.0, 150.0)),
            restart_every_s=restart_every_s,
            set_clock_every_s=rng.choice((None, None, None, 20.0)),
            idempotent=idempotent,
            leases=leases,
            waits=rng.random() < 0.5,
            list_lag_s=rng.choice((0.0,) * 6 + (1.5, 1.5, 1.5, 15.0)),
            gateway_lag_s=rng.choice((0.0,) * 14 + (0.1, 0.1, 0.1, 0.1, 0.5, 3.0)),
            staleness=rng.choice((0, 0, 1, 2)),
            groups_per_step=max(rng.choice((1,) * 15 + (2,)), 2 if uneven else 1),
            group_size=3 if uneven else 2,
            mute=0.1 if uneven else 0.0,
            drops=rng.random() < 0.1,
            own_loss=rng.random() < 0.003,  # torch takes seconds to load
            rival=(rival := rng.random() < 0.05),
            # Nothing else tells what another trainer left in a checkpoint, and a step from another trainer's
            # that is of the same size and on the same head.
            counts=counts or rival,
            rates=rival or apart.random() < 0.5,
            back=back,
            storm_every_s=later.choice((None,) * 8 + (40.0, 200.0)),
            evaluates_every=later.choice((None,) * 8 + (2, 6)),
            chooses=later.random() < 0.15,
            visited=leases and not rival and last.random() < 0.2,
            then=(later.randrange(3), later.choice((1, 1, 2))) if later.random() < 0.1 else None,
        )
