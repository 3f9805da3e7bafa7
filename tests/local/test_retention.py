from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file

from hud_orchestrator.local.tree import Tree
from tests.local.local_world import PAIR, World, running


async def learn(world: World, model: str, *, reward: float = 1.0) -> str:
    """A step whose rewards are 0 and *reward*; its checkpoint."""
    inputs = [dict(PAIR[0], reward=reward), PAIR[1]]
    assert (await world.train(model, inputs=inputs)).status_code == 200
    stepped = await world.step(model, learning_rate=1e-3)
    assert stepped.status_code == 200, stepped.text
    return str(stepped.json()["checkpoint_id"])


def on_disk(state: Path, model: str) -> set[str]:
    """Checkpoints with both of their tensor files."""
    nodes = state / "models" / model / "checkpoints"
    weights, optimizers = (
        {path.parent.name for path in nodes.glob(f"*/{name}.safetensors")} for name in FILES
    )
    assert weights == optimizers
    return weights


FILES = ("weights", "optimizer")
REWARDS = [0.5, 0.9, 0.1, 0.9, 0.3, 0.2, 0.7]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ({}, {0, 1, 2, 3, 4, 5, 6}),
        ({"last": 3, "best": False}, {4, 5, 6}),
        ({"last": 2}, {3, 5, 6}),
        ({"last": 1, "every": 2}, {1, 3, 5, 6}),
        ({"last": 1, "best": False}, {6}),
    ],
)
async def test_the_last_every_kth_and_the_best_are_kept(
    tmp_path: Path, model_dir: Path, keep: dict[str, Any], expected: set[int]
) -> None:
    async with running(tmp_path, model_dir, local={"keep": keep}) as world:
        model = await world.fork("fork")
        made = [await learn(world, model, reward=reward) for reward in REWARDS]
        kept = {made[index] for index in expected}
        assert on_disk(tmp_path, model) == kept
        nodes = await world.checkpoints(model)
        assert [node["id"] for node in nodes] == made
        assert [node["prev_model_checkpoint_id"] for node in nodes] == [None, *made[:-1]]
        assert {node["id"] for node in nodes if node["checkpoint_name"]} == kept


async def test_what_was_pruned_is_refused_with_what_is_left(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir, local={"keep": {"last": 2, "best": False}}) as world:
        model = await world.fork("fork")
        first, second, third = [await learn(world, model) for _ in range(3)]
        fork = {"source_model_id": model, "name": "other", "checkpoint_id": first}
        head = await world.set_head(model, first)
        forked = await world.http.post("/v2/models/fork", json=fork)
        for refused in (head, forked):
            assert refused.status_code == 410
            detail = refused.json()["detail"]
            assert f"checkpoint {first} (step-000001) of model fork was pruned" in detail
            assert f"step-000002 {second}, step-000003 {third}" in detail
            assert "\n" not in detail
        assert (await world.set_head(model, second)).status_code == 200
        assert (await world.chat("fork"))["system_fingerprint"] == second


async def test_the_tip_of_every_branch_and_the_head_are_kept(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir, local={"keep": {"last": 2, "best": False}}) as world:
        model = await world.fork("fork")
        root, tip = [await learn(world, model) for _ in range(2)]
        await world.set_head(model, root)
        branch = [await learn(world, model) for _ in range(3)]
        assert on_disk(tmp_path, model) == {tip, *branch[1:]}
        await world.set_head(model, tip)
        other = [await learn(world, model) for _ in range(2)]
        assert on_disk(tmp_path, model) == {branch[2], *other}
        # The head stays although two newer ones count as the last.
        await world.set_head(model, branch[2])
    tree = Tree(tmp_path / "models" / model)
    assert tree.head
    assert tree.head.checkpoint.id == branch[2]


async def test_what_a_client_wants_kept_is_kept_for_as_long_as_it_says_so(
    tmp_path: Path, model_dir: Path
) -> None:
    async with running(tmp_path, model_dir, local={"keep": {"last": 1, "best": False}}) as world:
        model = await world.fork("fork")
        first = await learn(world, model)
        for _ in range(3):
            body = await world.learn(model, headers={"Keep-Checkpoints": f"{first}, unheard-of"})
            assert on_disk(tmp_path, model) == {first, body["checkpoint_id"]}
        last = await learn(world, model)
        assert on_disk(tmp_path, model) == {last}


async def test_a_branch_goes_on_with_the_moments_of_its_checkpoint(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        first = await learn(world, model)
        second = await learn(world, model)
        await world.set_head(model, first)
        again = await learn(world, model)
        tree = Tree(tmp_path / "models" / model)
        for left, right in zip(tree.paths(second), tree.paths(again), strict=True):
            assert left.read_bytes() == right.read_bytes()
        # A fork has an optimizer of its own: its first moments are those of one gradient.
        fork = await world.fork("other", "fork", checkpoint_id=first)
        fresh = await world.train(fork, inputs=PAIR)
        assert fresh.status_code == 200
        stepped = (await world.step(fork)).json()
        assert stepped["step"] == 1
        moments = load_file(stepped["state_path"])
        assert any(not moments[name].equal(one) for name, one in load_file(tree.paths(again)[1]).items())


@pytest.mark.parametrize("left", FILES)
async def test_a_kill_in_the_middle_of_pruning_leaves_a_whole_tree(
    tmp_path: Path, model_dir: Path, left: str
) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        made = [await learn(world, model) for _ in range(3)]
    node = tmp_path / "models" / model / "checkpoints" / made[0]
    # As after a kill between the two deletions, whichever comes first.
    (gone,) = {*FILES} - {left}
    (node / f"{gone}.safetensors").unlink()
    async with running(tmp_path, model_dir) as world:
        assert [one["id"] for one in await world.checkpoints(model)] == made
        refused: httpx.Response = await world.set_head(model, made[0])
        assert refused.status_code == 410
        assert on_disk(tmp_path, model) == set(made[1:])
        assert (await world.learn(model))["step"] == 4


async def test_a_smaller_keep_is_caught_up_with_by_the_next_step(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        made = [await learn(world, model) for _ in range(4)]
    async with running(tmp_path, model_dir, local={"keep": {"last": 2, "best": False}}) as world:
        assert on_disk(tmp_path, model) == set(made)
        made.append(await learn(world, model))
        assert on_disk(tmp_path, model) == set(made[-2:])
