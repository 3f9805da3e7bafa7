from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from hud_orchestrator.local.openapi import Endpoint
from hud_orchestrator.local.tool_json import loads
from tests.local.local_world import KEY, PAIR, World, as_trajectory, running

STRICT = ["ForwardBackwardResult", "OptimStepResult", "ForwardResult", "DatumTensors"]
"""Replies that the SDK refuses with one key more."""

WRONG = {"Authorization": "Bearer wrong"}
WRITER = {"owner": "a", "claim": 1, "holder": "run a", "ttl_s": 60}
USER = {"role": "user", "content": "hello"}


SUMS = """
from hud_orchestrator import Environment

env = Environment("sums")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0
"""


class Documented:
    """Looks that every reply is one that the document allows, and remembers what was asked."""

    def __init__(self, http: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self.succeeded: set[tuple[str, str]] = set()
        self.document = document
        self._http = http

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Any:
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
        reply = await self._http.request(method, path, content=content, headers=headers)
        assert reply.status_code == status, reply.text
        known = self._template(path.split("?")[0])
        schema = self._schema(known, method, reply)
        jsonschema_rs.validate(schema | {"components": self.document["components"]}, reply.json())
        if status == 200:
            self.succeeded.add((method, known))
        return reply.json()

    def _template(self, path: str) -> str:
        exact = [one for one in self.document["paths"] if one == path]
        like = [one for one in self.document["paths"] if re.fullmatch(one.replace("{id}", "[^/]+"), path)]
        return str((exact + like)[0])

    def _schema(self, path: str, method: str, reply: httpx.Response) -> dict[str, Any]:
        answers = self.document["paths"][path][method.lower()]["responses"]
        content = answers[str(reply.status_code)]["content"]
        found: dict[str, Any] = content[reply.headers["content-type"]]["schema"]
        return found


@pytest.fixture
async def ask(world: World) -> Documented:
    return Documented(world.http, (await world.http.get("/openapi.json")).json())


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in document["paths"].items() for method in item}


async def test_the_document_has_every_route_and_no_other(world: World, ask: Documented) -> None:
    assert world.service
    routes: list[Any] = [one for one in world.app.routes if isinstance(one, Endpoint)]
    served = {(method, route.path) for route in routes for method in route.methods - {"HEAD"}}

    assert operations(ask.document) == served


