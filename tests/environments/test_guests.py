"""Somebody else's asyncio code: cancelled once, waited for with patience that ends, never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from structlog.testing import capture_logs

from hud_orchestrator.environments import guests
from hud_orchestrator.environments.guests import Guests
from hud_orchestrator.errors import EnvironmentFailed


class Guest:
    """Notes what happens to it; every part of it takes a few turns of the loop, or for ever."""

    def __init__(self, *, enters: bool = True, leaves: bool = True, deaf: bool = False) -> None:
        self.enters = enters
        self.leaves = leaves
        self.deaf = deaf
        self.notes: list[str] = []

    @asynccontextmanager
    async def stay(self) -> AsyncGenerator[str, None]:
        try:
            await self._wait(for_ever=not self.enters)
            self.notes.append("in")
            yield "key"
        finally:
            # Cleanup as the SDK writes it: it expects to be cancelled once, and then left alone.
            try:
                await self._wait(for_ever=not self.leaves)
            except asyncio.CancelledError:
                self.notes.append("cut off in its cleanup")
                if self.deaf:
                    await self._wait(for_ever=True)
                raise
            self.notes.append("tidy")

    async def _wait(self, *, for_ever: bool) -> None:
        if for_ever:
            await asyncio.Event().wait()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_guest_comes_in_and_leaves_with_the_block() -> None:
    guest = Guest()
    with anyio.fail_after(5):
        async with Guests() as house, house.held(guest.stay(), named="guest", leave_s=1) as key:
            assert key == "key"
            assert guest.notes == ["in"]

    assert guest.notes == ["in", "tidy"]


async def test_a_guest_that_is_cut_off_while_it_comes_in_is_cancelled_once_and_tidies_up() -> None:
    guest = Guest(enters=False)
    with anyio.fail_after(5):
        async with Guests() as house:
            with anyio.move_on_after(0.05) as patience:
                async with house.held(guest.stay(), named="guest", leave_s=1):
                    raise AssertionError("it came in")

    assert patience.cancelled_caught
    assert guest.notes == ["tidy"]


async def test_a_cancelled_block_does_not_cut_through_its_guests_cleanup() -> None:
    guest = Guest()
    with anyio.fail_after(5):
        async with Guests() as house:
            with anyio.CancelScope() as scope:
                async with house.held(guest.stay(), named="guest", leave_s=1):
                    scope.cancel()
                    await anyio.sleep_forever()

    assert guest.notes == ["in", "tidy"]


async def test_a_guest_that_does_not_leave_holds_nobody_up_and_may_finish_later() -> None:
    guest = Guest(leaves=False)
    with anyio.fail_after(5), capture_logs() as logs:
        async with Guests() as house:
            async with house.held(guest.stay(), named="slow guest", leave_s=0.05):
                pass
            assert guest.notes == ["in"]
            assert [line["event"] for line in logs] == ["guest.lingering"]
            # What it waited for comes to pass, and the house waits for it.
            guest.leaves = True
            (waiter,) = house._lingering
            waiter.cancel()

    assert guest.notes == ["in", "cut off in its cleanup"]


async def test_a_guest_that_never_leaves_is_given_up_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "LAST_S", 0.1)
    guest = Guest(leaves=False, deaf=True)
    with anyio.fail_after(5), capture_logs() as logs:
        async with Guests() as house, house.held(guest.stay(), named="deaf guest", leave_s=0.05):
            pass
        (left,) = house._lingering
        left.cancel()
        await asyncio.wait({left})

    assert [line["event"] for line in logs] == ["guest.lingering", "guest.abandoned"]
    assert guest.notes == ["in", "cut off in its cleanup"]


async def test_what_a_guest_raises_is_an_environment_that_failed_with_its_reason() -> None:
    @asynccontextmanager
    async def rude() -> AsyncGenerator[None, None]:
        raise ValueError("needs\na token")
        yield

    async with Guests() as house:
        with pytest.raises(EnvironmentFailed, match=r"^sandbox: ValueError: needs a token$"):
            async with house.held(rude(), named="sandbox", leave_s=1):
                raise AssertionError("it came in")


async def test_a_guest_that_exits_the_interpreter_does_not() -> None:
    @asynccontextmanager
    async def final() -> AsyncGenerator[None, None]:
        raise SystemExit(0)
        yield

    async with Guests() as house:
        with pytest.raises(EnvironmentFailed, match="SystemExit: 0"):
            async with house.held(final(), named="sandbox", leave_s=1):
                raise AssertionError("it came in")


async def test_a_guest_that_leaves_badly_spoils_nothing() -> None:
    @asynccontextmanager
    async def sore() -> AsyncGenerator[None, None]:
        yield
        raise RuntimeError("it was not nice here")

    with capture_logs() as logs:
        async with Guests() as house, house.held(sore(), named="sandbox", leave_s=1):
            pass

    assert [(line["event"], line["reason"]) for line in logs] == [
        ("guest.left_badly", "RuntimeError: it was not nice here")
    ]
