"""Source texts of task libraries, from the run file to a step that was taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.tasksets.load import load

CONFIGS = Path(__file__).parents[2] / "configs"


async def test_a_source_text_names_tasks_to_train_on_and_others_that_are_held_out() -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    text = "reasoning-gym:gcd?size=7&heldout=3&seed=4&max_value=50"
    train, heldout = await load(text), await load(f"{text}&part=heldout")

    assert (len(train), len(heldout)) == (7, 3)
    assert not {task.slug for task in train} & {task.slug for task in heldout}
    assert train[0].columns == {"family": "gcd"}
    assert train[0].args["options"] == {"max_value": 50}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reasoning-gym:chain_sm", "did you mean 'chain_sum'"),
        ("reasoning-gym:chain_sum?size", "'size' is no option"),
        ("reasoning-gym:chain_sum?size=[", "is not YAML"),
        ("reasoning-gym:chain_sum?part=test", "expected train or heldout"),
        ("reasoning-gym:chain_sum?size=many", "many"),
    ],
)
async def test_a_source_text_that_names_nothing_is_said(text: str, words: str) -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    with pytest.raises(ConfigError, match=words) as failure:
        await load(text)

    assert str(failure.value).startswith(text)


@pytest.mark.parametrize(
    ("config", "library"),
    [("reasoning-gym", "reasoning_gym"), ("textarena", "textarena"), ("gymnasium", "gymnasium")],
)
def test_the_run_file_of_a_library_takes_its_steps(
    served: dict[str, str], tmp_path: Path, config: str, library: str
) -> None:
    pytest.importorskip(library, reason=f"needs the extra {config}")
    changes = [
        "run.steps=1", f"model.slug=library-{uuid4().hex[:8]}", "service=hud", "evaluation.limit=2",
        "rollout.group_size=2", "rollout.groups_per_step=2", "rollout.concurrency=2",
        "pipeline.replacements_per_step=0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "hud_orchestrator", "run", str(CONFIGS / f"{config}.yaml")]
    done = subprocess.run(
        [*command, *(word for change in changes for word in ("--set", change))],
        env=served, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "1 of 1" in done.stdout
    assert "finished" in done.stdout
