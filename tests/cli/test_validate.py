"""``validate`` shows what a run file resolves to, or every mistake, and never a secret."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[..., "subprocess.CompletedProcess[str]"]

RUN = """\
run: {name: a, steps: 3}
model:
  slug: a
  base: tiny
taskset: {train: tasks.py}
agent:
  max_tokens: 8
"""


@pytest.fixture
def run_file(work: Path) -> Path:
    (work / "tasks.py").write_text("")
    (work / "run.yaml").write_text(RUN)
    return work / "run.yaml"


@pytest.mark.usefixtures("run_file")
def test_every_value_is_shown_with_where_it_came_from(hud_orchestrate: Shell) -> None:
    done = hud_orchestrate("validate", "run.yaml", "--set", "trainer.learning_rate.peak=3e-4")

    assert (done.returncode, done.stderr) == (0, "")
    shown = {
        line.split("#")[0].strip(): line.split("#")[1].strip()
        for line in done.stdout.splitlines()
        if "#" in line
    }
    assert shown["slug: a"] == "run.yaml:3"
    assert shown["peak: 0.0003"] == "--set"
    assert shown["deadline_s: 600.0"] == "default"
    assert len({line.index("#") for line in done.stdout.splitlines() if "#" in line}) == 1


def test_what_is_shown_is_a_run_file_again(hud_orchestrate: Shell, run_file: Path) -> None:
    shown = hud_orchestrate("validate", "run.yaml").stdout
    (run_file.parent / "again.yaml").write_text(shown)

    again = hud_orchestrate("validate", "again.yaml", "--json")

    assert again.returncode == 0
    assert (
        json.loads(again.stdout)["run"]
        == json.loads(hud_orchestrate("validate", "run.yaml", "--json").stdout)["run"]
    )


@pytest.mark.usefixtures("run_file")
def test_json_has_values_origins_and_warnings(hud_orchestrate: Shell) -> None:
    found = json.loads(
        hud_orchestrate("validate", "run.yaml", "--json", "--set", "pipeline.staleness=2").stdout
    )

    assert found["run"]["pipeline"]["staleness"] == 2
    assert found["origins"]["pipeline.staleness"] == "--set"
    assert len(found["warnings"]) == 1
    assert found["addresses"] == {}


@pytest.mark.usefixtures("run_file")
def test_warnings_go_to_stderr_and_the_code_stays_0(hud_orchestrate: Shell) -> None:
    done = hud_orchestrate("validate", "run.yaml", "--set", "pipeline.staleness=2")

    assert done.returncode == 0
    assert done.stderr.startswith("warning: --set: pipeline.staleness: 2 with the unclipped")


def test_mistakes_go_to_stderr_one_a_line_and_the_code_is_2(hud_orchestrate: Shell, run_file: Path) -> None:
    run_file.write_text(RUN + "loging: {}\nrollout: {group_size: 0}\n")

    done = hud_orchestrate("validate", "run.yaml")

    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["run.yaml:8:1", "run.yaml:9:23"]


@pytest.mark.usefixtures("run_file")
def test_addresses_are_shown_with_their_places_and_the_key_only_as_set(
    hud_orchestrate: Shell, work: Path
) -> None:
    (work / ".env").write_text("HUD_RL_URL=http://127.0.0.1:1/\n")

    done = hud_orchestrate("validate", "run.yaml", "--set", "service=hud", HUD_API_KEY="secret-value")

    assert done.returncode == 0
    assert "# HUD_API_KEY: set  (process environment)\n" in done.stdout
    assert "# HUD_RL_URL: http://127.0.0.1:1  (.env)\n" in done.stdout
    assert "# HUD_API_URL: https://api.hud.ai  (default)\n" in done.stdout
    assert "secret-value" not in done.stdout + done.stderr


@pytest.mark.usefixtures("run_file")
def test_a_wrong_address_is_a_mistake_with_service_hud_only(hud_orchestrate: Shell) -> None:
    assert hud_orchestrate("validate", "run.yaml", HUD_RL_URL="").returncode == 0

    done = hud_orchestrate("validate", "run.yaml", "--set", "service=hud", HUD_RL_URL="")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("HUD_RL_URL (process environment): is empty")


@pytest.mark.parametrize(
    "broken",
    [
        "run: {name: ${HUD_API_KEY}}",
        "api_key: secret-value",
        "runtime: {token: secret-value}",
        "secret-value: [",
        "model: {slug: [secret-value]}",
        "? {secret-value: 1}",
        "rollout: !!int secret-value",
        "agent: {stop: secret-value}",
    ],
)
def test_the_key_is_never_in_the_output(hud_orchestrate: Shell, run_file: Path, broken: str) -> None:
    run_file.write_text(broken + "\n")

    done = hud_orchestrate("validate", "run.yaml", HUD_API_KEY="secret-value")

    assert done.returncode == 2
    assert "secret-value" not in done.stdout + done.stderr
