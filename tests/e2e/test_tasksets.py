"""Several tasksets, held-out shares and a curriculum, in runs that are killed and go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

from tests.e2e.conftest import Runner, until_line

TASKS = """
from hud_orchestrator import Environment

env = Environment("lab")


@env.template()
async def fixed(n: int, reward: float):
    yield f"{n}+1="
    yield reward


def rows(start, reward, kind):
    plain = [fixed(n=n, reward=reward) for n in range(start, start + 4)]
    return [row.with_(slug=f"{kind}{row.args['n']}", columns={"kind": kind}) for row in plain]


train = [*rows(0, 1.0, "solved"), *rows(10, 0.0, "hopeless"), *rows(20, 0.5, "half")]
more = rows(30, 0.5, "other")
"""
CURRICULUM = {"skip_solved": 0.9, "retire_hopeless": 0.1, "after_visits": 1, "revisit": 0.0}


def attempted(run: Runner) -> list[str]:
    """Slugs in the order of the groups."""
    rows = run.query("SELECT json_extract(task, '$.slug') FROM groups ORDER BY number")
    return [slug for (slug,) in rows]


def prepare(run: Runner, **taskset: Any) -> None:
    run.config["taskset"] = {"train": "tasks.py:train", "curriculum": CURRICULUM, **taskset}
    # Whatever the model says, the same groups are consumed by the same steps.
    run.write(TASKS, pipeline={"drop_no_spread": False}, run={"steps": 6})


def test_a_curriculum_that_was_killed_goes_on_with_the_tasks_it_would_have_gone_on_with(
    remote_run: Runner,
) -> None:
    prepare(remote_run)
    with remote_run.started() as process:
        until_line(process, '"step": 3')
        process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = remote_run.run()
    assert resumed.returncode == 0, resumed.stderr

    seen = attempted(remote_run)
    remote_run.write(TASKS, run={"name": "whole"}, model={"slug": remote_run.config["model"]["slug"] + "-2"})
    whole = remote_run.run()
    assert whole.returncode == 0, whole.stderr

    assert seen == attempted(remote_run)
    # Twelve tasks in four groups a step: by then everything has been tried.
    assert {slug.rstrip("0123456789") for slug in seen[12:]} == {"half"}
    counts = [line["curriculum"] for line in remote_run.metrics()]
    verdicts = ("new", "learning", "solved", "hopeless")
    assert [sum(line[kind] for kind in verdicts) for line in counts] == [12] * 6
    assert counts[-1] == {"new": 0, "learning": 4, "solved": 4, "hopeless": 4, "solve_rate": 0.5}
    assert remote_run.events("curriculum.changed")[-1]["solved"] == 4


def test_tasksets_are_mixed_by_weight_and_a_share_is_held_out(remote_run: Runner) -> None:
    prepare(
        remote_run,
        train=[
            {"source": "tasks.py:train", "weight": 1, "where": {"kind": ["half", "solved"]}},
            {"source": "more.json", "weight": 3},
        ],
        heldout_split=0.25,
        curriculum={},
    )
    rows = [
        {"env": "lab", "id": "fixed", "args": {"n": n, "reward": 0.5}, "slug": f"json{n}"} for n in range(8)
    ]
    (remote_run.directory / "more.json").write_text(json.dumps(rows))

    done = remote_run.run()
    assert done.returncode == 0, done.stderr

    seen = attempted(remote_run)
    kinds = Counter(slug.rstrip("0123456789") for slug in seen)
    assert 24 * 3 / 4 - 1 <= kinds["json"] <= 24 * 3 / 4 + 1
    assert not kinds["hopeless"]
    ((tasks,),) = remote_run.query("SELECT tasks FROM evaluations WHERE version = 6")
    assert len(json.loads(tasks)) == 4
    assert not set(json.loads(tasks)) & set(seen)


def test_a_filter_that_nothing_passes_ends_the_run_with_what_there_is(remote_run: Runner) -> None:
    prepare(remote_run, train=[{"source": "tasks.py:train", "where": {"kind": "easy"}}])

    done = remote_run.run()

    assert done.returncode == 2
    assert "tasks.py:train: none of its 12 tasks has kind easy" in done.stderr
    assert "its columns are kind: solved, hopeless, half" in done.stderr


def test_a_taskset_that_was_pushed_to_the_service_is_trained_on_by_its_name(remote_run: Runner) -> None:
    name = f"lab {remote_run.config['model']['slug']}"
    prepare(
        remote_run,
        train=[{"source": name, "where": {"kind": "half"}}],
        curriculum={},
    )
    remote_run.write(TASKS, run={"steps": 1}, runtime={"placement": "local", "source": "tasks.py"})

    empty = tasksets(remote_run, "show", name)
    pushed = tasksets(remote_run, "push", "tasks.py:train", "--name", name)
    again = tasksets(remote_run, "push", "tasks.py:train", "--name", name)
    listed = tasksets(remote_run, "list")
    shown = tasksets(
        remote_run, "show", name, "--where", "kind=[half, none]", "--task-ids", "half20,0", "--json"
    )
    unknown = tasksets(remote_run, "show", "0" * 32)
    done = remote_run.run()

    assert unknown.returncode == empty.returncode == 2
    assert "has no tasks for taskset 00000000-" in unknown.stderr
    assert "has no taskset of that name" in empty.stderr
    assert f"{name}: 12 created, 0 updated" in pushed.stdout
    assert f"{name}: 0 created, 12 updated" in again.stdout
    assert name in listed.stdout
    assert [row["slug"] for row in json.loads(shown.stdout)] == ["half20"]
    assert done.returncode == 0, done.stderr
    assert {slug.rstrip("0123456789") for slug in attempted(remote_run)} == {"half"}


def tasksets(run: Runner, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hud_orchestrator", "tasksets", *arguments], cwd=run.directory,
        env=dict(run.environ), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
