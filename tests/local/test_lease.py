"""One trainer at a time, by a lease with a fencing token."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hud_orchestrator.local import fence
from hud_orchestrator.wire_writer import WriterLeaseRequest
from tests.local.local_world import KEY, PAIR, World, process, running


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fence, "monotonic", clock)
    return clock


async def take(world: World, model: str, owner: str = "a", claim: int = 1, **more: Any) -> httpx.Response:
    body = {"owner": owner, "claim": claim, "holder": f"run {owner}", "ttl_s": 60} | more
    return await world.http.post(f"/v1/models/{model}/lease", json=body)


async def taken(world: World, model: str, owner: str = "a", claim: int = 1) -> dict[str, str]:
    """The header of a lease that is given."""
    reply = await take(world, model, owner, claim)
    assert reply.status_code == 200, reply.text
    assert reply.json()["held"]
    return {"Fencing-Token": str(reply.json()["token"])}


async def held(world: World, model: str, headers: dict[str, str]) -> httpx.Response:
    return await world.http.put(f"/v1/models/{model}/lease", headers=headers)


async def release(world: World, model: str, headers: dict[str, str]) -> httpx.Response:
    return await world.http.delete(f"/v1/models/{model}/lease", headers=headers)


async def writes(world: World, model: str, headers: dict[str, str]) -> list[int]:
    """What each call that changes a model is answered, on a model that has a checkpoint and a gradient."""
    nodes = await world.checkpoints(model)
    head = next(node["id"] for node in nodes if node["is_active"])
    path = f"/v2/models/{model}/head"
    replies = [
        await world.train(model, inputs=PAIR, headers=headers),
        forward := await world.forward(model, inputs=PAIR, headers=headers),
        await world.backward(
            model,
            forward_id=forward.json().get("forward_id", "none"),
            weights=[one["mask"] for one in forward.json().get("data", [])],
            headers=headers,
        ),
        await world.step(model, headers=headers),
        await world.http.put(path, json={"checkpoint_id": head}, headers=headers),
    ]
    return [reply.status_code for reply in replies]


async def test_while_somebody_has_the_lease_every_write_without_its_token_is_refused_unapplied(
    world: World,
) -> None:
    model = await world.fork("fork")
    await world.learn(model)
    mine = await taken(world, model)
    assert (await world.train(model, inputs=PAIR, headers=mine)).status_code == 200
    before = await world.checkpoints(model)

    assert await writes(world, model, {}) == [409] * 5
    refusal = await world.step(model)
    assert "run a trains the model, on lease for" in refusal.json()["detail"]
    assert refusal.headers["fencing-token"] == mine["Fencing-Token"]
    assert await world.checkpoints(model) == before

    # The gradient that had accumulated is still there, alone, and everything else works as ever.
    stepped = await world.step(model, headers=mine)
    assert stepped.status_code == 200
    assert (await world.checkpoints(model))[-1]["num_datums"] == len(PAIR)
    assert await writes(world, model, mine) == [200] * 5
    assert (await world.chat("fork"))["choices"]
    assert (await world.http.get(f"/v1/models/{model}/train/losses")).status_code == 200


async def test_without_a_lease_everybody_trains_as_ever(world: World) -> None:
    model, other = await world.fork("fork"), await world.fork("other")
    await world.learn(model)
    assert await writes(world, model, {}) == [200] * 5
    mine = await taken(world, other)
    assert await writes(world, model, {}) == [200] * 5
    await release(world, other, mine)
    await world.learn(other)
    state = (await world.http.get(f"/v1/models/{other}/lease")).json()
    # Those without a lease have used up the second token.
    assert state == {
        "held": False, "token": 2, "unleased": 1, "holder": "run a", "expires_in_s": 0,
    }  # fmt: skip


async def test_another_owner_is_refused_until_the_lease_is_given_back(world: World) -> None:
    model = await world.fork("fork")
    await world.learn(model)
    mine = await taken(world, model)

    refused = await take(world, model, "b")
    assert refused.status_code == 409
    assert "run a trains the model" in refused.json()["detail"]
    assert (await release(world, model, mine)).status_code == 200
    theirs = await taken(world, model, "b")

    assert int(theirs["Fencing-Token"]) > int(mine["Fencing-Token"])
    assert await writes(world, model, mine) == [409] * 5
    assert (await held(world, model, mine)).status_code == 409
    # A late release of the one before changes nothing for the one who has it now.
    assert (await release(world, model, mine)).status_code == 200
    assert await writes(world, model, theirs) == [200] * 5


async def test_a_released_token_is_refused_though_nobody_else_has_come(world: World) -> None:
    model = await world.fork("fork")
    await world.learn(model)
    mine = await taken(world, model)
    await release(world, model, mine)

    assert await writes(world, model, mine) == [409] * 5
    assert await writes(world, model, {}) == [200] * 5


async def test_the_same_owner_takes_over_at_once_and_finds_nothing_accumulated(world: World) -> None:
    model = await world.fork("fork")
    await world.train(model, inputs=PAIR)
    first = await taken(world, model, claim=1)
    assert (await world.step(model, headers=first)).status_code == 409
    assert (await world.train(model, inputs=PAIR, headers=first)).status_code == 200

    second = await taken(world, model, claim=2)

    assert (await world.step(model, headers=first)).status_code == 409
    refusal = await world.step(model, headers=second)
    assert (refusal.status_code, "nothing has accumulated" in refusal.text) == (409, True)
    assert "fencing-token" not in refusal.headers


async def test_a_repeated_claim_is_the_same_lease_and_an_older_one_is_too_late(world: World) -> None:
    model = await world.fork("fork")
    first = await taken(world, model, claim=7)
    assert (await world.train(model, inputs=PAIR, headers=first)).status_code == 200
    assert await taken(world, model, claim=7) == first
    assert (await world.step(model, headers=first)).status_code == 200

    second = await taken(world, model, claim=8)
    assert (await take(world, model, claim=7)).status_code == 409
    assert (await world.train(model, inputs=PAIR, headers=second)).status_code == 200
    await release(world, model, second)
    for late in (7, 8):
        assert (await take(world, model, claim=late)).status_code == 409
    assert (await world.learn(model))["step"] == 2


async def test_a_lease_runs_out_and_whoever_comes_next_ends_it_for_good(world: World, clock: Clock) -> None:
    model = await world.fork("fork")
    await world.learn(model)
    mine = await taken(world, model)
    clock.now += 59
    assert (await held(world, model, mine)).status_code == 200
    clock.now += 59
    assert (await world.train(model, inputs=PAIR)).status_code == 409
    assert (await take(world, model, "b")).status_code == 409

    # Nobody came while its time was up: it goes on.
    clock.now += 2
    assert not (await world.http.get(f"/v1/models/{model}/lease")).json()["held"]
    assert await writes(world, model, mine) == [200] * 5
    assert (await held(world, model, mine)).status_code == 200

    clock.now += 61
    assert (await world.train(model, inputs=PAIR)).status_code == 200
    assert await writes(world, model, mine) == [409] * 5
    assert (await held(world, model, mine)).status_code == 409


async def until_it_waits() -> None:
    """Let a request come as far as its turn: a matter of turns of the loop, and not of time."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_a_call_that_waited_while_the_lease_was_taken_over_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.service
    model = await world.fork("fork")
    mine = await taken(world, model)
    trained = await world.service.trained(model)
    begun, go = asyncio.Event(), asyncio.Event()
    compute = trained._compute

    async def slowly(job: Any) -> Any:
        begun.set()
        await go.wait()
        return await compute(job)

    monkeypatch.setattr(trained, "_compute", slowly)
    running_call = asyncio.create_task(world.train(model, inputs=PAIR, headers=mine))
    await begun.wait()
    takeover = asyncio.create_task(take(world, model, claim=2))
    await until_it_waits()
    waiting_call = asyncio.create_task(world.train(model, inputs=PAIR, headers=mine))
    await until_it_waits()
    # Whoever is refused anyway is told at once.
    assert (await take(world, model, "b")).status_code == 409
    go.set()

    assert (await running_call).status_code == 200
    token = (await takeover).json()["token"]
    assert (await waiting_call).status_code == 409
    # What the call in hand had accumulated went with its lease.
    stepped = await world.step(model, headers={"Fencing-Token": str(token)})
    assert "nothing has accumulated" in stepped.json()["detail"]


