"""The deliberate bugs can still be made; how soon they are noticed takes minutes to say."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_can_be_made(name: str) -> None:
    spec = find_spec(f"hud_orchestrator.{MUTANTS[name].module}")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text()

    assert MUTANTS[name].of(text) != text
