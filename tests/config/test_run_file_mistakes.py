"""Every mistake in a run file is named with its line, its column and its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hud_orchestrator.config.load import load
from hud_orchestrator.errors import ConfigError, ExitCode

RunFile = Callable[..., Path]


def mistakes(path: Path, *overrides: str) -> list[str]:
    """The lines that loading raises, without the directory of the file."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides=overrides)
    assert caught.value.exit_code == ExitCode.USAGE
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


def only(path: Path, *overrides: str) -> str:
    (line,) = mistakes(path, *overrides)
    return line


def test_a_file_that_is_not_there_names_the_command_that_writes_one(tmp_path: Path) -> None:
    assert only(tmp_path / "no.yaml").startswith("no.yaml:1:1: there is no such file")


def test_a_directory_is_not_a_run_file(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert only(tmp_path / "runs").startswith("runs:1:1: this is a directory")


def test_a_path_through_a_file_cannot_be_read(run_file: RunFile) -> None:
    assert only(run_file() / "x").endswith("x:1:1: cannot be read: Not a directory")


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_refused(run_file: RunFile, text: str) -> None:
    assert only(run_file(whole=text)).startswith("run.yaml:1:1: the file is empty")


@pytest.mark.parametrize(
    ("whole", "line"),
    [
        (b"run: 1\nx: caf\xe9\n", "run.yaml:2:7: not UTF-8 (byte 0xe9)"),
        ("run: 1\nx: a: b\n", "run.yaml:2:5: not YAML: mapping values are not allowed here"),
        (
            "run:\n\tname: a\n",
            "run.yaml:2:1: not YAML: while scanning for the next token, found character '\\t'",
        ),
        ("run: [1\n", "run.yaml:2:1: not YAML: while parsing a flow sequence"),
        ("run: *nobody\n", "run.yaml:1:6: not YAML: found undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2:1: not YAML: expected a single document"),
        ("run: \x07\n", "run.yaml:1:6: not YAML: it has the character #x0007"),
        ("run: &a [*a]\n", "run.yaml:1:6: run[0]: an anchor that contains itself"),
        ("- run\n", "run.yaml:1:1: a run file is a mapping with the keys run, model, service"),
        ("just text\n", "run.yaml:1:1: a run file is a mapping"),
        ("run: " + "[" * 3000, "run.yaml:1:1: not a run file: nested too deeply"),
        (
            "a: &a [1,2,3,4,5,6,7,8,9,0]\n"
            "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
            "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            "d: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
            "not a run file: more than 10000 values",
        ),
    ],
)
def test_a_text_that_is_no_run_file_says_where_and_why(
    run_file: RunFile, whole: str | bytes, line: str
) -> None:
    assert line in only(run_file(whole=whole))


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        # keys
        (
            "servise: hud",
            "run.yaml:5:1: servise: unknown key; the keys here are run, model, service, taskset",
        ),
        ("servise: hud", 'did you mean "service"?'),
        ("rollout: {group_sise: 4}", "run.yaml:5:11: rollout.group_sise: unknown key"),
        ("rollout: {learning_rate: 1}", "rollout.learning_rate: unknown key"),
        ("rollout: {learning_rate: 1}", "it belongs in trainer"),
        ("rollout: {beta1: 1}", "it belongs in trainer.adam"),
        ("trainer: {lr: 1}", 'here it is called "trainer.learning_rate.peak"'),
        ("rollout: {xyzzy: 1}", "infrastructure_retries; remove it"),
        ("logging: {level: info}\nlogging: {}", "run.yaml:6:1: logging: stands here twice"),
        ("rollout: {group_size: 2, group_size: 3}", "run.yaml:5:26: rollout.group_size: stands here twice"),
        ("? [a]\n: b", "run.yaml:5:3: a key is a single word"),
        ("rollout: {<<: 3}", "run.yaml:5:15: rollout.<<: merges mappings only"),
        # types
        (
            "rollout: {deadline_s: '600'}",
            'run.yaml:5:23: rollout.deadline_s: "600" does not fit; allowed: a number above 0',
        ),
        ("rollout: {deadline_s: '600'}", "; remove the quotes"),
        ("rollout: {deadline_s: 10:00}", 'rollout.deadline_s: "10:00" does not fit'),
        ("rollout: {deadline_s: yes}", "rollout.deadline_s: true does not fit"),
        ("rollout: {deadline_s: }", "rollout.deadline_s: nothing does not fit"),
        ("rollout: {deadline_s: .inf}", "rollout.deadline_s: inf is not finite"),
        ("rollout: {deadline_s: 1e999}", "rollout.deadline_s: inf is not finite"),
        (
            "rollout: {group_size: 10.0}",
            "rollout.group_size: 10.0 does not fit; allowed: a whole number, 1 or more",
        ),
        ("rollout: {group_size: 010}", 'rollout.group_size: "010" does not fit'),
        ("rollout: {group_size: true}", "rollout.group_size: true does not fit"),
        ("rollout: {group_size: [1]}", "rollout.group_size: a list does not fit"),
        ("pipeline: {drop_no_spread: 1}", "pipeline.drop_no_spread: 1 does not fit; allowed: true or false"),
        ("local: {device: 3}", "local.device: 3 does not fit; allowed: text"),
        (
            "local: {lora: {targets: [q_proj, 3]}}",
            "run.yaml:5:34: local.lora.targets[1]: 3 does not fit; allowed: text",
        ),
        ("local: {lora: {targets: []}}", "local.lora.targets: an empty list has the wrong length"),
        (
            "trainer: {loss: 'mine:loss', loss_config: {clip: [1]}}",
            "trainer.loss_config.clip: a list does not fit; allowed: a number, true, false or text",
        ),
        ("trainer: {learning_rate: 1e-4}", 'write for example "learning_rate: {peak: ...}"'),
        ("local: [1]", "run.yaml:5:8: local: a list does not fit; allowed: a mapping with the keys device"),
        ("rollout: {deadline_s: !!binary aGk=}", "run.yaml:5:23: rollout.deadline_s: does not fit its tag"),
        ("rollout: {group_size: !!int x}", "rollout.group_size: does not fit its tag"),
        ('local: {device: "\\ud800"}', "local.device: does not fit its tag"),
        # ranges and words
        (
            "rollout: {group_size: 0}",
            "rollout.group_size: 0 is out of range; allowed: a whole number, 1 or more",
        ),
        (
            "pipeline: {staleness: 9}",
            "pipeline.staleness: 9 is out of range; allowed: a whole number from 0 to 8",
        ),
        ("evaluation: {temperature: -1}", "evaluation.temperature: -1 is out of range"),
        (
            "trainer: {adam: {beta1: 1}}",
            "trainer.adam.beta1: 1 is out of range; allowed: a number from 0 to below 1",
        ),
        ("service: hub", 'run.yaml:5:10: service: "hub" does not fit; allowed: one of local, hud'),
        ("logging: {level: warn}", 'allowed: one of debug, info, warning, error; did you mean "warning"?'),
        ("runtime: {placement: inprocess}", 'did you mean "in-process"?'),
        ("local: {device: gpu}", 'local.device: "gpu" does not fit; allowed: text that matches'),
    ],
)
def test_a_mistake_names_its_place_its_key_and_what_is_allowed(
    run_file: RunFile, extra: str, line: str
) -> None:
    assert line in only(run_file(extra + "\n"))