def test_a_token_is_newer_than_all_before_also_after_a_kill(tmp_path: Path, model_dir: Path) -> None:
    body = {"owner": "a", "claim": 1, "holder": "run a", "ttl_s": 60}
    with service(tmp_path, model_dir) as http:
        base = http.get("/v2/models/resolve", params={"model": str(model_dir)}).json()["id"]
        made = http.post("/v2/models/fork", json={"source_model_id": base, "name": "fork"}).json()["id"]
        path = f"/v1/models/{made}/lease"
        tokens = [http.post(path, json=body | {"claim": claim}).json()["token"] for claim in (1, 2)]
    with service(tmp_path, model_dir) as http:
        # The holder may still be there, and has its time anew.
        assert http.post(path, json=body | {"owner": "b"}).status_code == 409
        headers = {"Fencing-Token": str(tokens[0])}
        old = http.post(f"/v1/models/{made}/train/forward-backward", json={"inputs": PAIR}, headers=headers)
        assert old.status_code == 409
        tokens.append(http.post(path, json=body | {"claim": 3}).json()["token"])
    with service(tmp_path, model_dir, leases_outlive=False) as http:
        # Where the holder had brought the service along, it ended with it.
        assert not http.get(path).json()["held"]
        tokens.append(http.post(path, json=body | {"owner": "b"}).json()["token"])

    assert tokens == sorted(set(tokens))


