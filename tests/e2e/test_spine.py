"""A run from end to end on the embedded service."""

from __future__ import annotations

import json

from tests.e2e.conftest import Runner, processes_of, until_line


def test_a_run_trains_and_explains_itself(local_run: Runner) -> None:
    done = local_run.run()

    assert done.returncode == 0, done.stderr
    summary = local_run.summary()
    assert summary["steps"] == 3
    assert summary["exit_code"] == 0
    assert summary["service"] == "local"
    assert 0 <= summary["eval_first"] <= 1
    assert summary["eval_last"] is not None
    assert summary["rollouts"] == {"finished": summary["rollouts"]["finished"]}
    assert summary["head"] == local_run.metrics()[-1]["checkpoint"]
    assert summary["best"] == {"step": 3, "checkpoint": summary["head"]}  # the fork itself has none
    assert [line["step"] for line in local_run.metrics()] == [1, 2, 3]
    assert [line["step"] for line in local_run.metrics("evaluation")] == [0, 3]
    assert {path.name for path in local_run.state.iterdir()} >= {
        "config.yaml", "store.db", "metrics.jsonl", "summary.json", "run.log", "service"
    }  # fmt: skip
    for word in ("held-out reward", "3 of 3", "next", summary["head"]):
        assert word in done.stdout
    assert processes_of(local_run.directory) == []

    calls = local_run.query("SELECT kind, ending FROM calls ORDER BY sent_at, rowid")
    assert calls == [(kind, "confirmed") for _ in range(3) for kind in ("forward_backward", "optim_step")]
    samples, versions = local_run.query(
        "SELECT samples, version_max FROM rollouts JOIN groups ON number = group_number"
        " WHERE ending = 'trained' AND step = 3 LIMIT 1"
    )[0]
    (turn,) = json.loads(samples)
    assert len(turn["output_token_ids"]) == len(turn["logprobs"])
    assert versions == 2

    again = local_run.run()
    assert again.returncode == 0
    assert len(local_run.metrics()) == 3

    further = local_run.run("--set", "run.steps=4")
    assert further.returncode == 0, further.stderr
    assert [line["step"] for line in local_run.metrics()] == [1, 2, 3, 4]


def test_the_same_seed_gives_the_same_rewards_step_by_step_even_when_interrupted(local_run: Runner) -> None:
    local_run.write(run={"deterministic": True, "steps": 4})
    curves = []
    for name, first in (("whole", "4"), ("halves", "2")):
        for steps in dict.fromkeys((first, "4")):
            done = local_run.run("--set", f"run.name={name}", "--set", f"run.steps={steps}")
            assert done.returncode == 0, done.stderr
        local_run.write(run={"name": name})
        curves.append(
            [
                {key: line[key] for key in ("reward_mean", "reward_std", "loss:sum", "entropy")}
                for line in local_run.metrics()
            ]
        )

    assert len(curves[0]) == 4
    assert curves[0] == curves[1]


def test_the_same_seed_gives_the_same_rewards_also_when_a_step_is_cut_off(local_run: Runner) -> None:
    # Few groups have a spread at the beginning, and few may be replaced: what was dropped before counts.
    local_run.write(run={"deterministic": True, "steps": 3}, pipeline={"replacements_per_step": 1})
    curves = []
    for name, kills in (("whole", 0), ("killed", 3)):
        local_run.write(run={"name": name})
        for _ in range(kills):
            with local_run.started("--set", "logging.level=debug") as process:
                until_line(process, "group.dropped")
                process.kill()
                process.wait(10)
        done = local_run.run(timeout=300)
        assert done.returncode == 0, done.stderr
        keys = ("reward_mean", "reward_std", "rollouts", "groups_dropped", "groups_trained")
        curves.append([{key: line[key] for key in keys} for line in local_run.metrics()])

    assert [line["groups_dropped"] > 1 for line in curves[0]].count(True)
    assert curves[0] == curves[1]


def test_another_run_file_does_not_continue_the_run_of_this_one(local_run: Runner) -> None:
    local_run.write(run={"steps": 1})
    assert local_run.run().returncode == 0
    other = local_run.run("--set", "run.seed=7")

    assert other.returncode == 2
    assert "seed was 0, is 7" in other.stderr
    assert local_run.summary()["exit_code"] == 0

    refused = local_run.run("--set", "run.seed=7", "--fresh")
    assert refused.returncode == 2
    assert "--fresh would set aside a run of 1 steps and " in refused.stderr
    assert local_run.summary()["exit_code"] == 0

    fresh = local_run.run("--set", "run.seed=7", "--fresh", "--yes")
    assert fresh.returncode == 0, fresh.stderr
    assert len(list(local_run.state.parent.iterdir())) == 2