@pytest.mark.parametrize(
    ("whole", "lines"),
    [
        (
            "run: {name: a}\nmodel: {slug: a, base: tiny}\nagent: {max_tokens: 8}\n",
            [
                "run.yaml:1:1: run.steps: missing; it takes a whole number, 1 or more",
                "run.yaml:1:1: taskset: missing; it takes a mapping with the keys train, heldout, "
                "heldout_split, shuffle, curriculum",
            ],
        ),
        (
            "model: {slug: a}\ntaskset: {train: tasks.py}\nrun: {name: my run, steps: 1}\n",
            [
                "run.yaml:1:1: model.base: missing; the local service needs something to start from: tiny, "
                "smollm2-135m or a directory",
                'run.yaml:3:13: run.name: "my run" does not fit; allowed: text that matches '
                "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            ],
        ),
    ],
)
def test_missing_keys_are_reported_where_their_section_stands(
    run_file: RunFile, whole: str, lines: list[str]
) -> None:
    assert mistakes(run_file(whole=whole)) == lines


def test_all_mistakes_are_told_at_once_and_in_the_order_of_the_file(run_file: RunFile) -> None:
    path = run_file(
        "rollout: {group_size: 1, deadline_s: 10, grading_reserve_s: 20, concurrency: none}\n"
        "trainer: {loss: ppoo}\n"
        "logging: {}\n"
        "logging: {}\n"
        "loging: {}\n"
    )

    found = [line.split(": ")[:2] for line in mistakes(path, "run.stepz=3", "taskset.train=nowhere.py")]

    assert found == [
        ["run.yaml:5:23", "rollout.group_size"],
        ["run.yaml:5:61", "rollout.grading_reserve_s"],
        ["run.yaml:5:78", "rollout.concurrency"],
        ["run.yaml:6:17", "trainer.loss"],
        ["run.yaml:8:1", "logging"],
        ["run.yaml:9:1", "loging"],
        ["--set", "run.stepz"],
        ["--set", "taskset.train"],
    ]


@pytest.mark.parametrize(
    "extra",
    [
        "local: {device: '${HUD_API_KEY}'}",
        "local: {device: 'on ${HUD_API_KEY:-none} ok'}",
        "trainer:\n  call_timeout_s: ${HUD_API_KEY}",
        "local: {lora: {targets: ['${HUD_API_KEY}']}}",
    ],
)
def test_values_of_the_environment_are_refused(
    run_file: RunFile, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUD_API_KEY", "secret-value")

    line = only(run_file(extra))

    assert "${HUD_API_KEY} is not filled in" in line
    assert "secret-value" not in line


@pytest.mark.parametrize("key", ["api_key", "HUD_API_KEY", "token", "password", "client_secret"])
def test_a_secret_in_the_file_is_refused_without_being_repeated(run_file: RunFile, key: str) -> None:
    line = only(run_file(f"runtime: {{{key}: hunter2}}\n"))

    assert "no secret belongs in a run file: HUD_API_KEY is read from the process environment" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "override", ["run.api_key=hunter2", "api_key=hunter2", "hunter", "run.steps={[hunter2"]
)
def test_a_secret_on_the_command_line_is_not_repeated(run_file: RunFile, override: str) -> None:
    assert "hunter2" not in only(run_file(), override)


@pytest.mark.parametrize("value", ["sk-hud-abcdefgh", "a1b2c3d4e5f6a7b8c9d0e1f2a3b4"])
def test_a_value_that_looks_like_a_key_is_not_repeated(run_file: RunFile, value: str) -> None:
    line = only(run_file(f"rollout: {{deadline_s: {value}}}\n"))

    assert f"a text of {len(value)} characters does not fit" in line
    assert value not in line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("run.stepz=3", "--set: run.stepz: unknown key; the keys here are name, seed, steps"),
        ("run.steps", "--set: run.steps: write --set KEY=VALUE"),
        ("=3", "--set: write --set KEY=VALUE"),
        ("run..steps=3", "--set: run..steps: write --set KEY=VALUE"),
        ("run.steps=[", "--set: run.steps: not YAML"),
        ("run.steps=${N}", "--set: run.steps: ${N} is not filled in"),
        ("run.steps=many", '--set: run.steps: "many" does not fit; allowed: a whole number, 1 or more'),
        ("run=3", "--set: run: 3 does not fit; allowed: a mapping with the keys name"),
        ("run.name.x=3", "--set: run.name.x: cannot be set"),
        ("loss=ppo", "--set: loss: unknown key"),
        ("model.base=", "--set: model.base: missing"),
    ],
)
def test_a_mistake_on_the_command_line_is_reported_like_one_in_the_file(
    run_file: RunFile, override: str, line: str
) -> None:
    assert only(run_file(), override).startswith(line)


