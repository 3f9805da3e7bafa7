"""``hud models`` against the embedded service, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hud import TrainingClient


def hud(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("hud")), *arguments]
    return subprocess.run(
        command, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False
    )


def told(*arguments: str) -> Any:
    done = hud(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_list_shows_bases_and_forks(slug: str) -> None:
    models = {model["model_name"]: model for model in told("models", "list")}
    quiet = hud("models", "list", "--quiet").stdout.split()
    human = hud("models", "list")

    assert {"tiny", slug} <= set(quiet)
    assert models[slug]["is_trainable"]
    assert not models["tiny"]["is_trainable"]
    assert models[slug]["sdk_agent_type"] == "openai_compatible"
    assert human.returncode == 0
    assert slug in human.stdout


def test_fork_makes_a_model_once(slug: str) -> None:
    name = f"{slug}-again"

    made = told("models", "fork", slug, "--name", name, "--yes")
    taken = hud("models", "fork", slug, "--name", name, "--yes", "--json")
    found = told("models", "fork", slug, "--name", name, "--yes", "--if-not-exists")
    human = hud("models", "fork", "tiny", "--name", f"{name}-human", "--yes")

    assert made["model_name"] == name
    assert taken.returncode == 1
    assert json.loads(taken.stdout)["error"] == "conflict"
    assert found["id"] == made["id"]
    assert human.returncode == 0
    assert f"{name}-human" in human.stdout


async def test_checkpoints_and_head_follow_the_tree(
    slug: str, roll_out: Callable[..., Awaitable[Any]]
) -> None:
    client = TrainingClient(slug)
    empty = told("models", "head", slug)
    runs = await roll_out(slug, [(12, 3), (47, 8)], group=8)
    first = await client.step(runs, learning_rate=1e-4, loss_fn="cross_entropy", group_size=8)
    second = await client.step(runs, learning_rate=1e-4, loss_fn="cross_entropy", group_size=8)

    nodes = told("models", "checkpoints", slug)
    head = told("models", "head", slug)
    human = hud("models", "checkpoints", slug), hud("models", "head", slug)
    promoted = told("models", "head", slug, "--set", first.checkpoint_id, "--yes")
    unknown = hud("models", "head", slug, "--set", "nothing", "--yes", "--json")
    after = await client.head()

    assert empty["head"] is None
    assert [node["id"] for node in nodes] == [first.checkpoint_id, second.checkpoint_id]
    assert [node["is_active"] for node in nodes] == [False, True]
    assert head["head"]["id"] == second.checkpoint_id
    assert [done.returncode for done in human] == [0, 0]
    assert "cross_entropy" in human[0].stdout
    assert second.sampler_path in human[1].stdout
    assert promoted["checkpoint_id"] == first.checkpoint_id
    assert unknown.returncode == 1
    assert json.loads(unknown.stdout)["error"] == "not_found"
    assert after is not None
    assert after.id == first.checkpoint_id
