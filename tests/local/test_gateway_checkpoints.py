"""Sampling from one checkpoint, whatever the head is by now."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from tests.local.local_world import World


async def test_a_pinned_checkpoint_is_what_it_was_when_it_was_the_head(world: World) -> None:
    model = await world.fork("fork")
    ids, replies = [f"initial:{model}"], [await world.chat("fork", temperature=0, max_tokens=20)]
    for _ in range(6):
        ids.append((await world.learn(model, learning_rate=0.05))["checkpoint_id"])
        replies.append(await world.chat("fork", temperature=0, max_tokens=20))
    assert [reply["system_fingerprint"] for reply in replies] == ids

    again = await asyncio.gather(
        *[world.chat("fork", temperature=0, max_tokens=20, checkpoint=one) for one in [*ids, *reversed(ids)]]
    )
    for reply, before in zip(again, [*replies, *reversed(replies)], strict=True):
        assert reply["system_fingerprint"] == before["system_fingerprint"]
        assert reply["choices"][0]["token_ids"] == before["choices"][0]["token_ids"]
    logprobs = {str(reply["choices"][0]["logprobs"]) for reply in replies}
    assert len(logprobs) == len(replies)


async def test_a_checkpoint_that_is_not_there_is_refused_by_name(world: World, tmp_path: Path) -> None:
    model, _ = await world.fork("fork"), await world.fork("other")
    first = (await world.learn(model))["checkpoint_id"]
    await world.learn(model)
    assert (await world.chat("fork", checkpoint=first))["system_fingerprint"] == first
    for name, checkpoint in (("fork", "nothing"), ("other", first), (world.base, first)):
        reply = await world.ask(name, checkpoint=checkpoint)
        assert reply.status_code == 404
        assert repr(checkpoint) in reply.json()["error"]["message"]
        assert reply.headers["x-should-retry"] == "false"
    second = (await world.learn(model))["checkpoint_id"]
    await world.learn(model)
    shutil.rmtree(tmp_path / "state" / "models" / model / "checkpoints" / second)
    gone = await world.ask("fork", checkpoint=second)
    assert gone.status_code == 404
    assert second in gone.json()["error"]["message"]
    assert (await world.ask("fork")).status_code == 200
    assert (
        await world.ask(world.base, checkpoint=(await world.chat(world.base))["system_fingerprint"])
    ).is_success
