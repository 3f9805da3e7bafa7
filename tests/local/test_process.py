from __future__ import annotations

import fcntl
import http.client
import json
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from hud_orchestrator import embedded
from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.embedded import embedded_service
from hud_orchestrator.errors import StateInUse, StateUnwritable
from hud_orchestrator.local.serve import serve
from tests.local.local_world import KEY, PAIR, process, settings


def call(http_: httpx.Client, method: str, path: str, **body: Any) -> Any:
    reply = http_.request(method, path, json=body or None)
    assert reply.status_code == 200, reply.text
    return reply.json()


def forked(http_: httpx.Client, base: Path) -> str:
    source = http_.get("/v2/models/resolve", params={"model": str(base)}).json()["id"]
    return str(call(http_, "POST", "/v2/models/fork", source_model_id=source, name="fork")["id"])


def step(http_: httpx.Client, model: str) -> dict[str, Any]:
    call(http_, "POST", f"/v1/models/{model}/train/forward-backward", inputs=PAIR)
    stepped: dict[str, Any] = call(http_, "POST", f"/v1/models/{model}/train/optim-step", learning_rate=0.01)
    return stepped


def test_a_killed_service_comes_back_on_the_head_and_ends_with_its_parent(
    tmp_path: Path, model_dir: Path
) -> None:
    with (
        process(tmp_path, model_dir) as (child, line),
        httpx.Client(base_url=line["url"], headers=KEY, timeout=60) as http_,
    ):
        model = forked(http_, model_dir)
        first = step(http_, model)
        with process(tmp_path, model_dir) as (second, refusal):
            assert "used by another service" in refusal["error"]
            assert refusal["exit_code"] == 75
            assert second.wait(10) == 1
        abandon_a_long_completion(line["url"])
        eventually_idle(http_)
        child.kill()
        child.wait()
    with process(tmp_path, model_dir) as (child, line):
        with httpx.Client(base_url=line["url"], headers=KEY, timeout=60) as http_:
            (node,) = call(http_, "GET", f"/v2/models/{model}/checkpoints")
            assert (node["id"], node["is_active"]) == (first["checkpoint_id"], True)
            assert step(http_, model)["step"] == 2
        assert child.stdin
        child.stdin.close()
        assert child.wait(20) == 0


def abandon_a_long_completion(url: str) -> None:
    """Ask for a lot on a raw connection, and close it when the request is being worked on."""
    message = {"role": "user", "content": "hello"}
    body = json.dumps({"model": "fork", "messages": [message], "n": 128, "max_tokens": 60})
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/chat/completions", body, KEY)
    assert isinstance(connection.sock, socket.socket)
    connection.close()


def eventually_idle(http_: httpx.Client) -> None:
    end = time.monotonic() + 10
    while call(http_, "GET", "/health") != {"status": "ok", "sampling": 0, "waiting": 0}:
        assert time.monotonic() < end, "the abandoned request is still being sampled"


def test_signals_are_left_to_the_parent_who_ends_it_by_closing_its_input(
    tmp_path: Path, model_dir: Path
) -> None:
    with process(tmp_path, model_dir) as (child, line):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            child.send_signal(number)
            assert httpx.get(f"{line['url']}/health", headers=KEY, timeout=60).status_code == 200
        assert child.stdin
        child.stdin.close()
        assert child.wait(20) == 0


def test_settings_that_are_wrong_end_it_with_one_line(tmp_path: Path, model_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with process(tmp_path, model_dir, port=taken.getsockname()[1]) as (child, line):
            assert "in use" in line["error"]
            assert child.wait(10) == 1


async def test_who_needs_it_is_told_that_its_state_is_in_use_or_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STATE_WAIT_S", 0.0)
    wanted = {"state_dir": str(tmp_path), "local": LocalSection().model_dump(mode="json")}

    with (tmp_path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StateInUse, match="is used by another service; end that one"):
            async with embedded_service(wanted, log_file=tmp_path / "service.log"):
                raise AssertionError("it began")
    (tmp_path / "directory").mkdir()
    with pytest.raises(StateUnwritable, match="directory: cannot be written: Is a directory"):
        async with embedded_service(wanted, log_file=tmp_path / "directory"):
            raise AssertionError("it began")


async def test_a_service_that_may_wait_begins_when_the_one_before_has_left(
    tmp_path: Path, model_dir: Path
) -> None:
    ready = anyio.Event()
    with anyio.fail_after(60), (tmp_path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            waits = settings(tmp_path, model_dir, state_wait_s=60)
            group.start_soon(partial(serve, waits, ready=lambda _: ready.set()))
            await anyio.wait_all_tasks_blocked()
            assert not ready.is_set()
            lock.close()
            await ready.wait()
            group.cancel_scope.cancel()
