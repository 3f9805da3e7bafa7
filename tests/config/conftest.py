from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

BASE = """\
run: {name: a, steps: 30}
model: {slug: a, base: tiny}
taskset: {train: tasks.py}
agent: {max_tokens: 8}
"""
"""A run file without mistakes, in four lines; tests append from line 5."""


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a run file: ``BASE`` and what the test appends, or a whole text."""
    (tmp_path / "tasks.py").write_text("")

    def write(extra: str = "", *, whole: str | bytes | None = None) -> Path:
        path = tmp_path / "run.yaml"
        text = BASE + extra if whole is None else whole
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
