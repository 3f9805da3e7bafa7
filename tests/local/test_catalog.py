from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.local.local_world import PAIR, World


async def test_the_catalog_lists_bases_and_forks_in_pages(world: World) -> None:
    fork = await world.fork("team/fork")
    page = (await world.http.get("/v2/models")).json()
    assert page["total"] == len(page["items"]) == 4
    assert [item["is_trainable"] for item in page["items"]] == [False, False, False, True]
    assert {item["sdk_agent_type"] for item in page["items"]} == {"openai_compatible"}
    assert all(item["provider"] == {"name": "local"} for item in page["items"])
    second = (await world.http.get("/v2/models", params={"limit": 2, "offset": 3})).json()
    assert [item["id"] for item in second["items"]] == [fork]
    assert second["total"] == 4
    for wrong in ("x", "-1", "1.5", "9" * 5000):
        assert (await world.http.get("/v2/models", params={"limit": wrong})).status_code == 422
    openai = (await world.http.get("/v1/models")).json()
    assert [one["id"] for one in openai["data"]][-1] == "team/fork"


async def test_a_slug_resolves_and_an_unknown_one_does_not(world: World) -> None:
    fork = await world.fork("team/fork")
    found = await world.http.get("/v2/models/resolve", params={"model": "team/fork"})
    assert found.json()["id"] == fork == str(uuid.UUID(fork))
    missing = await world.http.get("/v2/models/resolve", params={"model": "nobody"})
    assert missing.status_code == 404
    assert "nobody" in missing.json()["detail"]


@pytest.mark.parametrize(
    ("name", "status"), [("taken", 409), ("tiny", 409), ("", 422), ("with space", 422), ("x" * 129, 422)]
)
async def test_a_name_that_cannot_be_used_is_refused(world: World, name: str, status: int) -> None:
    fork = await world.fork("taken")
    reply = await world.http.post("/v2/models/fork", json={"source_model_id": fork, "name": name})
    assert reply.status_code == status
    assert len((await world.http.get("/v2/models")).json()["items"]) == 4


async def test_a_fork_of_a_fork_starts_from_its_head(world: World) -> None:
    first = await world.fork("first")
    await world.learn(first, learning_rate=0.1)
    second = await world.fork("second", "first")
    parent, child = [await world.chat(name, temperature=0) for name in ("first", "second")]
    base = await world.chat(world.base, temperature=0)
    assert parent["choices"] == child["choices"] != base["choices"]
    assert child["system_fingerprint"] == f"initial:{second}"
    assert await world.checkpoints(second) == []


async def test_a_fork_begins_at_any_checkpoint_of_a_fork(world: World) -> None:
    first = await world.fork("first")
    nodes = [await world.learn(first, learning_rate=0.1) for _ in range(3)]
    second = await world.fork("second", "first", checkpoint_id=nodes[0]["checkpoint_id"].upper())
    third = await world.fork("third", "second")
    assert await world.checkpoints(second) == []
    await world.set_head(first, nodes[0]["checkpoint_id"])
    replies = [await world.chat(name, temperature=0) for name in ("first", "second", "third")]
    assert replies[0]["choices"] == replies[1]["choices"] == replies[2]["choices"]
    assert (await world.learn(third))["step"] == 1
    base = (await world.http.get("/v2/models/resolve", params={"model": world.base})).json()["id"]
    for source, wanted in ((first, "nowhere"), (first, base), (base, nodes[0]["checkpoint_id"])):
        body = {"source_model_id": source, "name": "fourth", "checkpoint_id": wanted}
        reply = await world.http.post("/v2/models/fork", json=body)
        assert reply.status_code == 404
        assert wanted in reply.json()["detail"]
    assert await world.fork("fourth", "first")


async def test_an_id_may_be_typed_in_any_spelling_of_a_uuid(world: World) -> None:
    fork = await world.fork("team/fork")
    node = await world.learn(fork)
    for typed in (fork.upper(), uuid.UUID(fork).hex, uuid.UUID(fork).hex.upper()):
        (listed,) = await world.checkpoints(typed)
        assert listed["id"] == node["checkpoint_id"]
        assert (await world.train(typed, inputs=PAIR)).status_code == 200
        reply = await world.set_head(typed, uuid.UUID(node["checkpoint_id"]).hex.upper())
        assert reply.json() == {"checkpoint_id": node["checkpoint_id"]}
        found = await world.http.get("/v2/models/resolve", params={"model": typed})
        assert found.json()["id"] == fork
    escaped = await world.http.get("/v2/models/resolve?model=team%2Ffork")
    assert escaped.json()["id"] == fork


async def test_unknown_models_are_404_and_bases_cannot_be_trained(world: World) -> None:
    tiny = (await world.http.get("/v2/models/resolve", params={"model": "tiny"})).json()["id"]
    assert (await world.train("nobody", inputs=PAIR)).status_code == 404
    assert (await world.step("nobody")).status_code == 404
    assert (await world.http.get("/v2/models/nobody/checkpoints")).status_code == 404
    assert (await world.http.get(f"/v2/models/{tiny}/checkpoints")).json() == []
    refused = await world.train(tiny, inputs=PAIR)
    assert refused.status_code == 422
    assert "fork it" in refused.json()["detail"]
    body = {"source_model_id": "nobody", "name": "x"}
    assert (await world.http.post("/v2/models/fork", json=body)).status_code == 404


async def test_the_losses_are_listed(world: World) -> None:
    fork = await world.fork("fork")
    listed = (await world.http.get(f"/v1/models/{fork}/train/losses")).json()["losses"]
    assert set(listed) == {"importance_sampling", "ppo", "cispo", "dro", "cross_entropy"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/v2/models"),
        ("POST", "/chat/completions"),
        ("POST", "/v1/models/x/train/optim-step"),
        ("POST", "/v2/trace/x/exit"),
        ("GET", "/nowhere"),
    ],
)
async def test_everything_needs_the_key(world: World, method: str, path: str) -> None:
    for key in ("", "Bearer wrong", "secret"):
        reply = await world.http.request(method, path, headers={"Authorization": key})
        assert reply.status_code == 401
        assert "API key" in reply.json()["detail"]


async def test_reports_are_answered_at_once(world: World) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v2/trace/job/abc/enter": {"name": "job", "group": 1},
        "/v2/trace/abc/enter": {"job_id": "abc"},
        "/v2/trace/abc/exit": {"status": "completed", "reward": 0.5},
        "/v3/api/trace/abc/telemetry-upload": {"telemetry": []},
    }
    for path, body in bodies.items():
        reply = await world.http.post(path, json=body)
        assert (reply.status_code, reply.json()) == (200, {})
    open_to_all = await world.http.post("/v3/api/sdk-events/cli", json={}, headers={"Authorization": ""})
    assert open_to_all.status_code == 200


async def test_a_route_that_does_not_exist_says_so(world: World) -> None:
    reply = await world.http.get("/nowhere")
    assert reply.status_code == 404
    assert "GET /nowhere" in reply.json()["detail"]


async def test_a_base_that_cannot_be_loaded_is_named(world: World) -> None:
    assert world.service
    world.service.catalog.bases["an-id"] = "/does/not/exist"
    body = {"source_model_id": "an-id", "name": "fork"}
    reply = await world.http.post("/v2/models/fork", json=body)
    assert reply.status_code == 422
    assert "/does/not/exist" in reply.json()["detail"]
    assert (await world.fork("fork")) is not None
