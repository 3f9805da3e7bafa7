"""When a breaker pauses, what it takes for evidence, and when it gives up."""

from __future__ import annotations

import pytest

from hud_orchestrator.records import Outcome
from hud_orchestrator.rules.breaker import AGENT, GATEWAY, Breaker, BreakerRule, Evidence, evidence
from tests.builders import rollout

GOOD, FAILED, UNFIT = Evidence.GOOD, Evidence.FAILED, Evidence.UNFIT
RULE = BreakerRule(share=0.5, window=8, least=4, probes=2, pause_s=2, longest_pause_s=5, give_up_after_s=60)
SUMS = "environment 'sums'"


def fed(breaker: Breaker, *found: Evidence | None, now: float = 0.0) -> list[bool]:
    """Whether each attempt, one after the other, changed the breaker."""
    return [breaker.end(breaker.begin(), one, now=now) for one in found]


@pytest.mark.parametrize("outcome", Outcome)
def test_every_way_to_end_is_evidence_about_what_the_attempt_got_to(outcome: Outcome) -> None:
    graded = outcome.clean or outcome is Outcome.CUT_SHORT
    found = evidence(rollout(outcome=outcome, reward=0.0 if graded else None, tokens=2 if graded else 0))

    blamed = {cause for cause, one in found.items() if one is not GOOD}
    assert blamed == {
        Outcome.NOT_STARTED: {SUMS}, Outcome.LOST: {SUMS}, Outcome.TOOL_FAILURE: {SUMS},
        Outcome.GRADER_FAILED: {SUMS}, Outcome.UNGRADED: {SUMS}, Outcome.AGENT_ERROR: {AGENT},
        Outcome.GATEWAY_FAILED: {GATEWAY}, Outcome.GATEWAY_REFUSED: {GATEWAY},
    }.get(outcome, set())  # fmt: skip
    if outcome.clean:
        assert found == dict.fromkeys((SUMS, GATEWAY, AGENT), GOOD)


def test_an_environment_that_did_not_start_says_nothing_about_the_gateway() -> None:
    assert set(evidence(rollout(outcome=Outcome.NOT_STARTED, reward=None, tokens=0))) == {SUMS}
    assert set(evidence(rollout(outcome=Outcome.GATEWAY_FAILED, reward=None, tokens=0))) == {GATEWAY}


def test_it_pauses_when_the_share_is_reached_and_not_on_fewer_than_it_needs() -> None:
    assert fed(Breaker(RULE), FAILED, FAILED, FAILED) == [False] * 3
    assert fed(Breaker(RULE), GOOD, FAILED, GOOD, FAILED)[-1]
    assert not any(fed(Breaker(RULE), *[GOOD, GOOD, FAILED] * 20))


def test_what_may_be_the_tasks_fault_pauses_only_where_nothing_does_better() -> None:
    assert not any(fed(Breaker(RULE), GOOD, *[UNFIT] * 7))
    assert fed(Breaker(RULE), *[UNFIT] * 4) == [False, False, False, True]


def test_after_a_pause_a_few_probes_decide() -> None:
    breaker = Breaker(RULE)
    fed(breaker, *[GOOD] * 4, *[FAILED] * 4)
    assert not breaker.admits(1.9)
    assert breaker.admits(2.0)

    first, second = breaker.begin(), breaker.begin()
    assert not breaker.admits(2.0)
    assert not breaker.end(first, GOOD, now=3)
    assert breaker.end(second, GOOD, now=3)
    assert breaker.paused_at is None
    assert breaker.admits(3)


def test_a_probe_that_fails_pauses_for_longer_up_to_the_longest() -> None:
    breaker, now, waits = Breaker(RULE), 0.0, []
    fed(breaker, *[FAILED] * 4)
    for _ in range(4):
        waits.append(breaker.next_try_at - now)
        now = breaker.next_try_at
        assert breaker.end(breaker.begin(), FAILED, now=now)

    assert waits == [2, 4, 5, 5]


def test_what_began_before_a_pause_is_no_evidence_after_it() -> None:
    breaker = Breaker(RULE)
    early = [breaker.begin() for _ in range(3)]
    fed(breaker, *[FAILED] * 4)

    assert not any(breaker.end(one, GOOD, now=9) for one in early)
    assert not any(breaker.end(one, FAILED, now=9) for one in early)
    assert (breaker.pauses, breaker.next_try_at) == (1, 2.0)


def test_a_probe_that_says_nothing_leaves_its_place_to_another() -> None:
    breaker = Breaker(RULE)
    fed(breaker, *[FAILED] * 4)
    probes = [breaker.begin() for _ in range(2)]
    assert not breaker.admits(5)

    breaker.end(probes[0], None, now=5)
    assert breaker.admits(5)


def test_what_never_worked_is_given_up_soon_and_what_did_only_after_the_limit() -> None:
    for before, least, most in (((), 6, 6), ((GOOD,), RULE.give_up_after_s, RULE.give_up_after_s + 5)):
        breaker, now = Breaker(RULE), 0.0
        fed(breaker, *before, *[FAILED] * 4)
        while not breaker.hopeless(now):
            now = breaker.next_try_at
            breaker.end(breaker.begin(), FAILED, now=now)
        assert least <= now <= most
