"""The paced gateway against real HTTP: refusals, queues, silence and its end."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from structlog.testing import capture_logs

from hud_orchestrator.errors import RequestRejected, ServiceBusy, ServiceUnreachable
from hud_orchestrator.pacing import PacedGateway
from tests.resilience.gateway import FakeGateway, Trouble, free_port, paced, question


async def ask(gateway: PacedGateway, count: int) -> None:
    """So many questions at once, all of which must be answered."""
    async with anyio.create_task_group() as crowd:
        for index in range(count):
            crowd.start_soon(lambda n=index: gateway.chat(question(f"{n}"), trace_id="t"))


async def test_a_gateway_with_little_room_answers_everybody_and_is_hardly_asked_in_vain() -> None:
    server = FakeGateway(service_s=0.01, room=8)
    async with server.listening(), paced(server.url, most=64) as gateway:
        with anyio.fail_after(30):
            await ask(gateway, 300)

    assert server.answered == 300
    assert len(server.refused) < 150
    assert gateway.width < 32


async def test_a_healthy_gateway_is_given_as_many_as_the_run_has() -> None:
    server = FakeGateway(service_s=0.4)
    async with server.listening(), paced(server.url, most=60) as gateway:
        with anyio.fail_after(30):
            # How soon depends on the machine, so ask until it is so; never being so ends by the clock.
            while server.most < 60:
                await ask(gateway, 150)

    assert server.most == 60
    assert server.answered % 150 == 0


async def test_while_a_gateway_asks_for_quiet_nobody_asks_it_anything() -> None:
    server = FakeGateway(service_s=0.01)
    async with server.listening(), paced(server.url, most=32) as gateway:
        server.trouble = Trouble(503, "0.5")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as crowd:
                crowd.start_soon(ask, gateway, 300)
                await server.noticed.wait()
                began = anyio.current_time()
                # What was under way is refused; then there is silence up to the time that was named.
                await anyio.sleep(0.4)
                at_once = len(server.refused)
                assert at_once <= 32
                assert max(server.refused) < began + 0.3
                server.trouble = None

    assert server.answered == 300
    assert len(server.refused) == at_once


async def trouble_of(gateway: PacedGateway) -> str:
    """What it waits for, as soon as it has some."""
    while True:
        if gateway.trouble is not None:
            return gateway.trouble
        await anyio.sleep(0.05)


async def test_a_gateway_that_went_away_is_tried_by_one_at_a_time_until_it_is_back() -> None:
    port = free_port()
    server, done = FakeGateway(service_s=0.01), anyio.Event()
    async with paced(f"http://127.0.0.1:{port}", most=32) as gateway:

        async def ask_all() -> None:
            await ask(gateway, 200)
            done.set()

        with anyio.fail_after(60), capture_logs() as logs:
            async with anyio.create_task_group() as crowd:
                crowd.start_soon(ask_all)
                assert "cannot connect" in await trouble_of(gateway)
                async with server.listening(port):
                    await done.wait()

    assert server.answered == 200
    told = [line["event"] for line in logs if line["event"].startswith("gateway.")]
    assert told == ["gateway.paused", "gateway.resumed"]


async def test_first_come_is_first_served() -> None:
    server = FakeGateway(service_s=0.005)
    async with server.listening(), paced(server.url, most=1) as gateway:
        with anyio.fail_after(10):
            await ask(gateway, 20)

    assert server.asked == [str(index) for index in range(20)]


async def test_patience_with_a_gateway_that_is_away_ends_and_says_what_it_was_waiting_for() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    failures: list[Exception] = []
    async with paced(url, most=8, patience_s=0.6) as gateway:

        async def one() -> None:
            with pytest.raises(ServiceUnreachable, match="cannot connect") as caught:
                await gateway.chat(question(), trace_id="t")
            failures.append(caught.value)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as crowd:
                for _ in range(20):
                    crowd.start_soon(one)

    assert len(failures) == 20
    assert any("waited 0.6 s" in str(failure) for failure in failures)


async def test_a_request_that_is_refused_for_itself_changes_nothing_for_the_others() -> None:
    server = FakeGateway(trouble=Trouble(422))
    async with server.listening(), paced(server.url, most=8) as gateway:
        for _ in range(5):
            with pytest.raises(RequestRejected):
                await gateway.chat(question(), trace_id="t")
        assert gateway.trouble is None
        assert gateway.width == 8
        server.trouble = None
        await gateway.chat(question(), trace_id="t")


async def test_whoever_stops_waiting_gives_its_place_to_the_next() -> None:
    server = FakeGateway(service_s=0.02)
    async with server.listening(), paced(server.url, most=1) as gateway:
        with anyio.fail_after(10):
            for _ in range(5):
                with anyio.move_on_after(0.005):
                    await ask(gateway, 10)
            await ask(gateway, 3)


async def test_one_that_always_fails_gives_up_by_itself_while_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hud_orchestrator.clients import retry

    quick = retry.Retry(attempts=4, first_wait_s=0.01, longest_wait_s=0.05)
    monkeypatch.setattr("hud_orchestrator.pacing.SAMPLING", quick)
    server = FakeGateway(trouble=Trouble(500))
    async with server.listening(), paced(server.url, most=4) as gateway:
        with pytest.raises(ServiceBusy, match="500"):
            await gateway.chat(question(), trace_id="t")

    assert len(server.refused) == 4
    assert all(later > earlier for earlier, later in pairwise(server.refused))