async def test_the_document_is_whole(ask: Documented) -> None:
    components = ask.document["components"]["schemas"]
    named = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(ask.document))
    ids = [one["operationId"] for item in ask.document["paths"].values() for one in item.values()]

    assert ask.document["openapi"] == "3.1.0"
    assert set(named) <= components.keys()
    assert len(set(ids)) == len(ids)
    for schema in components.values():
        jsonschema_rs.meta.validate(schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


async def test_replies_that_clients_read_strictly_are_closed(ask: Documented) -> None:
    schemas = ask.document["components"]["schemas"]

    for name in STRICT:
        assert schemas[name]["additionalProperties"] is False
        assert sorted(schemas[name]["required"]) == sorted(schemas[name]["properties"])


async def test_requests_of_the_contract_are_closed(ask: Documented) -> None:
    schemas = ask.document["components"]["schemas"]
    requests = ["ForwardBackwardRequest", "ForwardRequest", "BackwardRequest", "OptimStepRequest"]

    for name in [*requests, "TrajectoryPayload", "TrajectorySample", "ForkRequest", "SetHeadRequest"]:
        assert schemas[name]["additionalProperties"] is False


async def test_everything_needs_the_key_but_the_route_that_never_gets_one(ask: Documented) -> None:
    paths = ask.document["paths"]
    open_ones = [
        (path, method) for path in paths for method, one in paths[path].items() if not one["security"]
    ]

    assert open_ones == [("/v3/api/sdk-events/cli", "post")]


async def test_every_operation_replies_as_the_document_says(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "sums.py").write_text(SUMS)
    async with running(tmp_path / "state", model_dir, environments=[str(tmp_path / "sums.py")]) as world:
        await _every_operation(world, Documented(world.http, (await world.http.get("/openapi.json")).json()))


async def _every_operation(world: World, ask: Documented) -> None:
    base = (await ask("GET", f"/v2/models/resolve?model={world.base}"))["id"]
    fork = await ask("POST", "/v2/models/fork", {"source_model_id": base, "name": "fork"})
    train, job, trace = f"/v1/models/{fork['id']}/train", "1" * 32, "2" * 32
    await ask("POST", f"/v2/trace/job/{job}/enter", {"name": "job", "group": 1})
    await ask("POST", f"/v2/trace/{trace}/enter", {"job_id": job})
    chat = {"model": "fork", "messages": [USER], "max_tokens": 4, "return_token_ids": True}
    said = await ask(
        "POST",
        "/chat/completions",
        {**chat, "logprobs": True, "top_logprobs": 2},
        headers={"Trace-Id": trace},
    )
    await ask("POST", "/v1/chat/completions", {**chat, "n": 2})
    graded = {"status": "completed", "reward": 1.0, "evaluation_result": {"score": 1.0}}
    await ask("POST", f"/v2/trace/{trace}/exit", graded)
    await ask("POST", f"/v3/api/trace/{trace}/telemetry-upload", {"telemetry": []})
    await ask("POST", "/v3/api/sdk-events/cli", {})

    await ask(
        "POST", f"{train}/forward-backward", {"inputs": [trace, as_trajectory(said["choices"][0], 0.0)]}
    )
    forward = await ask("POST", f"{train}/forward", {"inputs": PAIR, "group_size": 2})
    weights = [datum["mask"] for datum in forward["data"]]
    backward = {"forward_id": forward["forward_id"], "weights": weights, "metrics": {"mine": 1.0}}
    await ask("POST", f"{train}/backward", backward, headers={"Idempotency-Key": "a"})
    stepped = await ask("POST", f"{train}/optim-step", {"learning_rate": 1e-3})
    await ask("PUT", f"/v2/models/{fork['id']}/head", {"checkpoint_id": stepped["checkpoint_id"]})
    await ask("POST", f"/v1/models/{fork['id']}/lease", WRITER)
    for method in ["GET", "PUT", "DELETE"]:
        await ask(method, f"/v1/models/{fork['id']}/lease", headers={"Fencing-Token": "1"})

    for path in [
        "/health",
        "/openapi.json",
        "/v2/models",
        "/v1/models",
        "/models",
        "/v2/jobs",
        "/v2/auth/me",
    ]:
        await ask("GET", path)
    for path in [f"{train}/losses", f"/v2/models/{fork['id']}/checkpoints", f"/v2/jobs/{job}/traces"]:
        await ask("GET", path)
    for path in [f"/v2/trace/{trace}", f"/v2/trace/{trace}/events"]:
        await ask("GET", path)
    task = {
        "name": "a",
        "env": {"name": "e"},
        "task_id": "t",
        "verifier": {"env": "e", "id": "v", "slug": "s"},
    }
    made = await ask("POST", "/v2/tasks/upload", {"taskset_name": "mine", "tasks": [task]})
    for path in ["", "/by-name/mine", f"/{made['taskset_id']}", f"/{made['taskset_id']}/export"]:
        await ask("GET", f"/v2/tasksets{path}")

    agent = {"type": "openai_compatible", "config": {"model": "fork", "completion_kwargs": {"max_tokens": 4}}}
    hosted = {"trace_id": "4" * 32, "env": "sums", "task": "add", "args": {"a": 1, "b": 2}, "agent": agent}
    await ask("POST", "/v2/rollouts/submit", hosted)
    await ask("POST", "/v2/rollouts/cancel", {"trace_id": "4" * 32})
    lease = await ask("POST", "/runtime/sessions", {"environment": "sums"})
    await ask("DELETE", f"/runtime/sessions/{lease['id']}")

    assert ask.succeeded == operations(ask.document)


async def test_refusals_are_in_the_document_too(world: World, ask: Documented) -> None:
    fork = await world.fork("fork")
    train, inputs = f"/v1/models/{fork}/train", {"inputs": PAIR}
    base = (await ask("GET", f"/v2/models/resolve?model={world.base}"))["id"]

    await ask("POST", f"{train}/optim-step", {"learning_rate": 1.0}, status=409)
    await ask("POST", f"/v1/models/{base}/train/forward-backward", inputs, status=422)
    await ask("POST", "/v1/models/nobody/train/forward", inputs, status=404)
    await ask("POST", f"{train}/backward", {"forward_id": "none", "weights": []}, status=404)
    await ask("POST", f"{train}/forward", {"inputs": ["unknown"]}, status=404)
    await ask("PUT", f"/v2/models/{fork}/head", {"checkpoint_id": "none"}, status=404)
    await ask("POST", "/v2/models/fork", {"source_model_id": base, "name": "fork"}, status=409)
    await ask("POST", "/chat/completions", {"model": "nobody", "messages": [USER]}, status=404)
    await ask("POST", "/chat/completions", {"model": "fork", "messages": []}, status=400)
    for method in ["PUT", "DELETE"]:
        await ask(method, f"/v1/models/{fork}/lease", status=422)
    await ask("PUT", f"/v1/models/{fork}/lease", status=409, headers={"Fencing-Token": "1"})
    await ask("POST", f"{train}/forward", inputs, status=409, headers={"Fencing-Token": "1"})
    await ask("POST", f"{train}/forward", inputs, status=422, headers={"Fencing-Token": "-1"})
    await ask("GET", "/v2/models", status=401, headers=WRONG)
    await ask("GET", "/models", status=401, headers=WRONG)
    await ask("GET", "/v2/models/resolve", status=422)
    await ask("GET", "/v2/tasksets/nobody/export", status=404)
    await ask("POST", "/v2/tasks/upload", {"taskset_name": ""}, status=422)


async def test_a_full_queue_is_busy_as_the_document_says(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path / "state", model_dir, local={"max_queue": 1}) as world:
        ask = Documented(world.http, (await world.http.get("/openapi.json")).json())

        await ask("POST", "/chat/completions", {"model": world.base, "messages": [USER], "n": 9}, status=503)


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_a_method_that_a_path_does_not_have_is_told_which_it_has(world: World, method: str) -> None:
    reply = await world.http.request(method, "/v2/models/fork")

    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.json() == {"detail": f"{method} /v2/models/fork: this path takes POST"}


@pytest.mark.parametrize("path", ["/", "/health/", "/v2/trace/a%2F", "/v2/nothing"])
async def test_a_path_that_is_not_there_is_no_redirect(world: World, path: str) -> None:
    reply = await world.http.get(path)

    assert reply.status_code == 404
    assert "there is no such path" in reply.json()["detail"]


async def test_a_request_without_the_key_is_told_the_scheme(world: World) -> None:
    reply = await world.http.get("/openapi.json", headers={"Authorization": ""})

    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


HOSTILE = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "no UTF-8": b"\xff\xfe",
    "half a character": b'{"model": "\\ud800", "name": "\\udfff", "forward_id": "\\ud800", "status": "a"}',
    "deep": b'{"metrics":' * 5000 + b"1" + b"}" * 5000,
    "many digits": b"9" * 5000,
    "not a number": b'{"learning_rate": NaN, "reward": -Infinity, "weights": [[Infinity]]}',
    "a key twice": b'{"learning_rate": 1, "learning_rate": "x", "name": 1, "name": 2, "status": 3}',
    "two values": b"{} {}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_request_is_refused_in_one_line_everywhere(
    world: World, ask: Documented, body: bytes
) -> None:
    fork = await world.fork("fork")
    for path, item in ask.document["paths"].items():
        for method, operation in item.items():
            wrong = {"400", "422"} & operation["responses"].keys()
            if operation.get("requestBody", {}).get("required") and "{id}/enter" not in path:
                status = int(min(wrong))
                refusal = await ask(method.upper(), path.replace("{id}", fork), body, status=status)
                assert refusal["detail"].splitlines() == [refusal["detail"]]


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 10**400},
        {"learning_rate": float("inf")},
        {"learning_rate": float("nan")},
        {"beta1": 1.0},
        {"eps": -1.0},
        {"learning_rate": "1"},
        {"unknown": 1},
    ],
)
async def test_settings_that_no_optimizer_takes_are_refused(
    world: World, ask: Documented, change: dict[str, Any]
) -> None:
    fork = await world.fork("fork")
    await ask("POST", f"/v1/models/{fork}/train/forward-backward", {"inputs": PAIR})

    await ask("POST", f"/v1/models/{fork}/train/optim-step", {"learning_rate": 1e-3} | change, status=422)
    await ask("POST", f"/v1/models/{fork}/train/optim-step", {"learning_rate": 1e-3})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -(10**30)},
        {"max_tokens": 10**30},
        {"temperature": 1e-320},
        {"temperature": 1e-40},
        {"temperature": 1e300},
        {"top_p": 1e-320},
        {"stop": ["\x00", "", "x" * 10_000]},
    ],
)
async def test_numbers_at_the_edge_are_sampled_with(
    world: World, ask: Documented, change: dict[str, Any]
) -> None:
    body = {"model": world.base, "messages": [USER], "max_tokens": 3, "logprobs": True, "top_logprobs": 20}

    await ask("POST", "/chat/completions", body | change)


