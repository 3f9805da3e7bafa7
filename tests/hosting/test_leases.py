"""Environments on lease: a process each, reached through a WebSocket, by our own client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio.streams.buffered import BufferedByteStream
from pydantic import SecretStr

from hud_orchestrator.clients.leases import Leases
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.environments.leased import Leased
from hud_orchestrator.environments.link import Pace
from hud_orchestrator.errors import EnvironmentFailed, EnvironmentLost
from hud_orchestrator.records import Task
from tests.e2e.conftest import processes_of
from tests.hosting.conftest import Platform

SERVER = "hud_orchestrator.environments.server"


@pytest.fixture
async def leases(hosting: dict[str, str]) -> AsyncIterator[Leases]:
    async with Transport(hosting["HUD_RUNTIME_URL"], SecretStr(hosting["HUD_API_KEY"])) as transport:
        yield Leases(transport)


@pytest.fixture
def placement(leases: Leases) -> Leased:
    return Leased(leases, pace=Pace(ready_s=60, teardown_s=1))


def task(name: str = "add", *, env: str = "sums", **more: object) -> Task:
    args = {"a": 2, "b": 3} if name == "add" else {}
    return Task(env=env, id=name, args=args, slug=name, **more)  # type: ignore[arg-type]


def servers(hosting: dict[str, str]) -> list[str]:
    """Environment processes of the service that are alive."""
    home = str(Path(hosting["HOSTING_DIRECTORY"]))
    return [words for words in processes_of(Path(home)) if SERVER in words]


async def test_an_episode_in_a_leased_environment_is_graded_and_leaves_no_process(
    placement: Leased, hosting: dict[str, str]
) -> None:
    with anyio.fail_after(120):
        async with placement.episode(task(), trace_id="a" * 32) as episode:
            assert episode.prompt == [{"role": "user", "content": "2+3="}]
            assert len(servers(hosting)) == 1
            assert (await episode.grade("5"))["info"] == {"sum": 5}
        while servers(hosting):  # noqa: ASYNC110  (another process's children)
            await anyio.sleep(0.05)


async def test_a_lease_that_comes_when_its_episode_is_over_already_is_given_back(
    placement: Leased, hosting: dict[str, str]
) -> None:
    async def begin() -> None:
        async with placement.episode(task()):
            await anyio.sleep_forever()

    with anyio.fail_after(120):
        async with anyio.create_task_group() as group:
            group.start_soon(begin)
            while not servers(hosting):  # noqa: ASYNC110  (another process's children)
                await anyio.sleep(0.001)
            # It has been asked for, and takes a while to start.
            group.cancel_scope.cancel()
        while servers(hosting):  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_frames_of_a_megabyte_go_through(placement: Leased) -> None:
    with anyio.fail_after(120):
        async with placement.episode(task("judge", env="judge")) as episode:
            grade = await episode.grade("x" * 2**20)

    assert len(grade["content"]) == 2**20


async def test_an_environment_that_dies_is_lost(placement: Leased) -> None:
    with anyio.fail_after(120), pytest.raises(EnvironmentLost):
        async with placement.episode(task("gone")) as episode:
            await episode.grade("2")


async def connect_until_refused(leases: Leases, lease: str) -> None:
    """A dying process may listen longer than it talks; what it still accepts ends at once."""
    while True:
        async with await leases.connect(lease) as opened:
            with pytest.raises(anyio.EndOfStream):
                await opened.receive()


async def test_a_tunnel_to_an_environment_that_has_died_does_not_open_and_says_so(leases: Leases) -> None:
    with anyio.fail_after(120):
        lease = await leases.lease("sums", trace_id=None)
        lines = BufferedByteStream(await leases.connect(lease))
        for number, call in enumerate(("tasks.start", "tasks.grade")):
            frame = {"jsonrpc": "2.0", "id": number, "method": call, "params": {"id": "gone"}}
            await lines.send(json.dumps(frame).encode() + b"\n")
            if call == "tasks.start":
                await lines.receive_until(b"\n", 2**16)
        with pytest.raises(anyio.EndOfStream):
            await lines.receive()
        await lines.aclose()

        with pytest.raises(OSError, match="does not open: 503: the environment cannot be reached: "):
            await connect_until_refused(leases, lease)
        await leases.give_back(lease, within_s=10)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (task(env="nowhere"), "environment 'nowhere' cannot be leased: .*there are: judge, sums"),
        (task(runtime_config={"resources": {"gpu": {}}}), "asks for gpu in its runtime_config"),
        (task(runtime_config={"limits": {"run_timeout_s": 9}}), "asks for run_timeout_s"),
    ],
)
async def test_what_a_lease_cannot_give_is_said(placement: Leased, wanted: Task, said: str) -> None:
    with pytest.raises(EnvironmentFailed, match=said):
        async with placement.episode(wanted):
            raise AssertionError("it began")


async def test_a_lease_that_was_given_back_leads_nowhere(leases: Leases, platform: Platform) -> None:
    with anyio.fail_after(120):
        lease = await leases.lease("sums", trace_id=None)
        await leases.give_back(lease, within_s=10)

        with pytest.raises(OSError, match=r"the tunnel does not open: 404: there is no lease '\w+'; it was"):
            await leases.connect(lease)
    reply = await platform.http.delete(f"/runtime/sessions/{lease}")
    assert (reply.status_code, json.loads(reply.content)["detail"][:17]) == (404, "there is no lease")


async def test_a_tunnel_needs_the_key(hosting: dict[str, str]) -> None:
    async with Transport(hosting["HUD_RUNTIME_URL"], SecretStr("another")) as transport:
        with pytest.raises(OSError, match="401: the API key is missing or wrong"):
            await transport.tunnel("/runtime/tunnels/any")
