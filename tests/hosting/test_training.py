"""A whole run whose rollouts, or whose environments, are somewhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Runner, config_of
from tests.e2e.proxy import lossy


@pytest.fixture
def elsewhere(tmp_path: Path, hosting: dict[str, str]) -> Runner:
    """A run of the service that hosts: its tasks are rows, and no environment is here."""
    rows = [{"env": "sums", "id": "add", "args": {"a": a, "b": b}} for a in range(10, 40) for b in range(8)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    held_out = [{"env": "sums", "id": "add", "args": {"a": a, "b": 9}} for a in range(10, 18)]
    (tmp_path / "heldout.jsonl").write_text("\n".join(map(json.dumps, held_out)))
    runner = Runner(tmp_path, hosting, {**config_of(), "service": "hud"})
    runner.write(taskset={"train": "train.jsonl", "heldout": "heldout.jsonl"})
    return runner


def test_hosted_rollouts_train_by_trace_id_and_their_steps_are_applied(elsewhere: Runner) -> None:
    elsewhere.write(runtime={"placement": "hosted", "poll_s": 0.2})

    done = elsewhere.run(timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert elsewhere.summary()["steps"] == 3
    assert elsewhere.summary()["eval_last"] is not None
    trained = elsewhere.query(
        "SELECT remote, num_tokens, samples, version_min <= step - 1 FROM rollouts"
        " JOIN groups ON number = group_number WHERE ending = 'trained'"
    )
    assert len(trained) >= 3
    assert set(trained) == {(1, 0, "[]", 1)}
    assert elsewhere.query("SELECT count(*) FROM steps WHERE state = 'applied'") == [(3,)]


def test_traces_that_the_service_no_longer_knows_end_the_run_with_3_and_the_next_start_goes_on(
    elsewhere: Runner,
) -> None:
    elsewhere.write(runtime={"placement": "hosted", "poll_s": 0.2}, taskset={"heldout": None})
    with lossy(elsewhere.environ["HUD_RL_URL"], suffix="/forward-backward", nth=2, loss="unknown") as proxy:
        ended = elsewhere.run(timeout=300, HUD_RL_URL=proxy.url)
    done = elsewhere.run(timeout=300)

    assert (ended.returncode, done.returncode) == (3, 0), ended.stderr + done.stderr
    assert "run again, and what it no longer knows is left out" in " ".join(ended.stderr.split())
    assert elsewhere.query("SELECT count(*) FROM steps WHERE state = 'applied'") == [(3,)]


def test_agents_here_train_on_environments_that_are_leased(elsewhere: Runner) -> None:
    elsewhere.write(runtime={"placement": "hud"}, run={"steps": 1})

    done = elsewhere.run(timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert elsewhere.query("SELECT count(*) FROM steps WHERE state = 'applied'") == [(1,)]
    assert elsewhere.query("SELECT DISTINCT remote FROM rollouts") == [(0,)]
    grades = [json.loads(grade) for (grade,) in elsewhere.query("SELECT grade FROM rollouts")]
    assert all(grade["info"]["sum"] > 0 for grade in grades)


def test_a_platform_without_the_environment_is_said_in_one_line(elsewhere: Runner) -> None:
    (elsewhere.directory / "train.jsonl").write_text('{"env": "nowhere", "id": "add"}\n')
    elsewhere.write(runtime={"placement": "hosted", "poll_s": 0.2}, rollout={"infrastructure_retries": 0})

    done = elsewhere.run(timeout=300)

    assert done.returncode == 1
    assert "there is no environment 'nowhere' here; there are: judge, sums" in done.stdout + done.stderr


def test_an_evaluation_may_run_elsewhere_too(elsewhere: Runner) -> None:
    command = [sys.executable, "-m", "hud_orchestrator", "eval", "heldout.jsonl", "--model", "tiny"]
    command += ["--runtime", "hosted", "--task-ids", "0,1", "--group", "2", "--max-tokens", "6", "--json"]

    done = subprocess.run(
        command, cwd=elsewhere.directory, env=dict(elsewhere.environ), timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["runtime"] == "hosted"
    assert (whole["run_count"], whole["error_count"]) == (4, 0)
    assert [run["grade"]["info"]["sum"] for run in whole["runs"]] == [19, 19, 20, 20]
