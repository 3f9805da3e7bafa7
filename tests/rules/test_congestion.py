"""The window of requests against gateways of every kind, on a clock of the test's own."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from hud_orchestrator.rules.congestion import LONGEST_HOLD_S, CongestionWindow

Service = Callable[[float, int], float]
"""When a request that is sent at a time, as the n-th in flight, is answered."""


@dataclass
class World:
    """A gateway that answers everything, and a client that always has more to ask."""

    window: CongestionWindow
    service: Service
    now: float = 0.0
    done: int = 0
    widths: list[float] = field(default_factory=list)
    _pending: list[tuple[float, float]] = field(default_factory=list)

    def run(self, seconds: float) -> float:
        """Let time pass; answers per second meanwhile."""
        until, before = self.now + seconds, self.done
        while self.now < until:
            while self.window.may_send(self.now):
                self.window.sent()
                heapq.heappush(self._pending, (self.service(self.now, self.window.in_flight), self.now))
            self.now, sent_at = heapq.heappop(self._pending)
            self.window.answered(sent_at=sent_at, now=self.now)
            self.done += 1
            self.widths.append(self.window.width)
        return (self.done - before) / seconds


def wide(seed: int) -> Service:
    """Room for everybody; answers of very different lengths."""
    rnd = random.Random(seed)
    return lambda now, _: now + rnd.lognormvariate(math.log(0.2), 0.7)


def queueing(servers: int, seed: int) -> Service:
    """So many answers are worked on at once; the others wait."""
    rnd, free = random.Random(seed), [0.0] * servers

    def answered_at(now: float, _: int) -> float:
        end = max(heapq.heappop(free), now) + rnd.uniform(0.1, 0.3)
        heapq.heappush(free, end)
        return end

    return answered_at


def batching(alone_s: float, each_s: float, seed: int) -> Service:
    """Everybody is worked on at once, and the more the slower; more of them still means more answers."""
    rnd = random.Random(seed)
    return lambda now, n: now + (alone_s + each_s * n) * rnd.uniform(0.5, 1.5)


@pytest.mark.parametrize("most", [1, 8, 64, 1024])
def test_a_healthy_gateway_has_as_many_as_the_run_wants_within_a_few_round_trips(most: int) -> None:
    world = World(CongestionWindow(most=most), wide(seed=most))
    world.run(2)

    assert max(world.widths) == most
    mean_s = 0.2 * math.exp(0.7**2 / 2)
    assert world.run(60) > 0.9 * most / mean_s


@pytest.mark.parametrize(("servers", "most"), [(4, 512), (16, 512), (16, 128)])
def test_a_gateway_that_queues_is_kept_busy_and_not_flooded(servers: int, most: int) -> None:
    world = World(CongestionWindow(most=most), queueing(servers, seed=servers))
    world.run(30)

    assert world.run(30) == pytest.approx(servers / 0.2, rel=0.05)
    settled = world.widths[-1000:]
    assert max(settled) < max(64, most / 2)
    assert min(settled) >= servers


@pytest.mark.parametrize("each_s", [0.001, 0.01])
@pytest.mark.parametrize("seed", range(4))
def test_a_gateway_that_batches_keeps_nearly_all_of_its_throughput(each_s: float, seed: int) -> None:
    most = 64
    unlimited = most / (0.2 + each_s * most)
    world = World(CongestionWindow(most=most), batching(0.2, each_s, seed))
    world.run(10)

    assert world.run(60) > 0.9 * unlimited


def test_answers_that_grow_longer_are_not_taken_for_a_queue_for_long() -> None:
    world = World(CongestionWindow(most=64), lambda now, _: now + 0.2)
    world.run(10)
    world.service = lambda now, _: now + 1.0
    world.run(30)

    assert world.run(20) == pytest.approx(64, rel=0.1)


def test_refusals_of_requests_that_were_under_way_together_shrink_the_window_once() -> None:
    window = CongestionWindow(most=32)
    for _ in range(20):
        window.sent()
    for _ in range(10):
        window.failed(sent_at=0.0, now=1.0, overloaded=True)
    assert window.width == pytest.approx(32 * 0.7)

    window.answered(sent_at=0.0, now=1.0)
    window.sent()
    window.failed(sent_at=1.5, now=2.0, overloaded=True)
    assert window.width == pytest.approx(32 * 0.7**2, rel=0.01)


def test_a_window_that_shrank_grows_back_step_by_step() -> None:
    window = CongestionWindow(most=64, start=64)
    window.sent()
    window.failed(sent_at=0.0, now=0.0, overloaded=True)
    world = World(window, lambda now, _: now + 0.2)
    world.now = 0.001
    world.run(1)

    steps = [b - a for a, b in zip(world.widths, world.widths[1:], strict=False)]
    assert max(steps) < 0.1
    world.run(10)
    assert window.width == 64


def test_a_time_that_the_gateway_names_holds_everybody_and_is_bounded() -> None:
    window = CongestionWindow(most=8)
    window.sent()
    window.failed(sent_at=0.0, now=1.0, overloaded=True, retry_after_s=5.0)

    assert not window.may_send(5.9)
    assert window.may_send(6.0)
    window.sent()
    window.failed(sent_at=6.0, now=6.5, overloaded=True, retry_after_s=86400.0)
    assert window.held_until == 6.5 + LONGEST_HOLD_S


def test_a_gateway_that_is_away_is_tried_by_one_at_a_time_ever_more_rarely() -> None:
    world = World(CongestionWindow(most=64), lambda now, _: now + 0.2)
    world.run(5)
    window, now, tries = world.window, world.now, []
    in_flight = window.in_flight
    while now < 300:
        sent, in_flight = in_flight, 0
        while window.may_send(now):
            window.sent()
            sent += 1
        for _ in range(sent):
            window.failed(sent_at=now, now=now + 0.01, overloaded=False)
        tries.append((now, sent))
        now = max(window.held_until, now + 0.02)

    assert [sent for _, sent in tries] == [64, 64] + [1] * (len(tries) - 2)
    assert len(tries) < 25
    window.sent()
    window.answered(sent_at=now, now=now)
    assert not window.away
    assert window.width <= 33, "those who waited do not come all at once"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_window_stays_between_one_and_the_most(seed: int) -> None:
    rnd = random.Random(seed)
    window, now, pending = CongestionWindow(most=rnd.choice((1, 7, 200))), 0.0, list[float]()
    most = window._most
    for _ in range(3000):
        now += rnd.expovariate(10)
        while window.may_send(now) and rnd.random() < 0.9:
            window.sent()
            pending.append(now)
            assert window.in_flight <= max(1, int(window.width))
        if not pending:
            now = max(now, window.held_until)
            continue
        sent_at = pending.pop(rnd.randrange(len(pending)))
        end = rnd.choice(("answered",) * 5 + ("failed", "abandoned"))
        if end == "answered":
            window.answered(sent_at=sent_at, now=now)
        elif end == "failed":
            asked = rnd.choice((None, 0.0, 2.0))
            window.failed(sent_at=sent_at, now=now, overloaded=rnd.random() < 0.5, retry_after_s=asked)
        else:
            window.abandoned()
        assert window.in_flight == len(pending)
        assert 1 <= window.width <= most
