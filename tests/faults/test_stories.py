"""What happens when one thing goes wrong, told by the real daemon in the simulated world."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest

from hud_orchestrator.errors import ExitCode
from tests.faults.story import Request, Story
from tests.simulation.service import Answer

Death = Literal["kill", "power cut"]
MINUTE, HOUR = 60.0, 3600.0


def at(name: str, nth: int, fate: str | int) -> Callable[[Request], str | int | None]:
    """One request of that name meets with *fate*."""
    return lambda request: fate if (request.name, request.nth) == (name, nth) else None


def uneven(directory: Path, **service: Any) -> Story:
    """A run whose steps take two calls: of some members the gateway does not tell the tokens."""
    story, completions = Story(directory, members=4, **service), count(1)
    story.service.mute = lambda _: next(completions) % 8 == 4
    return story


def second_call(story: Story, request: Request, step: int) -> bool:
    """Whether *request* is to add to what a first call of *step* has left."""
    slug = next(iter(story.service.slugs.values()), None)
    adds = request.name == "forward-backward" and slug is not None and len(slug.batches) > 0
    return adds and slug is not None and len(slug.nodes) == step - 1


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def two_runs(directory: Path, **settings: Any) -> tuple[Story, Story]:
    """Two runs on one slug."""
    for name in ("one", "other"):
        (directory / name).mkdir()
    one, other = Story(directory / "one"), Story(directory / "other", seed=100, **settings)
    other.service, other.clock = one.service, one.clock
    return one, other


def dies_in_the_second_step(story: Story) -> Callable[[Request], str | None]:
    """Its ``optim_step`` is lost, and the lease cannot be taken anew."""

    def dies(request: Request) -> str | None:
        if request.name == "optim-step" and request.nth == 2:
            return "lost_request"
        return "refused" if story.applied() == 1 and request.name == "lease" else None

    return dies


@pytest.mark.parametrize(
    ("fate", "event"), [("failed_before", "step.abandoned"), ("failed_after", "step.adopted")]
)
def test_an_answer_of_5xx_to_an_optim_step_says_nothing_and_the_tree_decides(
    story: Story, fate: str, event: str
) -> None:
    end = story.live(at("optim-step", 2, fate))

    assert end.code == ExitCode.DONE
    assert [line["step"] for line in story.events(event)] == [2]
    story.check()


def test_a_step_that_is_done_after_its_call_was_given_up_is_adopted(story: Story) -> None:
    end = story.live(at("optim-step", 2, "slow"))

    assert end.code == ExitCode.DONE
    assert len(story.events("step.adopted")) == 1
    story.check()


def test_a_gradient_that_arrives_after_its_call_was_given_up_reaches_no_other_step(story: Story) -> None:
    end = story.live(at("forward-backward", 2, "slow"))

    assert end.code == ExitCode.DONE
    assert len(story.events("step.abandoned")) >= 1
    story.check()


def test_a_service_that_restarts_in_the_middle_of_a_step_costs_that_step_once_more(story: Story) -> None:
    def restarts(request: Request) -> None:
        if (request.name, request.nth) == ("optim-step", 2):
            story.service.restart(story.clock.now)

    end = story.live(restarts)

    assert end.code == ExitCode.DONE
    assert [line["step"] for line in story.events("step.abandoned")] == [2]
    story.check()


def test_a_service_that_is_away_for_a_minute_is_waited_for(story: Story) -> None:
    since: list[float] = []

    def away(request: Request) -> str | None:
        if (request.name, request.nth) == ("forward-backward", 2):
            since.append(request.at)
        return "refused" if since and request.at < since[0] + MINUTE else None

    end = story.live(away)

    assert end.code == ExitCode.DONE
    assert story.events("call.repeated")
    story.check()


def test_a_service_that_is_away_for_an_hour_ends_the_run_with_69_and_the_next_start_goes_on(
    story: Story,
) -> None:
    end = story.live(lambda request: "refused" if request.at > 1000.5 else None)
    again = story.live(lambda request: "refused")
    story.pause(HOUR)
    last = story.live()

    assert (end.code, again.code, last.code) == (ExitCode.UNREACHABLE, ExitCode.UNREACHABLE, ExitCode.DONE)
    story.check()


def test_a_fork_whose_answer_was_lost_is_waited_for_until_it_has_been_made(story: Story) -> None:
    handle, looks = story.service.handle, iter(range(3))

    def slowly(
        method: str, path: str, body: Any, *, key: str | None, token: int | None, now: float
    ) -> Answer:
        answer = handle(method, path, body, key=key, token=token, now=now)
        if path == "/v2/models" and story.service.slugs and next(looks, None) is not None:
            answer.body["items"].pop()  # it has been asked for, and is still being made
            answer.body["total"] -= 1
        return answer

    story.service.handle = slowly  # type: ignore[method-assign]

    end = story.live(at("fork", 1, "lost_answer"))

    assert end.code == ExitCode.DONE
    assert story.events("model.awaited")
    story.check()


def test_a_service_without_room_costs_the_step_once_more(story: Story) -> None:
    end = story.live(at("optim-step", 2, 507))

    assert end.code == ExitCode.DONE
    assert [line["step"] for line in story.events("step.abandoned")] == [2]
    story.check()


@pytest.mark.parametrize("lag_s", [2.0, 20.0, 45.0, 90.0])
def test_a_list_of_checkpoints_that_lags_is_waited_for(story: Story, lag_s: float) -> None:
    def lags(request: Request) -> None:
        if (request.name, request.nth) == ("optim-step", 2):
            story.service.list_lag_s = lag_s

    assert story.live(lags).code == ExitCode.DONE
    story.check()


def test_a_lost_first_step_is_waited_for_where_the_list_lags_as_no_head_can_be_set_back(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, leases=True)

    def lags(request: Request) -> str | None:
        story.service.list_lag_s = 20.0
        return "failed_after" if (request.name, request.nth) == ("optim-step", 1) else None

    assert story.live(lags).code == ExitCode.DONE
    assert [line["step"] for line in story.events("step.adopted")] == [1]
    assert story.events("step.abandoned") == []
    story.check()


def test_a_list_that_lags_for_longer_than_it_is_waited_for_is_nobodys_doing(story: Story) -> None:
    def lags(request: Request) -> None:
        if (request.name, request.nth) == ("optim-step", 2):
            story.service.list_lag_s = 10 * MINUTE

    end = story.live(lags)
    story.service.list_lag_s = 0.0
    last = story.live()

    assert (end.code, last.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.DONE)
    assert "raise trainer.settle_s" in story.said(end)
    story.check()


def test_a_gateway_that_serves_the_old_head_for_a_while_trains_nothing_too_old(tmp_path: Path) -> None:
    story = Story(tmp_path, gateway_lag_s=3.0)

    assert story.live().code == ExitCode.DONE
    assert {line["reason"] for line in story.events("group.dropped")} >= {"stale"}
    story.check()


@pytest.mark.parametrize("how", ["failed_before", "slow"])
def test_a_tree_that_cannot_be_read_after_a_lost_answer_is_settled_by_the_next_start(
    story: Story, how: str
) -> None:
    lost: list[Request] = []

    def unreadable(request: Request) -> str | None:
        if (request.name, request.nth) == ("optim-step", 2):
            lost.append(request)
            return "lost_answer"
        return how if lost and request.name == "checkpoints" else None

    end = story.live(unreadable)
    last = story.live()

    assert (end.code, last.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.DONE)
    assert len(story.events("step.adopted")) == 1
    story.check()


def test_a_tree_that_cannot_be_read_after_a_step_ends_the_run_with_69_and_the_next_start_goes_on(
    story: Story,
) -> None:
    taken: list[Request] = []

    def unreadable(request: Request) -> str | None:
        if (request.name, request.nth) == ("optim-step", 2):
            taken.append(request)
        return "refused" if taken and request.name == "checkpoints" else None

    end = story.live(unreadable)
    last = story.live()

    assert (end.code, last.code) == (ExitCode.UNREACHABLE, ExitCode.DONE)
    assert len(story.events("step.adopted")) == 1
    story.check()


def test_a_step_that_is_refused_with_409_whenever_it_is_tried_ends_the_run_with_3(story: Story) -> None:
    end = story.live(lambda one: 409 if one.name == "forward-backward" and one.nth > 1 else None)
    again = story.live(lambda one: 409 if one.name == "forward-backward" else None)
    last = story.live()

    assert (end.code, again.code, last.code) == (
        ExitCode.OUTCOME_UNKNOWN,
        ExitCode.OUTCOME_UNKNOWN,
        ExitCode.DONE,
    )
    assert "said by the story" in story.said(end)
    story.check()


def test_a_step_that_is_refused_is_no_lost_one(tmp_path: Path) -> None:
    story = Story(tmp_path, lost_steps="drop")
    end = story.live(at("forward-backward", 2, 409))

    assert end.code == ExitCode.DONE
    assert [line["redone"] for line in story.events("step.abandoned")] == [True]
    with story.store() as connection:
        assert connection.execute("SELECT count(*) FROM steps WHERE state = 'skipped'").fetchone()[0] == 0
    story.check()


def test_a_guard_hears_of_a_loss_that_is_not_finite_also_where_lost_steps_are_dropped(tmp_path: Path) -> None:
    guard = {"metric": "loss", "not_finite": True, "action": "warn"}
    story = Story(tmp_path, lost_steps="drop", guards=[guard])
    end = story.live(lambda one: 409 if one.name == "forward-backward" and 1 < one.nth < 7 else None)

    assert end.code == ExitCode.DONE
    assert [line["step"] for line in story.events("guard.fired")] == [2]
    with story.store() as connection:
        endings = connection.execute("SELECT DISTINCT ending FROM groups WHERE step = 2").fetchall()
    assert {row["ending"] for row in endings} - {"no_spread"} == {"not_finite"}
    story.check()


@pytest.mark.parametrize("tokens", [True, False])
def test_an_evaluation_is_of_the_policy_of_its_step_also_where_the_gateway_serves_the_old_one(
    tmp_path: Path, *, tokens: bool
) -> None:
    # The first weights too, whose name is no checkpoint's.
    story = Story(tmp_path, evaluates=True, gateway_lag_s=20.0)
    story.service.mute = lambda request: not tokens and request["temperature"] == 0
    end = story.live()

    assert end.code == ExitCode.DONE
    with story.store() as connection:
        made = connection.execute("SELECT checkpoint, graded FROM evaluations ORDER BY version").fetchall()
    assert [row["graded"] for row in made] == [2] * (story.steps + 1)
    # As often as they say, at the least: only an attempt of an evaluation is without chance.
    wanted: Counter[str | None] = Counter()
    for row in made:
        wanted[row["checkpoint"]] += row["graded"]
    assert wanted <= story.service.judged
    story.check()


@pytest.mark.parametrize("how", ["refused", "failed_before", "lost_request"])
def test_an_evaluation_that_the_gateway_fails_ends_the_run_with_69_and_the_next_start_makes_it(
    tmp_path: Path, how: str
) -> None:
    story = Story(tmp_path, evaluates=True)
    end = story.live(lambda one: how if one.name == "completions" else None)
    last = story.live()

    assert (end.code, last.code) == (ExitCode.UNREACHABLE, ExitCode.DONE)
    assert story.said(end).endswith("mend it and run again")
    story.check()


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("logprob", [1e30, math.nan, math.inf])
def test_a_loss_of_ours_that_is_not_finite_is_a_step_that_a_guard_hears_of(
    tmp_path: Path, logprob: float, *, watched: bool
) -> None:
    guard = {"metric": "loss", "not_finite": True, "action": "warn"}
    story = Story(tmp_path, loss="client:importance_sampling", guards=[guard] if watched else [])
    likely = story.service.logprob

    def wild(request: Request) -> None:
        if request.name == "forward":
            story.service.logprob = logprob if request.nth == 2 else likely

    end = story.live(wild)

    story.service.logprob = likely
    if watched:
        assert end.code == ExitCode.DONE
        assert [line["step"] for line in story.events("guard.fired")] == [2]
    else:
        assert end.code == ExitCode.RUN_FAILED
        assert "let a guard watch for a loss that is not_finite" in story.said(end)
        assert story.live().code == ExitCode.DONE
    story.check()


def test_a_loss_that_is_not_finite_is_not_skipped_for_a_guard_on_another_figure(tmp_path: Path) -> None:
    guard = {"metric": "kl", "not_finite": True, "action": "warn"}
    story = Story(tmp_path, loss="client:importance_sampling", guards=[guard])
    story.service.logprob = 1e30

    assert story.live().code == ExitCode.RUN_FAILED
    assert story.applied() == 0


def test_a_step_of_which_nothing_was_sent_is_no_lost_one(tmp_path: Path) -> None:
    story = Story(tmp_path, lost_steps="drop")
    end = story.live(lambda one: "refused" if one.name == "forward-backward" and one.nth > 1 else None)
    last = story.live()

    assert (end.code, last.code) == (ExitCode.UNREACHABLE, ExitCode.DONE)
    with story.store() as connection:
        assert connection.execute("SELECT count(*) FROM steps WHERE state = 'skipped'").fetchone()[0] == 0
    story.check()


def test_guards_look_at_every_step_once_whenever_the_daemon_is_killed(tmp_path: Path) -> None:
    always = {"metric": "reward_mean", "below": 2.0, "cool_down": 0, "action": "pause"}
    number, killed = 0, True
    while killed:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        story = Story(place, steps=2, guards=[always])
        first = story.live(at_work=partial(_at, 20 + number, "kill"))
        codes = [story.live().code for _ in range(3)]
        killed = first.killed
        with story.store() as connection:
            fired = connection.execute("SELECT step, heeded FROM firings ORDER BY id").fetchall()
        assert [tuple(row) for row in fired] == [(1, 1), (2, 1)]
        assert codes[-1] == ExitCode.DONE
        story.check()
    assert number > 10


def test_a_step_that_is_lost_five_times_ends_the_run_with_3_and_the_next_start_settles_it(
    story: Story,
) -> None:
    end = story.live(lambda one: "failed_before" if one.name == "optim-step" and one.nth > 1 else None)
    last = story.live()

    assert (end.code, last.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.DONE)
    story.check()


def test_a_key_that_is_revoked_ends_the_run_with_77_and_another_goes_on(story: Story) -> None:
    end = story.live(at("optim-step", 2, 401))
    last = story.live()

    assert (end.code, last.code) == (ExitCode.KEY_REFUSED, ExitCode.DONE)
    story.check()


@pytest.mark.parametrize("status", [402, 413, 422, 429])
def test_a_call_that_is_refused_ends_the_run_with_the_services_words(story: Story, status: int) -> None:
    end = story.live(at("forward-backward", 2, status))
    last = story.live()

    assert (end.code, last.code) == (ExitCode.RUN_FAILED, ExitCode.DONE)
    assert "said by the story" in story.said(end)
    story.check()


def test_a_disk_that_is_full_for_the_store_ends_the_run_with_74_and_the_next_start_goes_on(
    story: Story,
) -> None:
    assert story.live(pages=1_000_000, at_work=partial(_at, 60, "kill")).killed
    with story.store() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    end = story.live(pages=pages + 1)
    last = story.live()

    assert (end.code, last.code) == (ExitCode.STATE_UNWRITABLE, ExitCode.DONE)
    story.check()


@pytest.mark.parametrize("how", ["kill", "power cut"])
def test_a_kill_or_a_power_cut_at_any_commit_repeats_and_loses_no_step(tmp_path: Path, how: Death) -> None:
    killed, number = True, 0
    while killed:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        story = Story(place, steps=2)
        killed = story.live(at_work=partial(_at, number, how)).killed
        assert story.live().code == ExitCode.DONE
        story.check()
    assert number > 40


def test_a_pause_that_a_kill_came_before_ends_the_next_start_with_79_and_the_one_after_goes_on(
    tmp_path: Path,
) -> None:
    guard = {"metric": "reward_mean", "above": -1, "in_a_row": 2, "action": "pause"}
    killed, number, codes = True, 0, []
    while killed:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        story = Story(place, guards=[guard])
        killed = story.live(at_work=partial(_at, number, "kill")).killed
        with story.store() as connection:
            fired = connection.execute("SELECT 1 FROM firings WHERE heeded = 0").fetchall() if killed else []
        if fired:
            codes.append((story.live().code, story.live().code))
            story.check()
    assert codes
    assert set(codes) == {(ExitCode.PAUSED, ExitCode.DONE)}


def _at(number: int, how: Death, now: int) -> Death | None:
    return how if now == number else None


def test_a_clock_that_jumps_changes_no_deadline_and_no_step(story: Story) -> None:
    def jumps(request: Request) -> None:
        story.clock.ahead_s = -86_400.0 if request.nth % 2 else 86_400.0

    end = story.live(jumps)

    assert end.code == ExitCode.DONE
    assert not story.events("rollout.failed")
    assert story.clock.now < 1000 + MINUTE
    story.check()


def test_a_notebook_that_steps_the_slug_ends_the_run_with_76(story: Story) -> None:
    def steps(request: Request) -> None:
        if (request.name, request.nth) == ("forward-backward", 3):
            story.notebook("forward-backward")
            story.notebook("optim-step")

    end = story.live(steps)

    assert end.code == ExitCode.HEAD_MOVED
    assert "somebody else" in story.said(end)


def test_a_gradient_of_a_notebook_is_in_no_step_of_the_history(story: Story) -> None:
    def adds(request: Request) -> None:
        if (request.name, request.nth) == ("optim-step", 3):
            story.notebook("forward-backward")

    end = story.live(adds)

    assert end.code == ExitCode.DONE
    assert [line["step"] for line in story.events("step.abandoned")] == [3]
    story.check()


def test_what_a_notebook_left_before_a_run_began_is_in_no_step_of_it(tmp_path: Path) -> None:
    one, other = two_runs(tmp_path)
    assert one.live().code == ExitCode.DONE
    one.notebook("forward-backward")

    assert other.live().code == ExitCode.DONE

    (slug,) = other.service.slugs.values()
    assert len(slug.nodes) == one.applied() + other.applied()
    assert not any("somebody-elses" in node.traces for node in slug.nodes)


def test_a_gradient_of_a_notebook_is_not_in_the_first_step_on_somebodys_head_either(tmp_path: Path) -> None:
    one, other = two_runs(tmp_path)
    assert one.live().code == ExitCode.DONE

    def adds(request: Request) -> None:
        if (request.name, request.nth) == ("optim-step", 1):
            other.notebook("forward-backward")

    assert other.live(adds).code == ExitCode.DONE

    assert [line["step"] for line in other.events("step.abandoned")] == [1]
    (slug,) = other.service.slugs.values()
    (left,) = [node for node in slug.nodes if "somebody-elses" in node.traces]
    assert not any(node.parent == left.id for node in slug.nodes)


def test_a_service_that_counts_in_a_way_of_its_own_costs_one_step_once_more(story: Story) -> None:
    story.service.counts_extra = 1

    end = story.live()

    assert end.code == ExitCode.DONE
    assert [line["step"] for line in story.events("step.abandoned")] == [2]
    story.check()


def test_a_step_of_a_notebook_that_takes_as_many_datums_is_not_taken_for_a_lost_one(story: Story) -> None:
    def loses(request: Request) -> str | None:
        if (request.name, request.nth) != ("optim-step", 4):
            return None
        story.takes_over()
        return "lost_request"

    end = story.live(loses)

    assert end.code == ExitCode.DONE
    assert not story.events("step.adopted")
    assert [line["step"] for line in story.events("step.abandoned")] == [4]
    story.check()


@pytest.mark.parametrize("digits", [9, 15, 16])
def test_a_service_that_rounds_learning_rates_does_not_take_a_run_that_is_alone_for_two(
    tmp_path: Path, digits: int
) -> None:
    story = Story(tmp_path, steps=24)
    story.service.digits = digits

    def loses(request: Request) -> str | None:
        lost = {0: "failed_after", 1: "lost_request"}.get(request.nth % 5)
        return lost if request.name == "optim-step" and request.nth > 1 else None

    assert story.live(loses).code == ExitCode.DONE
    story.check()


def test_where_learning_rates_are_rounded_steps_whose_answers_are_all_lost_are_adopted(story: Story) -> None:
    story.service.digits = 9
    story.bring_a_fork()

    def loses(request: Request) -> str | None:
        return "failed_after" if request.name == "optim-step" else None

    # The first step of a fork without a head is settled by the next start.
    assert story.live(loses).code == ExitCode.OUTCOME_UNKNOWN
    assert story.live(loses).code == ExitCode.DONE
    assert len(story.events("step.adopted")) == story.applied() > 1
    story.check()


def test_a_rollout_of_the_head_that_a_run_began_with_is_as_old_as_it_is_also_in_the_next_life(
    tmp_path: Path,
) -> None:
    one, other = two_runs(tmp_path, staleness=1)
    assert one.live().code == ExitCode.DONE
    (slug,) = other.service.slugs.values()
    first_head, before = slug.head, len(slug.nodes)
    # For long enough that what is sampled after the first life is of that head too.
    other.service.gateway_lag_s = 60.0
    other.pause(HOUR)

    def dies_after_its_first_step(request: Request) -> int | None:
        return 401 if len(slug.nodes) > before and request.name == "completions" else None

    assert other.live(dies_after_its_first_step).code == ExitCode.KEY_REFUSED
    began = set(other.service.sampled)
    assert other.live().code == ExitCode.DONE

    with other.store() as connection:
        versions = {
            row["trace_id"]: (row["version_min"], row["version_max"])
            for row in connection.execute("SELECT * FROM rollouts WHERE num_tokens > 0")
        }
    late = {
        versions[trace]
        for trace, heads in other.service.sampled.items()
        if heads == {first_head} and trace not in began and trace in versions
    }
    assert late == {(0, 0)}


@pytest.mark.parametrize("lag_s", [0.9, 10.0])
def test_nothing_is_trained_on_what_was_sampled_by_a_head_before_the_one_that_a_run_began_with(
    tmp_path: Path, lag_s: float
) -> None:
    one, other = two_runs(tmp_path, steps=8, staleness=1)
    assert one.live().code == ExitCode.DONE
    (slug,) = other.service.slugs.values()
    older = {node.id for node in slug.nodes} - {slug.head}
    other.service.gateway_lag_s = lag_s

    assert other.live().code == ExitCode.DONE

    assert any(heads <= older for heads in other.service.sampled.values())
    for trace in other.trained():
        assert not other.service.sampled[trace] <= older
    # It was attempted again until the gateway had caught up, and the first step is a step.
    assert other.step_one() is not None


def test_nothing_is_trained_on_what_a_checkpoint_that_was_put_aside_samples_from_then_on(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, steps=14, staleness=1, gateway_lag_s=0.9)
    lost = {2: "lost_request", 3: "lost_answer"}

    end = story.live(lambda request: lost.get(request.nth) if request.name == "optim-step" else None)

    assert end.code == ExitCode.DONE
    with story.store() as connection:
        strays = {
            stray
            for (aside,) in connection.execute("SELECT strays FROM steps")
            for stray in json.loads(aside)
        }
    sampled = {trace for trace, heads in story.service.sampled.items() if heads <= strays}
    assert sampled
    assert not sampled & story.trained()
    story.check()


def test_a_late_request_of_ours_that_moves_the_head_is_undone(story: Story) -> None:
    def set_head(request: Request) -> str | None:
        slugs = list(story.service.slugs.values())
        if slugs and request.name == "completions" and len(slugs[0].nodes) == 3 and not late:
            late.append(f"/v2/models/{slugs[0].id}/head")
            body = {"checkpoint_id": slugs[0].nodes[0].id}
            story.service.handle("PUT", late[0], body, key=None, token=None, now=story.clock.now)
        return "lost_answer" if (request.name, request.nth) == ("forward-backward", 2) else None

    late: list[str] = []
    end = story.live(set_head)

    assert (end.code, len(late)) == (ExitCode.DONE, 1)
    assert [line["event"] for line in story.events("head.regained")] == ["head.regained"]
    assert story.clock.now < 1000 + 5 * MINUTE
    story.check()


def test_another_run_that_trained_the_slug_meanwhile_ends_this_one_with_76(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = Story(tmp_path / "one"), Story(tmp_path / "other", seed=100)
    other.service, other.clock = one.service, one.clock
    first = one.live(at_work=partial(_at, 75, "kill"))
    second = other.live()
    third = one.live()

    assert first.killed
    assert (second.code, third.code) == (ExitCode.DONE, ExitCode.HEAD_MOVED)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_a_service_that_restarts_between_two_calls_of_a_step_costs_that_step_once_more(
    tmp_path: Path, step: int, leases: bool, counts: bool
) -> None:
    story = uneven(tmp_path, leases=leases, counts=counts)

    def restarts(request: Request) -> str | None:
        if not story.service.restarts and second_call(story, request, step):
            story.service.restart(story.clock.now)
            return "refused"
        return None

    ends = [story.live(restarts)]
    if step == 1 and not leases:
        # A fresh fork has no head that could be set to drop what is left: the next start takes another one.
        assert ends[0].code == ExitCode.OUTCOME_UNKNOWN
        ends.append(story.live())

    assert ends[-1].code == ExitCode.DONE
    assert story.service.restarts == 1
    assert [line["step"] for line in story.events("step.abandoned")] == [step]
    story.check()


@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_a_gradient_that_is_lost_between_two_calls_unseen_is_missed_when_the_step_is_counted(
    tmp_path: Path, step: int, leases: bool
) -> None:
    story = uneven(tmp_path, leases=leases)

    def loses(request: Request) -> None:
        if not story.service.restarts and second_call(story, request, step):
            story.service.restart(story.clock.now)

    ends = [story.live(loses)]
    if step == 1:
        assert ends[0].code == ExitCode.OUTCOME_UNKNOWN
        assert "datums, and" in story.said(ends[0])
        ends.append(story.live())

    assert ends[-1].code == ExitCode.DONE
    assert story.service.restarts == 1
    assert [line["step"] for line in story.events("step.abandoned")] == [step]
    story.check()


def test_a_step_that_may_have_lost_a_gradient_is_no_lost_one(tmp_path: Path) -> None:
    story = uneven(tmp_path, lost_steps="drop")

    def blinks(request: Request) -> str | None:
        if not story.events("call.repeated") and second_call(story, request, 2):
            return "refused"
        return None

    assert story.live(blinks).code == ExitCode.DONE
    assert [line["redone"] for line in story.events("step.abandoned")] == [True]
    story.check()


@pytest.mark.parametrize("counts_extra", [0, 1])
def test_a_fork_that_nothing_can_replace_is_trained_though_a_gradient_may_be_lost(
    tmp_path: Path, counts_extra: int
) -> None:
    story = uneven(tmp_path)
    story.service.counts_extra = counts_extra
    story.bring_a_fork()

    def blinks(request: Request) -> str | None:
        if not story.events("call.repeated") and second_call(story, request, 1):
            return "refused"
        return None

    assert story.live(blinks).code == ExitCode.DONE
    assert len(story.service.slugs) == 1
    story.check()


def test_a_late_step_that_comes_while_the_head_is_set_back_is_no_persons_doing(story: Story) -> None:
    came: list[str] = []

    def comes(request: Request) -> str | None:
        if (request.name, request.nth) == ("optim-step", 2):
            came.append("lost")
            return "lost_request"
        if request.name == "head" and came == ["lost"]:
            came.append("set")
        elif request.name == "checkpoints" and came == ["lost", "set"]:
            came.append("late")
            story.notebook("forward-backward")
            story.notebook("optim-step")
        elif request.name == "forward-backward" and came == ["lost", "set", "late"]:
            came.append("lost again")
            return "lost_request"
        return None

    assert story.live(comes).code == ExitCode.DONE
    assert len(came) == 4
    story.check()


def test_an_old_list_while_a_step_is_open_is_no_persons_doing(story: Story) -> None:
    def falls_back(request: Request) -> str | None:
        if (request.name, request.nth) == ("optim-step", 2):
            story.pause(10 * MINUTE)
        if (request.name, request.nth) == ("optim-step", 3):
            story.service.list_lag_s = 5 * MINUTE
            return "lost_request"
        return None

    end = story.live(falls_back)
    story.service.list_lag_s = 0.0
    last = story.live()

    assert (end.code, last.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.DONE)
    story.check()


def test_a_run_that_had_no_lease_at_first_knows_its_late_calls_when_it_has_one(story: Story) -> None:
    late: list[Request] = []

    def comes_late(request: Request) -> str | int | None:
        if (request.name, request.nth) == ("optim-step", 2):
            return "lost_request"
        if (request.name, request.nth) == ("optim-step", 4):
            late.append(request)
            story.notebook("optim-step")
            return None
        return 401 if late else None

    first = story.live(comes_late)
    story.service.leases = True
    last = story.live()

    assert (first.code, last.code) == (ExitCode.KEY_REFUSED, ExitCode.DONE)
    story.check()


def test_a_step_asks_to_keep_the_head_that_it_would_be_settled_by(story: Story) -> None:
    asked: list[frozenset[str]] = []

    def notes(request: Request) -> None:
        if request.name == "optim-step":
            asked.append(request.keep)

    assert story.live(notes).code == ExitCode.DONE
    (slug,) = story.service.slugs.values()
    heads = [node.parent for node in slug.nodes]
    assert len(asked) == len(heads)
    assert all(head in kept for head, kept in zip(heads[1:], asked[1:], strict=True))


@pytest.mark.parametrize("leases", [True, False])
def test_a_head_that_a_person_moved_while_a_step_was_open_ends_the_run_with_76(
    tmp_path: Path, leases: bool
) -> None:
    story, lost = Story(tmp_path, leases=leases), []

    def loses(request: Request) -> str | None:
        if (request.name, request.nth) == ("optim-step", 3):
            lost.append(request)
            return "lost_request"
        return "failed_before" if lost else None

    first = story.live(loses)
    story.pause(HOUR)
    (slug,) = story.service.slugs.values()
    ours, theirs = slug.head, slug.nodes[0].id
    slug.head = theirs
    second = story.live()

    assert (first.code, second.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.HEAD_MOVED)
    assert f"the head is {theirs}: somebody else moved it" in story.said(second)
    assert slug.head == theirs

    slug.head = ours
    assert story.live().code == ExitCode.DONE
    story.check()


@pytest.mark.parametrize("leases", [True, False])
def test_a_step_of_somebody_else_that_may_be_a_lost_one_of_ours_is_in_no_step(
    tmp_path: Path, leases: bool
) -> None:
    story = Story(tmp_path, leases=leases)

    def loses_and_ends(request: Request) -> str | int | None:
        if (request.name, request.nth) == ("optim-step", 2):
            return "lost_request"
        slugs = list(story.service.slugs.values())
        return 401 if slugs and len(slugs[0].nodes) == 3 and request.name == "completions" else None

    first = story.live(loses_and_ends)
    story.pause(HOUR)
    story.notebook("forward-backward")
    story.notebook("optim-step")
    (slug,) = story.service.slugs.values()
    theirs = slug.head
    second = story.live()

    assert first.code == ExitCode.KEY_REFUSED
    if leases:
        assert second.code == ExitCode.HEAD_MOVED
        assert f"checkpoint {theirs} was made on top of" in story.said(second)
        assert slug.head == theirs
    else:
        # Nothing tells it from a lost call that came late: it is in no step all the same.
        assert second.code == ExitCode.DONE
        assert [line["late"] for line in story.events("head.regained")] == [theirs]
        story.check()


def test_a_step_that_was_lost_and_then_has_nothing_to_step_on_is_not_taken_for_one_that_is_not_finite(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, guards=[{"metric": "loss", "not_finite": True, "action": "pause"}])

    def spoils(request: Request) -> str | None:
        if request.name == "optim-step" and 2 <= request.nth <= 5:
            return "lost_request"
        if (request.name, request.nth) == ("optim-step", 6):
            story.service.restart(story.clock.now)
        return None

    first, second = story.live(spoils), story.live()

    assert (first.code, second.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.DONE)
    assert not story.events("guard.fired")
    story.check()


@pytest.mark.parametrize("own", [True, False])
def test_a_step_of_a_notebook_while_the_run_is_down_is_not_taken_for_the_one_that_it_has_in_hand(
    tmp_path: Path, own: bool
) -> None:
    loss = "client:importance_sampling" if own else "importance_sampling"
    story = Story(tmp_path, leases=True, loss=loss)

    first = story.live(dies_in_the_second_step(story))
    # What it had accumulated is gone with the lease: the step is of the notebook's gradient alone.
    story.pause(HOUR)
    story.notebook("forward-backward")
    story.notebook("optim-step")
    (slug,) = story.service.slugs.values()
    theirs = slug.nodes[-1]
    second = story.live()

    assert (first.code, second.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.HEAD_MOVED)
    assert theirs.traces == ("somebody-elses",)
    assert slug.head == theirs.id
    assert f"set the head back to {theirs.parent}" in story.said(second)

    story.set_head(theirs.parent)
    assert story.live().code == ExitCode.DONE
    story.check()


def test_a_step_that_was_made_is_not_put_over_what_a_notebook_has_made_while_the_run_was_down(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, leases=True)

    def loses_a_call_and_dies_before_it_sees_the_second_step(request: Request) -> str | int | None:
        if (request.name, request.nth) == ("optim-step", 1):
            return "lost_request"
        slugs = list(story.service.slugs.values())
        return 413 if slugs and len(slugs[0].nodes) == 2 and request.name == "checkpoints" else None

    first = story.live(loses_a_call_and_dies_before_it_sees_the_second_step)
    (slug,) = story.service.slugs.values()
    before, made = slug.nodes
    # On the head that the step was made on, as a lost step of the run's own would be.
    story.set_head(before.id)
    story.pause(HOUR)
    story.notebook("forward-backward")
    story.notebook("optim-step")
    theirs = slug.head
    second = story.live()

    assert (first.code, second.code) == (ExitCode.RUN_FAILED, ExitCode.HEAD_MOVED)
    assert slug.head == theirs
    assert f"its head is {theirs}, which may be theirs; set the head back to {made.id}" in story.said(second)

    story.set_head(made.id)
    assert story.live().code == ExitCode.DONE
    story.check()


@pytest.mark.parametrize("before", [None, "failed_before"])
def test_what_somebody_has_made_on_lease_is_left_alone_also_after_a_start_that_was_refused(
    tmp_path: Path, before: str | None
) -> None:
    story = Story(tmp_path, leases=True)

    first = story.live(dies_in_the_second_step(story))
    story.pause(HOUR)
    with story.leased() as token:
        second = story.live(lambda r: before if (r.name, r.nth) == ("lease", 1) else None)
        story.notebook("forward-backward", token=token)
        story.notebook("optim-step", token=token)
    (slug,) = story.service.slugs.values()
    theirs = slug.nodes[-1]
    third = story.live()

    assert first.code == ExitCode.OUTCOME_UNKNOWN
    assert (second.code, third.code) == (ExitCode.HEAD_MOVED, ExitCode.HEAD_MOVED)
    assert theirs.traces == ("somebody-elses",)
    assert slug.head == theirs.id
    assert f"set the head back to {theirs.parent}" in story.said(third)


def test_a_run_that_has_found_its_head_where_it_left_it_takes_no_lost_step_of_its_own_for_somebody_elses(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, leases=True)

    def ends(request: Request) -> int | None:
        return 401 if request.name == "completions" and story.applied() == 2 else None

    first = story.live(ends)
    with story.leased():
        pass
    second = story.live(lambda r: "failed_after" if (r.name, r.nth) == ("optim-step", 1) else None)

    assert (first.code, second.code) == (ExitCode.KEY_REFUSED, ExitCode.DONE)
    assert [line["step"] for line in story.events("step.abandoned")] == [3]
    story.check()


def test_a_lease_whose_answer_was_lost_and_that_was_refused_when_asked_for_again_may_still_be_our_own(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, leases=True)

    def loses_a_step_and_then_a_lease(request: Request) -> str | int | None:
        if (request.name, request.nth) == ("optim-step", 2):
            lost.append(request)
            return "failed_after"
        if lost and request.name == "lease":
            lost.append(request)
            return "failed_after" if len(lost) == 2 else 413
        return None

    lost: list[Request] = []
    first, second = story.live(loses_a_step_and_then_a_lease), story.live()

    assert (first.code, second.code) == (ExitCode.RUN_FAILED, ExitCode.DONE)
    story.check()


def test_a_head_that_a_person_sets_while_the_run_is_down_is_left_alone_also_if_the_run_once_set_it(
    tmp_path: Path,
) -> None:
    guard = {
        "metric": "reward_mean",
        "above": -1,
        "in_a_row": 3,
        "action": "roll_back",
        "steps": 1,
        "most": 1,
    }
    story = Story(tmp_path, steps=8, leases=True, guards=[guard])
    ended = story.live(lambda one: 401 if (one.name, one.nth) == ("optim-step", 6) else None)
    (slug,) = story.service.slugs.values()
    with story.store() as connection:
        (row,) = connection.execute("SELECT to_checkpoint AS back FROM rollbacks").fetchall()
    assert row["back"] != slug.head
    story.pause(HOUR)
    story.set_head(row["back"])
    second = story.live()

    assert (ended.code, second.code) == (ExitCode.KEY_REFUSED, ExitCode.HEAD_MOVED)
    assert slug.head == row["back"]


def test_a_service_that_is_started_anew_between_forward_and_backward_has_the_step_done_again(
    tmp_path: Path,
) -> None:
    story = Story(tmp_path, loss="client:importance_sampling")

    def restarts(request: Request) -> None:
        if (request.name, request.nth) == ("backward", 2):
            story.service.restart(story.clock.now)

    assert story.live(restarts).code == ExitCode.DONE
    assert len(story.events("step.abandoned")) == 1
    story.check()


@pytest.mark.parametrize("metric", ["loss", "grad_norm"])
def test_a_step_that_is_refused_though_its_loss_is_finite_is_skipped_for_a_guard_on_the_gradient_alone(
    tmp_path: Path, metric: str
) -> None:
    story = Story(tmp_path, leases=True, guards=[{"metric": metric, "not_finite": True, "action": "warn"}])
    end = story.live(lambda one: 409 if one.name == "optim-step" and 2 <= one.nth <= 6 else None)

    fired = [line["detail"] for line in story.events("guard.fired")]
    assert (end.code, fired) == (
        (ExitCode.DONE, ["grad_norm nan is not finite"])
        if metric == "grad_norm"
        else (ExitCode.OUTCOME_UNKNOWN, [])
    )
    assert story.live().code == ExitCode.DONE
    story.check()


def test_a_lost_step_is_done_again_from_its_own_batch_at_the_next_start(tmp_path: Path) -> None:
    story = Story(tmp_path, staleness=2)
    first = story.live(lambda one: "lost_request" if (one.name, one.nth) == ("optim-step", 1) else None)
    again = story.live()

    assert (first.code, again.code) == (ExitCode.OUTCOME_UNKNOWN, ExitCode.DONE)
    with story.store() as connection:
        tries = connection.execute("SELECT state, groups, digest FROM steps WHERE number = 1").fetchall()
    assert [row["state"] for row in tries] == ["abandoned", "applied"]
    assert tries[0]["groups"] == tries[1]["groups"]
    assert tries[0]["digest"] == tries[1]["digest"]
