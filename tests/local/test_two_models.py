from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.local.local_world import World, running, trajectory

STEPS = 3


def batch(seed: int, step: int) -> dict[str, Any]:
    """A batch that only this model and step has."""
    inputs = [
        trajectory(
            [1, 5 + seed, 2], [(7 + seed * 3 + step * i) % 40 for _ in range(4 + i)], reward=float(i % 3)
        )
        for i in range(6)
    ]
    return {"inputs": inputs, "loss_fn": ("ppo", "cispo")[seed], "group_size": 3}


async def train(world: World, model: str, seed: int) -> list[bytes]:
    """Some steps by both ways of adding a gradient, with sampling in between; every file they make."""
    made = []
    for step in range(STEPS):
        asked = batch(seed, step)
        assert (await world.train(model, **asked, num_substeps=2)).status_code == 200
        forward = (await world.forward(model, inputs=asked["inputs"])).json()
        weights = [[(0.1 + seed) * m for m in one["mask"]] for one in forward["data"]]
        await world.chat(model, max_tokens=4)
        added = await world.backward(model, forward_id=forward["forward_id"], weights=weights)
        assert added.status_code == 200, added.text
        stepped = (await world.step(model, learning_rate=1e-2 * (1 + seed))).json()
        made += [Path(stepped[file]).read_bytes() for file in ("sampler_path", "state_path")]  # noqa: ASYNC240
    return made


@pytest.mark.parametrize("mode", ["full", "lora"])
async def test_two_models_trained_at_once_end_as_they_do_alone(
    tmp_path: Path, model_dir: Path, mode: str
) -> None:
    local = {"parameters": mode, "tokens_per_microbatch": 32}
    alone = []
    for seed, slug in enumerate(("left", "right")):
        async with running(tmp_path / slug, model_dir, local=local) as world:
            alone.append(await train(world, await world.fork(slug), seed))
    async with running(tmp_path / "both", model_dir, local=local) as world:
        models = [await world.fork(slug) for slug in ("left", "right")]
        together = await asyncio.gather(*[train(world, model, seed) for seed, model in enumerate(models)])
    assert list(together) == alone
    assert alone[0] != alone[1]


async def test_two_forks_of_tiny_trained_at_once_end_as_they_do_alone(
    tmp_path: Path, model_dir: Path, cache_home: Path
) -> None:
    local = {"cache_dir": str(cache_home)}
    made = {}
    async with running(tmp_path, model_dir, local=local) as world:
        for round_, slugs in enumerate((["a"], ["b"], ["c", "d"])):
            models = [await world.fork(slug, "tiny") for slug in slugs]
            seeds = [0, 1] if len(slugs) == 2 else [round_]
            found = await asyncio.gather(
                *[train(world, model, seed) for seed, model in zip(seeds, models, strict=True)]
            )
            made |= dict(zip(slugs, found, strict=True))
    assert made["c"] == made["a"]
    assert made["d"] == made["b"]
