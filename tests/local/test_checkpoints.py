from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hud_orchestrator.errors import StateError
from hud_orchestrator.local import atomic
from hud_orchestrator.local import tree as tree_module
from hud_orchestrator.local.tree import Tree
from hud_orchestrator.local.tree_records import Head
from tests.local.local_world import PAIR, World, running


async def test_a_head_that_is_set_discards_gradients_and_samples_there(world: World) -> None:
    model = await world.fork("fork")
    first = await world.learn(model)
    at_first = await world.chat("fork", temperature=0)
    second = await world.learn(model, learning_rate=0.1)
    await world.train(model, inputs=PAIR)
    for _ in range(2):
        reply = await world.set_head(model, first["checkpoint_id"])
        assert reply.status_code == 200
        assert isinstance(reply.json(), dict)
    assert (await world.chat("fork", temperature=0))["choices"] == at_first["choices"]
    assert (await world.step(model)).status_code == 409
    assert [node["is_active"] for node in await world.checkpoints(model)] == [True, False]
    third = await world.learn(model)
    nodes = await world.checkpoints(model)
    assert [node["prev_model_checkpoint_id"] for node in nodes] == [
        None,
        first["checkpoint_id"],
        first["checkpoint_id"],
    ]
    assert [node["is_active"] for node in nodes] == [False, False, True]
    assert (second["step"], third["step"]) == (2, 2)
    assert len({node["id"] for node in nodes}) == 3


async def test_setting_the_head_it_has_also_discards_gradients(world: World) -> None:
    model = await world.fork("fork")
    first = await world.learn(model)
    await world.train(model, inputs=PAIR)
    assert (await world.set_head(model, first["checkpoint_id"])).status_code == 200
    assert (await world.step(model)).status_code == 409


async def test_an_unknown_head_is_404_and_changes_nothing(world: World) -> None:
    model = await world.fork("fork")
    await world.train(model, inputs=PAIR)
    assert (await world.set_head(model, "nowhere")).status_code == 404
    assert (await world.step(model)).status_code == 200


async def test_a_restart_comes_back_to_the_head_and_goes_on_with_adam(
    tmp_path: Path, model_dir: Path
) -> None:
    finals = []
    for name, restart in (("through", False), ("restarted", True)):
        async with running(tmp_path / name, model_dir) as world:
            model = await world.fork("fork")
            await world.learn(model)
            await world.learn(model)
            before = await world.checkpoints(model)
            if not restart:
                final = await world.learn(model)
        if restart:
            async with running(tmp_path / name, model_dir) as world:
                assert await world.checkpoints(model) == before
                assert (await world.chat("fork"))["system_fingerprint"] == before[-1]["id"]
                final = await world.learn(model)
        assert final["step"] == 3
        finals.append(load_file(final["sampler_path"]) | load_file(final["state_path"]))
    for name, tensor in finals[0].items():
        torch.testing.assert_close(finals[1][name], tensor, rtol=0, atol=0)


async def test_a_key_is_recognised_after_a_restart(tmp_path: Path, model_dir: Path) -> None:
    key = {"Idempotency-Key": "k"}
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        await world.train(model, inputs=PAIR)
        first = (await world.step(model, headers=key)).json()
    async with running(tmp_path, model_dir) as world:
        assert (await world.step(model, headers=key)).json() == first
        assert (await world.step(model, headers=key, weight_decay=0.1)).status_code == 409


