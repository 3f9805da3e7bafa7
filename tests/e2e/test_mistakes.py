"""Every mistake a person can make has one clear line and an exit code, and costs nothing they had."""

from __future__ import annotations

import resource
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Runner, until_line

SECRET = "a-key-that-must-stay-secret"


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return [line for line in done.stderr.splitlines() if line.startswith("error:")][-1]


def test_a_refused_key_is_said_at_once_and_never_repeated_aloud(remote_run: Runner) -> None:
    done = remote_run.run(HUD_API_KEY=SECRET)

    assert done.returncode == 77
    assert "401" in last_line(done)
    assert "HUD_API_KEY" in last_line(done)
    assert SECRET not in done.stderr + done.stdout


def test_a_missing_key_is_said_before_anything_is_asked(remote_run: Runner) -> None:
    done = remote_run.run(HUD_API_KEY="")

    assert done.returncode == 77
    assert "HUD_API_KEY is not set" in last_line(done)


def test_the_key_is_in_no_file_of_the_run(remote_run: Runner) -> None:
    done = remote_run.run("--set", "run.steps=1")

    assert done.returncode == 0, done.stderr
    key = remote_run.environ["HUD_API_KEY"].encode()
    files = [path for path in remote_run.directory.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if key in path.read_bytes()] == []
    assert key.decode() not in done.stdout + done.stderr


def test_a_service_that_is_not_there_is_named(remote_run: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = remote_run.run(HUD_API_URL=f"http://127.0.0.1:{port}")

    assert done.returncode == 69
    assert f"http://127.0.0.1:{port}" in last_line(done)
    assert "cannot connect" in last_line(done)


def test_a_missing_taskset_is_found_before_anything_starts(remote_run: Runner) -> None:
    (remote_run.directory / "tasks.py").unlink()
    done = remote_run.run()

    assert done.returncode == 2
    assert "tasks.py" in done.stderr
    assert "taskset.train" in done.stderr
    assert not remote_run.state.exists()


def test_a_list_that_the_taskset_lacks_is_named_with_those_it_has(remote_run: Runner) -> None:
    done = remote_run.run("--set", "taskset.train=tasks.py:training")

    assert done.returncode == 2
    assert "'training'" in done.stderr
    assert "it has heldout, train" in done.stderr


def test_a_taskset_that_cannot_be_imported_says_why(remote_run: Runner) -> None:
    remote_run.write(tasks="import nothing_like_this\n")
    done = remote_run.run()

    assert done.returncode == 2
    assert "nothing_like_this" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_base_that_the_catalog_lacks_is_named(remote_run: Runner) -> None:
    done = remote_run.run("--set", "model.base=gigantic")

    assert done.returncode == 2
    assert "'gigantic'" in done.stderr
    assert "tiny" in done.stderr


def test_a_state_directory_in_use_is_left_to_its_run(remote_run: Runner) -> None:
    remote_run.write(run={"steps": 500})
    with remote_run.started() as process:
        until_line(process, "step.taken")
        second = remote_run.run()
        assert process.poll() is None

    assert second.returncode == 75
    assert f"process {process.pid}" in last_line(second)


def test_a_store_that_is_lost_is_said_and_nothing_is_trained_once_more(
    remote_run: Runner, checkpoints: Callable[[str], list[dict[str, Any]]]
) -> None:
    assert remote_run.run("--set", "run.steps=1").returncode == 0
    for path in remote_run.state.glob("store.db*"):
        path.unlink()
    for attempt in ("missing", "empty"):
        if attempt == "empty":
            (remote_run.state / "store.db").write_bytes(b"")
        done = remote_run.run("--set", "run.steps=1")

        assert done.returncode == 1
        assert f"{remote_run.state.name}/store.db: is missing or empty" in last_line(done)
    assert len(checkpoints(remote_run.config["model"]["slug"])) == 1


def test_a_full_disk_at_the_start_is_said_before_anything_is_begun(remote_run: Runner) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    done = subprocess.run(
        remote_run.command(), cwd=remote_run.directory, env=dict(remote_run.environ), timeout=60,
        capture_output=True, text=True, check=False, preexec_fn=small_files,
    )  # fmt: skip

    assert done.returncode == 74
    assert "free some space" in last_line(done)
    assert remote_run.run("--set", "run.steps=1").returncode == 0


def test_a_state_directory_that_is_a_file_is_named(remote_run: Runner, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    done = remote_run.run()

    assert done.returncode == 74
    assert "runs" in last_line(done)


def test_a_loss_that_the_service_lacks_is_named_with_those_it_has(remote_run: Runner) -> None:
    done = remote_run.run("--set", "trainer.loss=magic")

    assert done.returncode == 2
    assert "'magic'" in done.stderr
    assert "importance_sampling" in done.stderr
