"""``hud-orchestrate eval`` in containers: those of a killed evaluation, and those of one that goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud_orchestrator.cli.evaluate.own_directory import own_directory
from tests.cli.models_world import Models
from tests.environments.fake_engine import FakeEngine, fake_engine

SUMS = """
import asyncio
from hud_orchestrator import Environment

env = Environment("sums")


@env.template()
async def quick():
    yield "1+1="
    yield 1.0


@env.template()
async def slow():
    yield "1+1="
    await asyncio.sleep(1e6)
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sums.py").write_text(SUMS)
    for name in ("quick", "slow"):
        row = {"env": "sums", "id": name, "runtime_config": {"image": "sums"}}
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with fake_engine(tmp_path, tmp_path / "images") as engine:
        yield engine


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that nobody else has."""
    there = tmp_path / "temporary"
    there.mkdir()
    monkeypatch.setenv("TMPDIR", str(there))
    monkeypatch.setattr(tempfile, "tempdir", str(there))
    return there


def test_what_a_killed_evaluation_left_is_removed_by_the_next_one_in_containers(
    models: Models, engine: FakeEngine, temporary: Path
) -> None:
    here = ["--model", "tiny", "--max-tokens", "2"]
    command = [sys.executable, "-m", "hud_orchestrator", "eval", "slow.json", "--runtime", "docker", *here]
    with subprocess.Popen(command, env=dict(os.environ)) as killed:
        while not any(one.port for one in engine.containers.values()) and killed.poll() is None:
            time.sleep(0.05)  # another process's containers
        killed.kill()
    (left,) = engine.containers

    local = ["--runtime", "local", "--environment", "images/sums.py"]
    elsewhere = models("quick.json", *local, *here, command="eval")
    assert (elsewhere.code, list(engine.containers)) == (0, [left])
    said = models("quick.json", "--runtime", "docker", *here, command="eval")

    assert said.code == 0, said.err
    assert engine.containers == {}
    assert len(engine.asked) == 2
    assert list(temporary.glob("hud-orchestrate-eval-*")) == []


def test_an_evaluation_that_goes_on_keeps_its_directory_and_one_that_broke_off_leaves_it(
    temporary: Path,
) -> None:
    with own_directory("docker") as first:
        with pytest.raises(KeyboardInterrupt), own_directory("docker") as broken:
            raise KeyboardInterrupt
        assert sorted(temporary.iterdir()) == sorted([first, broken])

        with own_directory("docker") as next_one, own_directory("local") as elsewhere:
            assert next_one == broken
            assert elsewhere not in (first, broken)

    assert list(temporary.iterdir()) == []


def test_a_name_that_leads_elsewhere_is_not_taken_for_a_directory_that_was_left(
    temporary: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (temporary / "hud-orchestrate-eval-docker-x").symlink_to(precious)

    with own_directory("docker") as path:
        assert path.parent == temporary
        assert path.name != "hud-orchestrate-eval-docker-x"

    assert precious.is_dir()
