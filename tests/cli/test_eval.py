"""``hud-orchestrate eval`` against the real service: who is measured, at what, and what is said about it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.models_world import Models, Said

TASKS = """
from hud_orchestrator import Environment, EvaluationResult, SubScore

env = Environment("sums")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    if a == 13:
        raise RuntimeError("thirteen is unlucky")
    right = float((answer or "").strip() == str(a + b))
    brief = SubScore(name="brief", value=float(len(answer or "") < 9))
    yield EvaluationResult(reward=right, subscores=[brief])


def row(a):
    return add(a=a, b=9).with_(slug=f"add-{a}", columns={"parity": "odd" if a % 2 else "even"})


some = [row(a) for a in range(10, 16)]
unlucky = [add(a=13, b=9)]
"""

Eval = Callable[..., Said]


@pytest.fixture
def evaluate(models: Models, tmp_path: Path) -> Eval:
    (tmp_path / "tasks.py").write_text(TASKS)
    return lambda *arguments: models("--max-tokens", "6", *arguments, command="eval")


def test_only_the_first_task_is_attempted_unless_all_are_asked_for(evaluate: Eval) -> None:
    said = evaluate("tasks.py:some", "-m", "tiny")

    assert said.code == 0, said.err
    assert "the first of 6 tasks (--all attempts them all)" in said.out
    assert ["graded", "1", "of", "1"] in said.rows


def test_a_taskset_is_summed_up_in_all_by_subscore_by_column_and_by_task(evaluate: Eval) -> None:
    said = evaluate("tasks.py:some", "-m", "tiny", "--all", "--group", "4", "--output", "found.json")

    assert said.code == 0, said.err
    assert "tasks.py:some: 6 tasks x 4, temperature 1, environments: local" in said.out
    assert "failed: tiny: 4 environment_lost, the last with: tasks.turn: RuntimeError: thirteen" in said.out
    found = json.loads(Path("found.json").read_text())
    (tiny,) = found["candidates"]
    graded = [run["reward"] for run in found["runs"] if not run["is_error"]]
    assert (found["run_count"], found["error_count"], len(graded)) == (24, 4, 20)
    assert tiny["reward"]["mean"] == found["mean_reward"] == pytest.approx(sum(graded) / 20)
    low, high = tiny["reward"]["interval"]
    assert low < tiny["reward"]["mean"] < high
    assert list(tiny["pass_at"]) == ["1", "2", "4"]
    assert tiny["pass_at"]["1"] == pytest.approx(tiny["reward"]["mean"])
    assert tiny["subscores"]["brief"]["count"] == 20
    assert {value: one["count"] for value, one in tiny["columns"]["parity"].items()} == {"even": 12, "odd": 8}
    assert tiny["tasks"]["add-13"] == []
    assert [row[0] for row in said.rows if row and row[0].startswith("add-")] == [
        f"add-{a}" for a in range(10, 16)
    ]


def test_models_and_checkpoints_stand_side_by_side_with_their_difference(
    evaluate: Eval, models: Models
) -> None:
    slug = models.forked()
    first, second = models.step(slug), models.step(slug, learning_rate=0.05)
    said = evaluate(
        "tasks.py:some", "--where", "parity=even", "-m", slug, "--output", "found.json",
        "--checkpoint", first[:8], "--checkpoint", second, "--checkpoint", "head",
    )  # fmt: skip

    assert said.code == 0, said.err
    assert f"{slug}@{first[:8]}" in said.out
    assert any(row[:2] == ["difference,", "task"] for row in said.rows)
    one, two, head = json.loads(Path("found.json").read_text())["candidates"]
    assert [one["checkpoint"], two["checkpoint"], head["checkpoint"]] == [first, second, second]
    # Seeds and temperature are the same, so the head is what it is by its id.
    assert head["tasks"] == two["tasks"]
    answers = [run["answer"] for run in json.loads(Path("found.json").read_text())["runs"]]
    assert answers[:3] != answers[3:6]


def test_tasks_are_chosen_by_slug_position_and_column(evaluate: Eval) -> None:
    by_name = evaluate("tasks.py:some", "-m", "tiny", "--task-ids", "add-11,0", "--json").json()
    assert [run["slug"] for run in by_name["runs"]] == ["add-10", "add-11"]

    by_column = evaluate("tasks.py:some", "-m", "tiny", "--where", "parity=odd", "--json").json()
    assert [run["slug"] for run in by_column["runs"]] == ["add-11", "add-13", "add-15"]


def test_when_every_attempt_failed_the_exit_code_says_so(evaluate: Eval) -> None:
    said = evaluate("tasks.py:unlucky", "-m", "tiny", "--json")

    assert said.code == 1
    found = said.json()
    assert (found["mean_reward"], found["error_count"]) == (None, 1)
    assert "thirteen is unlucky" in found["runs"][0]["trace_error"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tasks.py:none", "-m", "tiny"), "'none'"),
        (("nowhere.py", "-m", "tiny"), "SOURCE: "),
        (("tasks.py:some", "-m", "gigantic"), "there is no model 'gigantic'"),
        (("tasks.py:some", "-m", "tiny", "--checkpoint", "abcdef"), "tiny has no checkpoints"),
        (("tasks.py:some", "-m", "tiny", "--task-ids", "add-1O"), "has no task 'add-1O'"),
        (("tasks.py:some", "-m", "tiny", "--where", "parity"), "--where: 'parity' is not column=value"),
        (("tasks.py:some", "-m", "tiny", "--where", "parity=prime"), "none of its 6 tasks has parity prime"),
        (("tasks.py:some", "-m", "tiny", "--runtime", "locl"), "--runtime: \"locl\" is no placement"),
        (("tasks.py:some", "-m", "tiny", "--output", "no/where.json"), "--output: no/where.json"),
        (("tasks.py:some",), "--model"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_command_is_named(evaluate: Eval, arguments: tuple[str, ...], told: str) -> None:
    said = evaluate(*arguments)

    assert said.code == 2, said.err
    assert told in said.err


def test_rows_need_the_file_of_their_environment(evaluate: Eval) -> None:
    Path("rows.json").write_text(json.dumps([{"env": "sums", "id": "add", "args": {"a": 1, "b": 2}}]))
    refused = evaluate("rows.json", "-m", "tiny")
    assert refused.code == 2
    assert "--environment: missing; rows.json holds tasks only" in refused.err

    assert evaluate("rows.json", "-m", "tiny", "--environment", "tasks.py").code == 0


def test_the_service_is_told_of_a_job_for_every_candidate_with_its_attempts(
    evaluate: Eval, models: Models
) -> None:
    fork, taskset = models.forked(), f"rows-{uuid4().hex[:8]}"
    assert models("push", "tasks.py:some", "--name", taskset, command="tasksets").code == 0
    asked = (taskset, "-m", "tiny", "-m", fork, "--task-ids", "0,1", "--group", "2", "--json")
    here = ("--environment", "tasks.py", "--runtime", "local")

    found = evaluate(*asked, *here).json()

    jobs = {job["id"]: job for job in models.http.get("/v2/jobs").json()["items"]}
    id_of_taskset = models.http.get(f"/v2/tasksets/by-name/{taskset}").json()["taskset_id"]
    for candidate, slug in zip(found["candidates"], ("tiny", fork), strict=True):
        job = jobs[candidate["job_id"]]
        assert job["name"] == f"eval {taskset} {slug}"
        assert (job["group"], job["taskset_id"]) == (2, id_of_taskset)
        assert candidate["reports"] == {"reported": 4}
        traces = models.http.get(f"/v2/jobs/{job['id']}/traces").json()["items"]
        runs = [run for run in found["runs"] if run["model"] == slug]
        assert {trace["id"]: trace["reward"] for trace in traces} == {
            run["trace_id"]: run["reward"] for run in runs
        }
        events = models.http.get(f"/v2/trace/{runs[0]['trace_id']}/events").json()["events"]
        assert events[1]["text"] == runs[0]["answer"]


@pytest.mark.parametrize("how", ["the option", "the environment"])
def test_an_evaluation_tells_nobody_when_the_user_wants_it_so(
    evaluate: Eval, models: Models, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("HUD_TELEMETRY_ENABLED", str(how == "the option").lower())
    option = ["--no-reporting"] if how == "the option" else []
    before = models.http.get("/v2/jobs").json()["total"]

    found = evaluate("tasks.py:some", "-m", "tiny", "--json", *option).json()

    assert (found["candidates"][0]["job_id"], found["candidates"][0]["reports"]) == (None, {})
    assert models.http.get("/v2/jobs").json()["total"] == before


def test_a_service_that_takes_no_reports_costs_an_evaluation_nothing_but_a_line(
    evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUD_TELEMETRY_URL", "http://127.0.0.1:9/v3/api")

    said = evaluate("tasks.py:some", "-m", "tiny")

    assert said.code == 0
    assert ["graded", "1", "of", "1"] in said.rows
    assert "not reported: tiny: 1 of 1 attempts" in said.out


def test_many_attempts_on_a_service_elsewhere_want_a_confirmation(
    evaluate: Eval, monkeypatch: pytest.MonkeyPatch, models: Models
) -> None:
    url = str(models.http.base_url).rstrip("/")
    elsewhere = url.replace("127.0.0.1", socket.gethostname())
    monkeypatch.setenv("HUD_GATEWAY_URL", elsewhere)
    said = evaluate("tasks.py:some", "-m", "tiny", "--all", "--group", "2")

    assert said.code == 2
    assert f"this is 12 attempts on {elsewhere}, and nobody is there to confirm it; add --yes" in said.err
