"""What a run makes of the answers to its request for a lease, against a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.clients.writer_lease import FencingToken, WriterLeases
from hud_orchestrator.errors import FencedOff, RequestRejected
from hud_orchestrator.single_writer import SingleWriter
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.history import History
from tests.clients.test_transport import Server, answering, http

HELD = http(409, b'{"detail":"run a trains the model"}', "Fencing-Token: 7")


def given(token: int) -> bytes:
    body = {"held": True, "token": token, "holder": "us", "expires_in_s": 60}
    return http(200, json.dumps(body).encode(), "Content-Type: application/json")


@asynccontextmanager
async def writer(server: Server, directory: Path) -> AsyncIterator[tuple[SingleWriter, FencingToken]]:
    database, token = Database(directory / "store.db"), FencingToken()
    async with Transport(server.url, SecretStr("key")) as transport:
        with anyio.fail_after(60):
            yield SingleWriter(WriterLeases(transport), History(database), token, holder="us"), token
    database.close()


def claims(server: Server) -> list[int]:
    return [json.loads(one.partition(b"\r\n\r\n")[2])["claim"] for one in server.requests]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
async def test_a_service_without_leases_is_asked_once_and_trained_without(
    tmp_path: Path, status: int
) -> None:
    with answering(http(status, b"{}")) as server:
        async with writer(server, tmp_path) as (single, token):
            assert not await single.take("m")
            assert not await single.take("m")
            await single.release()

    assert (token.headers, len(server.requests)) == ({}, 1)


@pytest.mark.parametrize("answer", [HELD, http(422, b'{"detail":"no such field"}')])
async def test_a_lease_that_is_not_given_is_no_lease(tmp_path: Path, answer: bytes) -> None:
    with answering(answer) as server:
        async with writer(server, tmp_path) as (single, token):
            with pytest.raises(RequestRejected) as caught:
                await single.take("m")

    assert isinstance(caught.value, FencedOff) == (answer is HELD)
    assert token.headers == {}


async def test_a_request_whose_answer_was_lost_is_repeated_as_the_same_claim(tmp_path: Path) -> None:
    with answering(b"", given(3), given(4)) as server:
        async with writer(server, tmp_path) as (single, token):
            assert await single.take("m")
            assert token.headers == {"Fencing-Token": "3"}
            assert await single.take("m")

    first, again, second = claims(server)
    assert first == again < second
    assert token.headers == {"Fencing-Token": "4"}


async def test_claims_of_the_next_life_are_newer(tmp_path: Path) -> None:
    with answering(given(1)) as server:
        for _ in range(3):
            async with writer(server, tmp_path) as (single, _token):
                await single.take("m")

    assert claims(server) == sorted(set(claims(server)))


async def test_a_token_that_does_not_follow_on_ours_is_of_somebody_who_came_in_between(
    tmp_path: Path,
) -> None:
    with answering(given(3), given(5)) as server:
        async with writer(server, tmp_path) as (single, _token):
            await single.take("m")
            with pytest.raises(FencedOff, match="between tokens 3 and 5"):
                await single.take("m")
