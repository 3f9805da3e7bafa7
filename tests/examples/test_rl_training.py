"""The training examples, as scripts and as run files, for two steps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

HERE = Path(__file__).parents[2] / "examples" / "rl_training"


@pytest.mark.parametrize("example", ["simple_train", "custom_loss"])
def test_the_script_takes_its_steps(served: dict[str, str], example: str) -> None:
    slug = f"example-{uuid4().hex[:8]}"
    headers = {"Authorization": f"Bearer {served['HUD_API_KEY']}"}
    with httpx.Client(base_url=served["HUD_API_URL"], headers=headers, timeout=120) as http:
        base = http.get("/v2/models/resolve", params={"model": "tiny"}).json()["id"]
        http.post("/v2/models/fork", json={"source_model_id": base, "name": slug}).raise_for_status()

    command = [sys.executable, str(HERE / f"{example}.py"), slug, "--steps", "2"]
    done = subprocess.run(command, env=served, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert re.findall(r"^step (\d): reward 0\.\d+", done.stdout, re.MULTILINE) == ["1", "2"]


@pytest.mark.parametrize("example", ["simple_train", "custom_loss"])
def test_the_run_file_takes_its_steps(served: dict[str, str], tmp_path: Path, example: str) -> None:
    changes = ["run.steps=2", f"model.slug=example-{uuid4().hex[:8]}", "service=hud", "evaluation.limit=4"]
    command = [sys.executable, "-m", "hud_orchestrator", "run", str(HERE / f"{example}.yaml")]
    done = subprocess.run(
        [*command, *(word for change in changes for word in ("--set", change))],
        env=served, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "2 of 2" in done.stdout
