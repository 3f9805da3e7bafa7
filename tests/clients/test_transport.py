"""What each kind of answer proves, against a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from pydantic import SecretStr

from hud_orchestrator.clients.retry import Retry
from hud_orchestrator.clients.training import Training
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import (
    KeyRefused,
    OutcomeUnknown,
    RequestRejected,
    ServiceBusy,
    ServiceUnreachable,
)
from hud_orchestrator.records import CallId
from hud_orchestrator.wire import LossList, OptimStepRequest

QUICK = Retry(attempts=4, first_wait_s=0.001, longest_wait_s=0.01)
STEP = b'{"step":1,"checkpoint_id":"c","sampler_path":"s","state_path":"t","model":"m"}'
CALL = CallId("0" * 32)


def http(status: int, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(head).encode() + body


class Server:
    """Answers the n-th connection with the n-th script, the last one for ever; keeps what it was sent."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self.requests: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self.requests.append(_request(connection))
                    answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                    with suppress(OSError):
                        connection.sendall(answer)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-len")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def answering(*answers: bytes) -> Iterator[Server]:
    server = Server(list(answers))
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(5)


async def optim_step(url: str, *, timeout_s: float = 5) -> object:
    async with Transport(url, SecretStr("key")) as transport:
        training = Training(transport, model_id="m1", timeout_s=timeout_s)
        return await training.optim_step(OptimStepRequest(learning_rate=1e-3), call=CALL)


async def losses(url: str) -> list[str]:
    async with Transport(url, SecretStr("key")) as transport:
        found = await transport.read("GET", "/losses", reply=LossList, retry=QUICK)
        return found.losses


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429])
async def test_a_refused_call_changed_nothing_and_is_sent_once(status: int) -> None:
    refusal = http(status, b'{"detail":"no such thing"}')
    with answering(refusal) as server, pytest.raises(RequestRejected, match="no such thing") as caught:
        await optim_step(server.url)

    assert caught.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        http(500, b"oops"),
        http(502, b""),
        http(503, b'{"detail":"busy"}', "Retry-After: 0"),
        http(408, b""),
        http(307, b"", "Location: /elsewhere"),
        http(200, b"not json"),
        http(200, b'{"step":1}'),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"",
    ],
)
async def test_anything_but_proof_leaves_the_outcome_unknown_and_is_sent_once(answer: bytes) -> None:
    with answering(answer) as server, pytest.raises(OutcomeUnknown, match="sent"):
        await optim_step(server.url)

    assert len(server.requests) == 1


async def test_no_answer_in_time_leaves_the_outcome_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OutcomeUnknown, match="no answer"):
        await optim_step(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)


async def test_without_a_connection_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(ServiceUnreachable, match="nothing was sent"):
        await optim_step(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_its_own_error_for_reads_and_calls(status: int) -> None:
    refusal = http(status, b'{"detail":"bad key"}')
    for ask in (optim_step, losses):
        with answering(refusal) as server, pytest.raises(KeyRefused, match="HUD_API_KEY"):
            await ask(server.url)
        assert len(server.requests) == 1


async def test_a_call_is_on_the_wire_as_the_contract_has_it() -> None:
    with answering(http(200, STEP)) as server:
        await optim_step(server.url)

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/models/m1/train/optim-step HTTP/1.1")
    assert b"authorization: bearer key" in head.lower()
    assert f"idempotency-key: {CALL}".encode() in head.lower()
    assert body == b'{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"eps":1e-8,"weight_decay":0.0}'


@pytest.mark.parametrize("trouble", [http(503, b""), http(429, b"", "Retry-After: 0"), http(500, b""), b""])
async def test_a_read_is_tried_again(trouble: bytes) -> None:
    with answering(trouble, trouble, http(200, b'{"losses":["ppo"]}')) as server:
        assert await losses(server.url) == ["ppo"]

    assert len(server.requests) == 3


async def test_a_read_gives_up_after_its_policy() -> None:
    busy = http(503, b'{"detail":"still loading"}')
    with answering(busy) as server, pytest.raises(ServiceBusy, match="still loading"):
        await losses(server.url)

    assert len(server.requests) == QUICK.attempts


@pytest.mark.parametrize("body", [b'{"detail":"wrong"}', b'{"error":{"message":"wrong"}}', b"wrong"])
async def test_a_refused_read_is_not_tried_again_and_says_the_services_words(body: bytes) -> None:
    with answering(http(422, body)) as server, pytest.raises(RequestRejected, match="wrong"):
        await losses(server.url)

    assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_a_proxy_of_the_environment_does_not_see_loopback(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with answering(http(200, b'{"losses":[]}')) as server:
        assert await losses(server.url.replace("127.0.0.1", host)) == []
    with answering(http(200, STEP)) as server:
        await optim_step(server.url.replace("127.0.0.1", host))


@pytest.mark.parametrize("failures", range(1, 12))
def test_waits_grow_stay_bounded_and_honour_what_the_service_asks(failures: int) -> None:
    retry = Retry(attempts=20, first_wait_s=1, longest_wait_s=30)

    assert 0.75 * min(2 ** (failures - 1), 30) <= retry.wait_s(failures, asked_s=None) <= 30
    assert retry.wait_s(failures, asked_s=7) == 7
    assert retry.wait_s(failures, asked_s=3600) == 30


def test_a_submission_has_no_parameter_for_a_retry() -> None:
    import inspect

    names: Callable[..., object] = Transport.submit
    assert set(inspect.signature(names).parameters) == {
        "self", "path", "body", "reply", "call", "timeout_s", "headers",
    }  # fmt: skip
    assert httpx.AsyncHTTPTransport()._pool._retries == 0
