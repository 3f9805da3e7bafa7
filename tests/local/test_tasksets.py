"""Tasksets that the service keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.local.local_world import World, running

ADD = {"name": "one", "env": {"name": "sums"}, "task_id": "add", "args": {"a": 1, "b": 2}}


def upload(*tasks: dict[str, Any], name: str = "team/sums 1", **more: Any) -> dict[str, Any]:
    return {"taskset_name": name, "tasks": list(tasks), **more}


async def ids(world: World, body: dict[str, Any]) -> dict[str, Any]:
    reply = await world.http.post("/v2/tasks/upload", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_an_upload_makes_a_taskset_and_later_ones_add_and_replace(world: World) -> None:
    first = await ids(world, upload(ADD))
    again = await ids(world, upload({**ADD, "args": {"a": 5}}, {**ADD, "name": "two", "columns": {"c": 1}}))
    found = await world.http.get("/v2/tasksets/by-name/team%2Fsums%201")
    by_id = await ids(world, upload(ADD, name="anything", taskset_id=first["taskset_id"]))
    export = (await world.http.get(f"/v2/tasksets/{first['taskset_id']}/export")).json()

    assert (first["tasks_created"], first["tasks_updated"]) == (1, 0)
    assert (again["tasks_created"], again["tasks_updated"]) == (1, 1)
    assert found.json() == {"taskset_id": first["taskset_id"], "name": "team/sums 1"}
    assert by_id["taskset_id"] == again["taskset_id"] == first["taskset_id"]
    assert export["name"] == "team/sums 1"
    assert [(task["name"], task["env"], task["scenario"], task["args"]) for task in export["tasks"]] == [
        ("one", "sums", "add", {"a": 1, "b": 2}),
        ("two", "sums", "add", {"a": 1, "b": 2}),
    ]
    assert export["tasks"][1]["columns"] == {"c": 1}


async def test_tasksets_outlive_the_service(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path / "state", model_dir) as world:
        made = await ids(world, upload(ADD))
    (tmp_path / "state/tasksets/.new-half.json").write_text("{")

    async with running(tmp_path / "state", model_dir) as world:
        listed = (await world.http.get("/v2/tasksets")).json()
        record = (await world.http.get(f"/v2/tasksets/{made['taskset_id']}")).json()

    assert [item["name"] for item in listed["items"]] == ["team/sums 1"]
    assert record == listed["items"][0]
    assert record["num_tasks"] == 1
    assert [path.name for path in (tmp_path / "state/tasksets").iterdir()] == [f"{made['taskset_id']}.json"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (upload(ADD, ADD), 422, "a name is there twice"),
        (upload({**ADD, "name": ""}), 422, "tasks.0.name"),
        (upload({**ADD, "env": "sums"}), 422, "tasks.0.env"),
        (upload({**ADD, "verifier": {"env": "sums"}}), 422, "tasks.0.verifier.id"),
        (upload({**ADD, "verifier": {"env": "e", "id": "a", "verifier": {}}}), 422, "verifier.verifier"),
        (upload(name=""), 422, "taskset_name"),
        (upload(ADD, taskset_id="7" * 8 + "-0000-4000-8000-" + "7" * 12), 404, "no taskset with the id"),
    ],
)
async def test_an_upload_that_cannot_be_is_refused_and_changes_nothing(
    world: World, body: dict[str, Any], status: int, text: str
) -> None:
    reply = await world.http.post("/v2/tasks/upload", json=body)

    assert reply.status_code == status
    assert text in reply.json()["detail"]
    assert (await world.http.get("/v2/tasksets")).json() == {"items": [], "total": 0}


async def test_a_number_that_json_has_not_is_refused(world: World) -> None:
    body = json.dumps(upload({**ADD, "args": {"x": float("nan")}}))

    reply = await world.http.post("/v2/tasks/upload", content=body)

    assert reply.status_code == 422
    assert "NaN" in reply.json()["detail"]


@pytest.mark.parametrize("path", ["by-name/nobody", "nobody", "nobody/export", f"{'0' * 32}/export"])
async def test_a_taskset_that_is_not_there_is_404(world: World, path: str) -> None:
    reply = await world.http.get(f"/v2/tasksets/{path}")

    assert reply.status_code == 404
    assert "there is no taskset" in reply.json()["detail"]
