"""A few real kills; ``make chaos`` makes hundreds."""

from __future__ import annotations

from pathlib import Path

from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.local.bases import prepare
from tests.chaos.campaign import campaign


def test_real_kills_repeat_and_lose_nothing(tmp_path: Path, cache_home: Path) -> None:
    prepare("tiny", cache_dir=cache_home, seed=LocalSection().warm_start_seed)

    report = campaign(tmp_path, "apart", seed=3, kills=3, steps=16, cache=cache_home, quick=True)

    assert report.faults
    assert report.counted["steps"] == 16