@pytest.mark.parametrize(
    ("taskset", "line"),
    [
        ("3", "taskset.train: 3 does not fit; allowed: text, or a list of mappings with the keys source"),
        ("[]", "taskset.train: an empty list has the wrong length"),
        ("{source: tasks.py}", "taskset.train: a mapping does not fit; allowed: text, or a list of mappings"),
        ("[3]", "taskset.train[0]: 3 does not fit; allowed: text, or a mapping with the keys source, weight"),
        ("[{limit: 3}]", "taskset.train[0].source: missing; it takes text"),
        (
            "[{source: tasks.py, wait: 1}]",
            "taskset.train[0].wait: unknown key; the keys here are source, weight, where, limit",
        ),
        ("[{source: tasks.py, weight: 0}]", "taskset.train[0].weight: 0 is out of range; allowed: a number"),
        (
            "[{source: tasks.py, where: 1}]",
            "taskset.train[0].where: 1 does not fit; allowed: a mapping of names to numbers, true, false or "
            "texts, or to lists of them",
        ),
        (
            "[{source: tasks.py, where: {a: [[]]}}]",
            "taskset.train[0].where.a: a list does not fit; allowed: a number, true, false or text, or a ",
        ),
        ("[tasks.py, no.json]", "run.yaml:3:29: taskset.train[1]: there is no file "),
        ("[{source: no.py}]", "run.yaml:3:28: taskset.train[0].source: there is no file "),
        (
            "[{source: tasks.py, weight: 1}, tasks.py]",
            "taskset.train[1]: missing: other entries",
        ),
        ("tasks.py, heldout: tasks.py, heldout_split: 0.1", "taskset.heldout_split: cannot stand beside"),
        ("tasks.py, heldout_split: 1", "taskset.heldout_split: 1 is out of range"),
        (
            "tasks.py, curriculum: {skip_solved: 0.5, retire_hopeless: 0.6}",
            "taskset.curriculum.retire_hopeless: 0.6 must be less than taskset.curriculum.skip_solved (0.5)",
        ),
    ],
)
def test_a_mistake_in_the_tasksets_names_the_entry(run_file: RunFile, taskset: str, line: str) -> None:
    whole = f"run: {{name: a, steps: 30}}\nmodel: {{slug: a, base: tiny}}\ntaskset: {{train: {taskset}}}\n"

    assert line in only(run_file(whole=whole))