@contextmanager
def service(state: Path, model: Path, **more: Any) -> Iterator[httpx.Client]:
    """A service that is killed when the block ends."""
    with (
        process(state, model, **more) as (_, line),
        httpx.Client(base_url=line["url"], headers=KEY, timeout=60) as http,
    ):
        yield http


async def test_a_lease_that_cannot_be_written_is_not_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await world.fork("fork")
    mine = await taken(world, model)

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fence, "write_file", full)
        refused = await take(world, model, claim=2)
        assert (refused.status_code, "No space left" in refused.text) == (507, True)

    assert (await world.train(model, inputs=PAIR, headers=mine)).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "-1", "1.0", "9" * 30])
async def test_what_is_no_token_is_refused(world: World, token: str) -> None:
    model = await world.fork("fork")

    reply = await world.train(model, inputs=PAIR, headers={"Fencing-Token": token})

    assert reply.status_code == 422
    assert "Fencing-Token" in reply.json()["detail"]


async def test_a_base_model_has_no_lease(world: World, tmp_path: Path, model_dir: Path) -> None:
    base = (await world.http.get("/v2/models/resolve", params={"model": world.base})).json()["id"]
    assert (await take(world, base)).status_code == 422
    assert (await world.http.get("/v1/models/nobody/lease")).status_code == 404
    async with running(tmp_path / "other", model_dir) as other:
        fork = await other.fork("fork")
        assert (await other.http.get(f"/v1/models/{fork}/lease")).json() == {
            "held": False, "token": 0, "unleased": 0, "holder": None, "expires_in_s": 0,
        }  # fmt: skip


@pytest.mark.parametrize("how", ["released", "ran out"])
async def test_who_trains_without_a_lease_finds_nothing_accumulated_and_uses_up_a_token(
    world: World, clock: Clock, how: str
) -> None:
    model = await world.fork("fork")
    token = await taken(world, model)
    assert (await world.train(model, inputs=PAIR, headers=token)).status_code == 200
    if how == "released":
        await release(world, model, token)
    else:
        clock.now += 61

    nothing = await world.step(model)
    for _ in range(2):
        await world.train(model, inputs=PAIR)
    step = await world.step(model)
    again = await taken(world, model, claim=2)

    assert (nothing.status_code, step.status_code) == (409, 200)
    (node,) = await world.checkpoints(model)
    assert node["num_datums"] == 2 * len(PAIR)
    assert int(again["Fencing-Token"]) == int(token["Fencing-Token"]) + 2


async def test_who_is_gone_since_the_service_was_started_keeps_nobody_out(
    tmp_path: Path, clock: Clock
) -> None:
    path, wanted = tmp_path / "lease.json", WriterLeaseRequest(owner="a", claim=1, holder="run a", ttl_s=60)
    await fence.Fence(path, outlives=True, since=clock.now).take(wanted)
    started, clock.now = clock.now + 100, clock.now + 4000

    # The file is read when somebody asks for it first.
    assert not fence.Fence(path, outlives=True, since=started).state().held
    assert fence.Fence(path, outlives=True, since=clock.now).state().held
