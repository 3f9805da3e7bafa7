"""Rules about the project itself that a second person would have to be told."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hud_orchestrator.errors import ExitCode
from hud_orchestrator.logs import EVENTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hud_orchestrator"
LOGGED = re.compile(r'(?:log|logger|tell)\.?(?:debug|info|warning|error|exception)?\(\s*"([a-z]+\.[a-z_]+)"')


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_log_event_is_in_the_closed_list() -> None:
    written = {name for path in modules() for name in LOGGED.findall(path.read_text())}

    assert written
    assert written <= EVENTS


@pytest.mark.parametrize("forbidden", ["torch", "transformers", "starlette", "uvicorn"])
def test_the_core_never_imports_what_only_the_service_needs(forbidden: str) -> None:
    code = f"import sys, hud_orchestrator.daemon, hud_orchestrator.cli; print({forbidden!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_no_module_is_longer_than_a_person_reads_at_once() -> None:
    assert [path.name for path in modules() if len(path.read_text().splitlines()) > 400] == []


def test_no_function_is_longer_than_a_screen() -> None:
    found = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > 60
    ]

    assert found == []


def test_the_readme_has_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text()

    assert [code.value for code in ExitCode if f"| {code.value} |" not in text] == []


def test_the_readme_has_every_section_of_the_run_file() -> None:
    from hud_orchestrator.config.run import RunFile

    text = (ROOT / "README.md").read_text()
    assert [name for name in RunFile.model_fields if f"| `{name}` |" not in text] == []
