"""Errors become one line and one code, however deep they lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest
import structlog

from hud_orchestrator import errors, logs
from hud_orchestrator.cli.exits import exit_code

Captured = pytest.CaptureFixture[str]


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_a_call_that_returns_exits_0(capsys: Captured) -> None:
    assert exit_code(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunFailed("x"), 1),
        (errors.RequestRejected("x", status=400), 1),
        (errors.HeadMoved("x"), 76),
        (errors.OutcomeUnknown("x"), 3),
        (errors.ServiceUnreachable("x"), 69),
        (errors.ServiceBusy("x"), 69),
        (errors.StateUnwritable("x"), 74),
        (errors.StateInUse("x"), 75),
        (errors.KeyRefused("x"), 77),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_own_code(
    capsys: Captured, error: errors.OrchestratorError, code: int
) -> None:
    assert exit_code(raising(error)) == code
    assert capsys.readouterr() == ("", "error: x\n")


def test_mistakes_of_a_run_file_are_printed_as_they_are(capsys: Captured) -> None:
    assert exit_code(raising(errors.ConfigError("run.yaml:1:1: a\nrun.yaml:2:1: b"))) == 2
    assert capsys.readouterr().err == "run.yaml:1:1: a\nrun.yaml:2:1: b\n"


def test_a_group_shows_its_leaves_each_once_and_the_code_of_the_gravest(capsys: Captured) -> None:
    group = BaseExceptionGroup(
        "unhandled errors in a TaskGroup",
        [
            errors.ServiceUnreachable("no connection"),
            ExceptionGroup(
                "inner", [errors.OutcomeUnknown("step 4"), errors.ServiceUnreachable("no connection")]
            ),
            KeyboardInterrupt(),
        ],
    )

    assert exit_code(raising(group)) == 3
    assert capsys.readouterr().err == "error: no connection\nerror: step 4\nerror: interrupted\n"


def test_an_interruption_exits_130(capsys: Captured) -> None:
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_anything_else_is_a_bug_with_its_traceback(capsys: Captured) -> None:
    assert exit_code(raising(ExceptionGroup("g", [KeyError(7), errors.RunFailed("x")]))) == 70

    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith(
        "error: this is a bug in hud_orchestrator, please report it: KeyError: 7\nerror: x\n"
    )


def test_the_key_is_blanked_out_of_a_traceback(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUD_API_KEY", "secret-value")

    assert exit_code(raising(ValueError("illegal header: Bearer secret-value"))) == 70
    assert "secret-value" not in capsys.readouterr().err


@pytest.mark.parametrize(("code", "seen"), [(None, 0), (0, 0), (2, 2), ("sorry", 1)])
def test_an_exit_that_was_asked_for_keeps_its_code(code: int | str | None, seen: int) -> None:
    assert exit_code(raising(SystemExit(code))) == seen


def test_the_order_of_gravity_names_every_code_that_is_an_error() -> None:
    from hud_orchestrator.errors import GRAVEST_FIRST

    assert set(GRAVEST_FIRST) == set(errors.ExitCode) - {errors.ExitCode.DONE}


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = f"{sys.executable} -m hud_orchestrator schema | true; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def full() -> Iterator[TextIO]:
    """A stream to a disk that has no room."""
    with suppress(OSError), open("/dev/full", "w", buffering=1) as stream:  # noqa: PTH123
        yield stream


def test_an_error_that_cannot_be_printed_keeps_its_code(
    monkeypatch: pytest.MonkeyPatch, full: TextIO
) -> None:
    monkeypatch.setattr(sys, "stderr", full)

    assert exit_code(raising(errors.StateUnwritable("no room"))) == 74


def test_a_log_that_cannot_be_written_ends_nothing(full: TextIO) -> None:
    logs.configure(stream=full, as_json=True, level="info")
    logs.copy_to(Path("/dev/full"))
    try:
        logs.get_logger().info("run.started")
    finally:
        logs.copy_to(None)
        structlog.reset_defaults()