@pytest.mark.parametrize("query", ["limit=-1", "limit=1e3", "limit=", f"limit={'9' * 5000}", "limit=%D9%A3"])
@pytest.mark.parametrize("path", ["/v2/models", "/v2/jobs", "/v2/jobs/a/traces"])
async def test_a_page_is_counted_in_whole_numbers(ask: Documented, path: str, query: str) -> None:
    refusal = await ask("GET", f"{path}?{query}", status=422)

    assert "limit must be a whole number" in refusal["detail"]


@pytest.mark.parametrize("upload", [b"", b"[]", b'{"telemetry": [1, {}]}', b"[" * 100_000, b"\xff"])
async def test_telemetry_is_taken_whatever_it_is(ask: Documented, upload: bytes) -> None:
    assert await ask("POST", f"/v3/api/trace/{'3' * 32}/telemetry-upload", upload) == {}


@pytest.mark.parametrize(
    ("ids", "step"), [("[1e30]", "1"), ("[9223372036854775808]", "1"), ("[-1]", "1"), ("[1]", "1e999")]
)
async def test_a_span_with_impossible_numbers_does_not_cost_the_others(
    ask: Documented, ids: str, step: str
) -> None:
    sample = '{"step_id": %s, "sample": {"output_token_ids": %s}}'
    span = f'{{"span_id": "\\ud800", "attributes": {{"hud.payload": {sample}}}}}'
    upload = f'{{"telemetry": [{span % (step, ids)}, {span % (1, [2])}]}}'

    await ask("POST", f"/v3/api/trace/{'3' * 32}/telemetry-upload", upload.encode())

    assert (await ask("GET", f"/v2/trace/{'3' * 32}"))["num_turns"] == 1