async def test_a_node_without_its_head_file_is_adopted_at_start(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        await world.learn(model)
        head_file = tmp_path / "models" / model / "head.json"
        as_of_first = head_file.read_bytes()
        second = await world.learn(model)
    # As after a kill between the rename of the node and the writing of the head.
    head_file.write_bytes(as_of_first)
    async with running(tmp_path, model_dir) as world:
        nodes = await world.checkpoints(model)
        assert [node["is_active"] for node in nodes] == [False, True]
        assert (await world.chat("fork"))["system_fingerprint"] == second["checkpoint_id"]


async def test_a_head_set_back_stays_back_over_a_restart(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        first = await world.learn(model)
        await world.learn(model)
        await world.set_head(model, first["checkpoint_id"])
    async with running(tmp_path, model_dir) as world:
        assert [node["is_active"] for node in await world.checkpoints(model)] == [True, False]


async def test_what_is_damaged_is_named_and_a_lost_head_file_is_written_anew(
    tmp_path: Path, model_dir: Path
) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        await world.learn(model)
        second = await world.learn(model)
    directory = tmp_path / "models" / model
    head_file = directory / "head.json"
    node = directory / "checkpoints" / second["checkpoint_id"]

    head_file.unlink()
    head = Tree(directory).head
    assert head is not None
    assert head.checkpoint.id == second["checkpoint_id"]
    assert json.loads(head_file.read_text())["checkpoint_id"] == second["checkpoint_id"]

    node.rename(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=f"{node}: the head of model fork is not there"):
        Tree(directory)
    (tmp_path / "elsewhere").rename(node)

    for damaged in (head_file, node / "meta.json", directory / "model.json"):
        whole = damaged.read_bytes()
        damaged.write_bytes(b"{")
        with pytest.raises(StateError, match=f"{damaged}: is damaged"):
            Tree(directory)
        damaged.write_bytes(whole)
    assert len(Tree(directory).nodes) == 2


async def test_leftovers_of_a_crash_are_removed(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        await world.learn(model)
    directory = tmp_path / "models" / model
    leftovers = [directory / "checkpoints" / ".new-x", directory.with_name(".new-y")]
    for leftover in leftovers:
        leftover.mkdir()
        (leftover / "meta.json").write_text("{")
    (directory / ".new-head.json").write_text("{")
    async with running(tmp_path, model_dir) as world:
        assert len(await world.checkpoints(model)) == 1
        assert not any(leftover.exists() for leftover in [*leftovers, directory / ".new-head.json"])


@pytest.mark.parametrize("where", ["weights", "head"])
async def test_a_full_disk_leaves_head_and_gradient_as_they_were(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        first = await world.learn(model)
        await world.train(model, inputs=PAIR)
        with monkeypatch.context() as patch:
            patch.setattr(tree_module, "save_state" if where == "weights" else "write_file", full)
            refused = await world.step(model)
        assert refused.status_code == 507
        assert "No space left" in refused.json()["detail"]
        (node,) = await world.checkpoints(model)
        assert (node["id"], node["is_active"]) == (first["checkpoint_id"], True)
        assert len(Tree(tmp_path / "models" / model).nodes) == 1
        assert (await world.chat("fork"))["system_fingerprint"] == first["checkpoint_id"]
        assert (await world.step(model)).json()["step"] == 2


@pytest.mark.parametrize("times", [1, 9])
@pytest.mark.parametrize("where", ["checkpoints", ""])
async def test_a_directory_that_cannot_be_synced_leaves_head_and_gradient_as_they_were(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, where: str, times: int
) -> None:
    sync = atomic._sync
    failed: list[Path] = []

    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        directory = tmp_path / "models" / model

        def fails(path: Path) -> None:
            if path == directory / where and len(failed) < times:
                failed.append(path)
                raise OSError(errno.EIO, "Input/output error")
            sync(path)

        first = await world.learn(model)
        await world.train(model, inputs=PAIR)
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "_sync", fails)
            refused = await world.step(model)
        assert refused.status_code == 507
        assert failed
        (node,) = await world.checkpoints(model)
        assert (node["id"], node["is_active"]) == (first["checkpoint_id"], True)
        head = Tree(directory).head
        assert head is not None
        assert head.checkpoint.id == first["checkpoint_id"]
        assert (await world.step(model)).json()["step"] == 2


@pytest.mark.parametrize("left", ["meta.json", "weights.safetensors"])
async def test_a_refused_checkpoint_whose_deletion_was_cut_is_gone_at_the_next_start(
    tmp_path: Path, model_dir: Path, left: str
) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        first = await world.learn(model)
        await world.learn(model)
    directory = tmp_path / "models" / model
    (second,) = {path.name for path in (directory / "checkpoints").iterdir()} - {first["checkpoint_id"]}
    before = Head(checkpoint_id=first["checkpoint_id"], serial=1)
    (directory / "head.json").write_text(before.model_dump_json())
    for path in (directory / "checkpoints" / second).iterdir():
        if path.name != left:
            path.unlink()

    async with running(tmp_path, model_dir) as world:
        assert [node["is_active"] for node in await world.checkpoints(model)] == [True]
        assert (await world.learn(model))["step"] == 2
