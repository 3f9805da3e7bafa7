"""What a run file without mistakes loads as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hud_orchestrator.config.load import load
from hud_orchestrator.config.resolved import resolved_lines

RunFile = Callable[..., Path]


def test_defaults_fill_what_is_left_out(run_file: RunFile) -> None:
    loaded = load(run_file())

    assert loaded.run.rollout.group_size == 8
    assert loaded.origins["rollout.group_size"] == "default"
    assert loaded.warnings == ()


def test_every_value_knows_where_it_came_from(run_file: RunFile) -> None:
    path = run_file("trainer:\n  loss: ppo\n  loss_config:\n    clip_high_threshold: 1.3\n")

    loaded = load(path, overrides=["run.steps=7", "trainer.loss_config.clip_low_threshold=0.7"])

    assert loaded.run.run.steps == 7
    assert {key: loaded.origins[key] for key in ("run.name", "run.steps", "trainer.loss")} == {
        "run.name": "run.yaml:1",
        "run.steps": "--set",
        "trainer.loss": "run.yaml:6",
    }
    assert loaded.origins["trainer.loss_config.clip_high_threshold"] == "run.yaml:8"
    assert loaded.origins["trainer.loss_config.clip_low_threshold"] == "--set"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1e-4", 1e-4), ("3E-4", 3e-4), ("1", 1.0), (".5", 0.5), ("1_0", 10.0), ("+1.5e+0", 1.5)],
)
def test_a_number_may_be_written_as_people_write_it(run_file: RunFile, written: str, meant: float) -> None:
    assert (
        load(run_file(f"trainer: {{learning_rate: {{peak: {written}}}}}")).run.trainer.learning_rate.peak
        == meant
    )


@pytest.mark.parametrize("written", ["yes", "on", "True"])
def test_yaml_booleans_are_booleans(run_file: RunFile, written: str) -> None:
    assert load(run_file(), overrides=[f"run.deterministic={written}"]).run.run.deterministic is True


def test_a_section_with_nothing_in_it_has_its_defaults(run_file: RunFile) -> None:
    assert load(run_file("logging:\n  # level: debug\n")).run.logging.level == "info"


def test_an_alias_stands_for_the_value_of_its_anchor(run_file: RunFile) -> None:
    path = run_file(
        "rollout: {deadline_s: &long 90, grading_reserve_s: 9}\ntrainer: {call_timeout_s: *long}\n"
    )

    assert load(path).run.trainer.call_timeout_s == 90


def test_a_merge_key_brings_in_another_mapping(run_file: RunFile) -> None:
    path = run_file(
        "trainer:\n  adam: {<<: [{beta1: 0.5, eps: 1e-6}, {beta1: 0.6, beta2: 0.7}], eps: 1e-7}\n"
    )

    adam = load(path).run.trainer.adam

    assert (adam.beta1, adam.beta2, adam.eps) == (0.5, 0.7, 1e-7)


def test_an_override_replaces_a_wrong_value_of_the_file(run_file: RunFile) -> None:
    path = run_file("rollout: {group_size: many}\n")

    assert load(path, overrides=["rollout.group_size=4"]).run.rollout.group_size == 4


def test_the_later_of_two_overrides_holds(run_file: RunFile) -> None:
    assert load(run_file(), overrides=["run.steps=3", "run.steps=4"]).run.run.steps == 4


def test_an_override_may_be_a_whole_section(run_file: RunFile) -> None:
    loaded = load(run_file(), overrides=["rollout.outcomes={cut_short: scale, length: drop_member}"])

    assert loaded.run.rollout.outcomes.length == "drop_member"
    assert loaded.origins["rollout.outcomes.length"] == "--set"


def test_files_are_relative_to_the_run_file(run_file: RunFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_file()
    monkeypatch.chdir("/")

    loaded = load(path)

    assert loaded.resolve("tasks.py") == path.parent / "tasks.py"
    assert loaded.resolve("../x") == path.parent.parent / "x"
    assert loaded.resolve("/x") == Path("/x")


def test_resolving_still_works_after_the_working_directory_changed(
    run_file: RunFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_file().parent)
    loaded = load(Path("run.yaml"))
    monkeypatch.chdir("/")

    assert loaded.resolve("tasks.py").exists()


def test_a_tilde_is_the_home_directory(run_file: RunFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")

    assert load(run_file(), overrides=["run.state_dir=~/runs"]).run.directory == Path("/somewhere/runs")


def test_a_base_may_be_a_directory_that_transformers_loads(run_file: RunFile, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"max_position_embeddings": 512}')

    assert load(run_file(), overrides=["model.base=./model"]).run.model.base == "./model"


def test_a_taskset_that_is_named_alone_is_shown_as_it_was_written(run_file: RunFile) -> None:
    loaded = load(run_file(), overrides=["taskset.heldout=[{source: tasks.py}]"])

    assert [entry.source for entry in loaded.run.taskset.train] == ["tasks.py"]
    assert loaded.run.model_dump(mode="json")["taskset"]["train"] == "tasks.py"
    assert loaded.run.model_dump(mode="json")["taskset"]["heldout"] == "tasks.py"


def test_what_is_shown_as_resolved_is_a_run_file_that_says_the_same(
    run_file: RunFile, tmp_path: Path
) -> None:
    (tmp_path / "b.json").write_text("[]")
    mixed = "[{source: 'tasks.py:a', weight: 2, where: {x: [1, yes]}}, {source: b.json, weight: 0.5}]"
    tasksets = [f"taskset.train={mixed}", "taskset.heldout=[tasks.py, b.json]"]
    awkward = [
        *tasksets,
        'agent.system_prompt="a: #b\\n"',
        'agent.stop=["1e4", "no", "~"]',
        'run.name="1e4"',
    ]
    loaded = load(run_file(), overrides=awkward)

    shown = run_file(whole="\n".join(resolved_lines(loaded.run, loaded.origins)))

    assert load(shown).run == loaded.run


@pytest.mark.parametrize(
    ("overrides", "about"),
    [
        (["agent.temperature=0.7"], "agent.temperature: 0.7 samples another distribution"),
        (["agent.top_p=0.9"], "agent.top_p: 0.9 samples another distribution"),
        (["pipeline.staleness=1"], "pipeline.staleness: 1 with the unclipped importance_sampling"),
        (["service=hud", "local.threads=2"], "local.threads: ignored with service: hud"),
        (["evaluation.every=2"], "evaluation.every: ignored: without taskset.heldout"),
        (
            ["taskset.heldout=[{source: tasks.py, weight: 2}]"],
            "taskset.heldout[0].weight: ignored: evaluation attempts every held-out task equally often",
        ),
        (["taskset.curriculum.window=2"], "taskset.curriculum.window: ignored: the curriculum is off"),
        (
            ["trainer.learning_rate.final=1e-5"],
            "trainer.learning_rate.final: ignored with schedule: constant",
        ),
        (["rollout.scale_by=0.1"], "rollout.scale_by: ignored: no outcome has the treatment scale"),
        (
            ["trainer.learning_rate.warmup_steps=30"],
            "trainer.learning_rate.warmup_steps: 30 is not less than run.steps (30)",
        ),
        (
            ["trainer.loss=ppo", "trainer.loss_config.clip_high_threshold=0.2"],
            "trainer.loss_config.clip_high_threshold: 0.2 is below 1",
        ),
    ],
)
def test_what_works_but_is_hardly_meant_is_a_warning(
    run_file: RunFile, overrides: list[str], about: str
) -> None:
    (warning,) = load(run_file(), overrides=overrides).warnings

    assert about in warning


def test_a_clipped_loss_off_the_policy_is_no_warning(run_file: RunFile) -> None:
    assert load(run_file(), overrides=["pipeline.staleness=1", "trainer.loss=cispo"]).warnings == ()