async def test_arguments_with_half_a_character_are_rendered_all_the_same(
    world: World, ask: Documented
) -> None:
    call = {"type": "function", "id": "a", "function": {"name": "move", "arguments": '{"a": "\\ud800"}'}}
    body = {"model": world.base, "messages": [USER, {"role": "assistant", "tool_calls": [call]}]}

    refusal = await ask("POST", "/chat/completions", body, status=400)

    assert "one token must fit" in refusal["detail"]


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', "1e999", "-Infinity", "9" * 5000, "[" * 100_000])
def test_what_a_model_writes_and_json_cannot_say_is_no_value(text: str) -> None:
    assert loads(text) is None
    assert loads('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


async def test_a_refusal_that_quotes_many_lines_is_one(ask: Documented, world: World) -> None:
    fork = await world.fork("fork")
    body = {"inputs": ["first\nsecond", "third\x0b\u2028"], "loss_fn": "ppo"}

    refusal = await ask("POST", f"/v1/models/{fork}/train/forward-backward", body, status=404)

    assert refusal["detail"] == "trace first second is unknown; trace third is unknown"


async def test_a_checkpoint_that_has_diverged_is_no_fault_of_the_service(
    world: World, ask: Documented
) -> None:
    fork = await world.fork("fork")
    await world.learn(fork, learning_rate=1e10)

    refusal = await ask("POST", "/chat/completions", {"model": "fork", "messages": [USER]}, status=409)

    assert "it has diverged" in refusal["detail"]


@pytest.mark.parametrize("path", ["/v2/models/fork", "/chat/completions", "/v3/api/trace/a/telemetry-upload"])
async def test_a_client_that_leaves_within_its_body_is_no_bug(world: World, path: str) -> None:
    assert world.service
    said: list[Any] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return said.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    key = (b"authorization", KEY["Authorization"].encode())
    scope = {"type": "http", "method": "POST", "path": path, "headers": [key], "query_string": b""}
    # A bug would be raised again here, for the server to log.
    await world.app(scope, receive, send)

    assert sent[0]["status"] == 499
