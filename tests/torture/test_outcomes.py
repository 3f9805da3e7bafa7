"""Every way that an environment can misbehave has its outcome, by its deadline plus the teardown."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.ladder import Limits
from hud_orchestrator.records import Outcome, Phase, Task, Ticket
from tests.torture.cruel import GRADES, MISDEEDS
from tests.torture.world import CRUEL, TEARDOWN_S, attempt_all, attempter, cruel, pool

LIMITS = Limits(deadline_s=13, grading_reserve_s=3, start_s=9, infrastructure_retries=0)

KILL_S = 6
"""For a kill, and a machine with something else to do."""

ENDED = (Outcome.MAX_TURNS, Phase.TEARDOWN)
FINISHED = (Outcome.FINISHED, Phase.TEARDOWN)
NOT_STARTED = (Outcome.NOT_STARTED, Phase.START)
UNGRADED = (Outcome.UNGRADED, Phase.GRADE)
LOST_ACTING = (Outcome.LOST, Phase.ACT)
LOST_GRADING = (Outcome.LOST, Phase.GRADE)
GRADER_FAILED = (Outcome.GRADER_FAILED, Phase.GRADE)

HANGING = ("hang", "block", "deaf", "stubborn", "session")
FAILING = ("fail", "cancel")
"""These answer with an error, so the environment is still there."""

End = tuple[Outcome, Phase]


def expected(at: str, how: str) -> End:
    """The end of an environment that misbehaves."""
    if at == "start":
        return NOT_STARTED
    if at == "teardown":
        return ENDED
    if at == "turn":
        return UNGRADED if how in HANGING else LOST_ACTING
    return GRADER_FAILED if how in (*HANGING, *FAILING) else LOST_GRADING


CASES: dict[str, tuple[Task, End]] = {
    f"{at}: {how}": (cruel(at=at, how=how, patience_s=1.5 if at == "turn" else None), expected(at, how))
    for at in ("start", "turn", "grade", "teardown")
    for how in MISDEEDS
}
CASES |= {
    f"grade is {grade}": (cruel(grade=grade), ENDED if grade == "good" else GRADER_FAILED) for grade in GRADES
}
CASES |= {
    f"tool: {how}": (cruel("craft", "tooled", at="tool", how=how, patience_s=1.5), end)
    for how, end in {
        "": FINISHED,
        "nonsense": FINISHED,
        "fail": FINISHED,
        "image": ENDED,
        "hang": UNGRADED,
        "block": UNGRADED,
        "leave": LOST_ACTING,
        "huge": LOST_ACTING,
    }.items()
}
CASES |= {
    "no grade at all": (cruel("silent"), FINISHED),
    "no such template": (cruel("kind"), NOT_STARTED),
    "no such environment": (cruel(env="kind"), NOT_STARTED),
    "arguments that it does not take": (cruel(colour="red"), NOT_STARTED),
    "a prompt that is a number": (cruel(prompt=7), NOT_STARTED),
    "a prompt with half a character": (cruel(prompt="\ud800"), ENDED),
    "a prompt of odd messages": (cruel(prompt=[{"role": "user", "content": {"text": "x"}}]), ENDED),
    "the gateway refuses": (cruel(prompt="gateway refuses"), (Outcome.GATEWAY_REFUSED, Phase.ACT)),
    "the gateway hangs": (cruel(prompt="gateway hangs", patience_s=1), (Outcome.CUT_SHORT, Phase.TEARDOWN)),
}


async def attempted(placement: Placement, cases: dict[str, tuple[Task, End]]) -> None:
    """Attempt all cases, and look at how they ended."""
    tickets = [Ticket(group=n, member=0, task=task) for n, (task, _) in enumerate(cases.values())]
    with anyio.fail_after(150):
        async with attempter(placement, LIMITS, concurrency=16) as attempts:
            rollouts = await attempt_all(attempts, tickets)

    ended = dict(zip(cases, rollouts, strict=True))
    wrong = {
        case: (one.outcome, one.phase, one.detail)
        for case, one in ended.items()
        if (one.outcome, one.phase) != cases[case][1]
    }
    assert wrong == {}, "\n".join(f"{case}: {end}" for case, end in wrong.items())
    assert [one.seconds for one in rollouts if one.seconds > LIMITS.deadline_s + TEARDOWN_S + KILL_S] == []
    graded = {Outcome.FINISHED, Outcome.MAX_TURNS, Outcome.CUT_SHORT, Outcome.GATEWAY_REFUSED}
    assert all((one.reward is not None) == (one.outcome in graded) for one in rollouts)


async def test_every_misdeed_has_its_outcome_by_its_deadline_and_the_teardown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with pool(tmp_path / "log") as processes:
        await attempted(processes, CASES)


async def test_over_tcp_the_outcomes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hows = ("hang", "stubborn", "leave", "fail", "fork")
    places = ("start", "turn", "grade", "teardown")
    cases = {case: CASES[case] for at in places for case in (f"{at}: {how}" for how in hows)}
    with (tmp_path / "log").open("wb") as log:
        pace = Pace(ready_s=60, teardown_s=TEARDOWN_S)
        await attempted(Spawned(CRUEL, command=None, log_file=log, pace=pace), cases)
