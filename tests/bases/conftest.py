"""One warm-started tiny base for all tests, also when they run in several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hud_orchestrator.local.bases import prepare


@pytest.fixture(scope="session")
def tiny(cache_home: Path) -> Path:
    """The tiny base of seed 0. ``prepare`` itself keeps the workers from building it twice."""
    return prepare("tiny", cache_dir=cache_home, seed=0)
