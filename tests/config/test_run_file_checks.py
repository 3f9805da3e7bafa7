"""Combinations of values with which a run cannot work, or cannot learn, are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hud_orchestrator.config.load import load
from hud_orchestrator.errors import ConfigError

RunFile = Callable[..., Path]


def only(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides=overrides)
    (line,) = str(caught.value).split("\n")
    return line.removeprefix(f"{path.parent}/").removeprefix("--set: ")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["rollout.grading_reserve_s=600"],
            "rollout.grading_reserve_s: 600 s must be less than rollout.deadline_s (600 s), or",
        ),
        (
            ["rollout.start_s=540"],
            "rollout.start_s: 540 s must be less than the 540 s between rollout.deadline_s and",
        ),
        (["rollout.group_s=599"], "rollout.group_s: 599 s must not be less than rollout.deadline_s (600 s)"),
        (
            ["rollout.outcomes.agent_error=retry"],
            'rollout.outcomes.agent_error: "retry" does not fit; allowed: one of keep, scale',
        ),
        (["rollout.concurrency=7"], "rollout.concurrency: 7 is less than rollout.group_size (8)"),
        (["rollout.group_size=1"], "rollout.group_size: a group of 1 has nothing to be compared with"),
        (["agent.temperature=0"], "agent.temperature: 0 makes all 8 attempts of a group the same"),
        (["run.deterministic=true", "pipeline.staleness=1"], "pipeline.staleness: 1 lets the clock decide"),
        (["run.deterministic=true", "service=hud"], "run.deterministic: true needs service: local"),
        (
            ["trainer.max_grad_norm=1", "service=hud"],
            "trainer.max_grad_norm: 1 works with service: local only",
        ),
        (
            ["trainer.learning_rate.final=1"],
            "trainer.learning_rate.final: 1 is above trainer.learning_rate.peak (0.0001)",
        ),
        (
            ["trainer.loss=ppoo"],
            'trainer.loss: "ppoo" is not a known loss; allowed: cross_entropy',
        ),
        (
            ["trainer.loss_config.epsilon=0.2", "trainer.loss=ppo"],
            'trainer.loss_config.epsilon: "ppo" takes no such',
        ),
        (["trainer.loss_config.beta=0", "trainer.loss=dro"], "trainer.loss_config.beta: 0 is out of range"),
        (
            ["trainer.loss=ppo", "trainer.loss_config={clip_low_threshold: 0.2, clip_high_threshold: 0.2}"],
            "trainer.loss_config.clip_low_threshold: 0.2 must be less than clip_high_threshold (0.2)",
        ),
        (
            ["model.base=smollm2"],
            'model.base: "smollm2" is neither bundled (tiny, smollm2-135m) nor a directory',
        ),
        (
            ["agent.max_tokens=2048"],
            "agent.max_tokens: 2048 leaves no room for a prompt: tiny has a context of 2048",
        ),
        (
            ["guards=[{metric: kl, above: 0.2, rearm: 0.3}]"],
            "guards[0].rearm: 0.3 is over above (0.2); the figure has to come back to it from there",
        ),
        (
            ["guards=[{metric: entropy, below: 0.2, rearm: 0.1}]"],
            "guards[0].rearm: 0.1 is under below (0.2); the figure has to come back to it from there",
        ),
        (
            ["guards=[{metric: reward_mean, falls_below_best: 0.2, rearm: 0.2}]"],
            "guards[0].rearm: 0.2 is not from 0 to less than falls_below_best (0.2)",
        ),
        (
            ["guards=[{metric: loss, not_finite: true, rearm: 1}]"],
            "guards[0].rearm: has no meaning with not_finite",
        ),
        (["taskset.train=no.py:x"], "taskset.train: there is no file "),
        (["taskset.heldout=no.jsonl"], "taskset.heldout: there is no file "),
        (
            ["taskset.train=tasks.txt"],
            'taskset.train: "tasks.txt" is not a taskset; allowed: a .json, .jsonl or .py',
        ),
        (["taskset.train=tasks.py:1st"], 'taskset.train: "1st" after the colon is not the name of a list'),
        (["runtime.source=no.py"], "runtime.source: there is no file "),
        (["runtime.source=tasks.txt"], 'runtime.source: "tasks.txt" is not a .py file'),
    ],
)
def test_a_run_that_cannot_work_is_refused(run_file: RunFile, overrides: list[str], line: str) -> None:
    assert only(run_file(), *overrides).startswith(line)


def test_the_line_is_that_of_the_key_somebody_wrote(run_file: RunFile) -> None:
    assert only(run_file("rollout:\n  deadline_s: 20\n")).startswith(
        "run.yaml:6:15: rollout.grading_reserve_s: 60 s"
    )


def test_tasks_of_a_json_file_need_a_source(run_file: RunFile, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text("")

    assert only(run_file(), "taskset.train=tasks.jsonl").startswith("runtime.source: missing")
    assert load(
        run_file(), overrides=["taskset.train=tasks.jsonl", "runtime.source=tasks.py"]
    ).run.runtime.source


@pytest.mark.parametrize("config", ['{"max_position_embeddings": 8}', '{"n_positions": 8}'])
def test_the_context_of_a_model_directory_is_known(run_file: RunFile, tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)

    assert "has a context of 8 tokens" in only(run_file(), "model.base=.")


@pytest.mark.parametrize("config", ["", "[]", "{"])
def test_a_directory_without_a_usable_config_is_no_model(
    run_file: RunFile, tmp_path: Path, config: str
) -> None:
    (tmp_path / "config.json").write_text(config)

    assert "config.json is not usable" in only(run_file(), "model.base=.")


def test_a_loss_and_a_base_that_only_hud_knows_are_left_to_hud(run_file: RunFile) -> None:
    hud = ["service=hud", "model.base=Qwen/Qwen3-8B", "trainer.loss=grpo2", "trainer.loss_config.x=1"]

    assert load(run_file(), overrides=hud).run.trainer.loss == "grpo2"


def test_the_tables_of_losses_are_those_of_the_losses_themselves() -> None:
    pytest.importorskip("torch")
    from hud_orchestrator.config.losses import CLIENT_LOSS_KEYS, LOSS_KEYS
    from hud_orchestrator.losses.client.registry import CLIENT_LOSSES
    from hud_orchestrator.losses.registry import BUILT_IN

    assert {name: set(keys) for name, keys in LOSS_KEYS.items()} == {
        name: set(loss.defaults) for name, loss in BUILT_IN.items()
    }
    assert {name: set(keys) for name, keys in CLIENT_LOSS_KEYS.items()} == {
        name: set(loss.defaults) for name, loss in CLIENT_LOSSES.items()
    }


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["trainer.loss=client:pppo"], 'trainer.loss: "client:pppo" is none of our losses'),
        (["trainer.loss=my-losses:clip"], 'trainer.loss: "my-losses:clip" is not the name of a function'),
        (["trainer.loss=a:b:c"], 'trainer.loss: "a:b:c" is not the name of a function'),
        (
            ["trainer.loss=ppo", "trainer.loss_config.clip_low_threshold=low"],
            "trainer.loss_config.clip_low_threshold: 'low' is not a number",
        ),
        (
            ["trainer.loss=gspo", "trainer.loss_config.clip_hihg=0.1"],
            'trainer.loss_config.clip_hihg: "gspo" takes no such value',
        ),
    ],
)
def test_a_loss_that_the_daemon_cannot_compute_is_refused(
    run_file: RunFile, overrides: list[str], line: str
) -> None:
    assert only(run_file(), *overrides).startswith(line)


def test_a_loss_of_ones_own_takes_any_value_and_any_service(run_file: RunFile) -> None:
    own = ["trainer.loss=my.losses:clip", "trainer.loss_config.mode=hard", "trainer.loss_config.twice=true"]

    for service in ("local", "hud"):
        run = load(run_file(), overrides=[*own, f"service={service}"]).run
        assert run.trainer.loss_config == {"mode": "hard", "twice": True}


def test_a_model_that_states_no_context_is_taken_as_it_is(run_file: RunFile, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": "many"}))

    assert load(run_file(), overrides=["model.base=."]).run.model.base == "."


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["runtime.placement=tcp://host"], 'runtime.placement: "tcp://host" is no placement'),
        (["runtime.placement=tcp://host:70000"], 'runtime.placement: "tcp://host:70000" is no placement'),
        (["runtime.command=[serve]"], "runtime.command: works with placement: subprocess only"),
        (["runtime.image=a"], "runtime.image: works with placement: docker only, and the placement is local"),
        (["runtime.options.a=1"], "runtime.options: works with placement: modal or daytona only"),
        (
            ["runtime.placement=hosted", "service=hud", "rollout.outcomes.cut_short=scale"],
            "rollout.outcomes.cut_short: scale changes a reward, and a hosted rollout trains by its trace id",
        ),
        (["runtime.placement=hosted", "service=hud", "agent.use=a:B"], "agent.use: a:B runs here"),
        (
            ["runtime.placement=hosted", "taskset.train=tasks.jsonl"],
            "runtime.source: missing; tasks.jsonl holds tasks only",
        ),
    ],
)
def test_a_placement_is_checked_with_what_it_needs(
    run_file: RunFile, tmp_path: Path, overrides: list[str], line: str
) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"env": "e", "id": "t"}\n')
    assert line in only(run_file(), *overrides)


def test_an_environment_that_is_served_needs_no_source(run_file: RunFile, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"env": "e", "id": "t"}\n')
    for placement in ("tcp://[::1]:8765", "docker", "hud", "modal", "hosted"):
        given = ["service=hud", "taskset.train=tasks.jsonl", f"runtime.placement={placement}"]
        assert load(run_file(), overrides=given).run.runtime.source is None
