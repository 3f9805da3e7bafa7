"""What is remembered of traces, and what a training request gets for a trace id."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.trace_events import TraceEvents
from hud_orchestrator.local.traces import Traces
from hud_orchestrator.wire import TraceExit, TrajectoryPayload, TrajectorySample
from tests.local.local_world import World

TRACE = "0123456789abcdef0123456789abcdef"
DASHED = str(uuid.UUID(TRACE))


async def chat(world: World, text: str = "hello", trace: str = TRACE, **more: Any) -> dict[str, Any]:
    """One turn under a trace; its choice."""
    headers = {"Trace-Id": trace, "x-stainless-retry-count": str(more.pop("retry", 0))}
    told = {"logprobs": True, "return_token_ids": True, "max_tokens": 8}
    body = {"model": world.base, "messages": [{"role": "user", "content": text}]} | told | more
    reply = await world.http.post("/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0] if not more.get("stream") else {}
    return choice


async def leave(world: World, trace: str = TRACE, **more: Any) -> None:
    body = {"status": "completed", "reward": 0.5, "evaluation_result": {"score": 0.5}} | more
    assert (await world.http.post(f"/v2/trace/{trace}/exit", json=body)).json() == {}


def resolve(world: World, *ids: str) -> dict[str, TrajectoryPayload]:
    assert world.service
    return world.service.traces.resolve(ids)


def refusal(world: World, *ids: str) -> Refused:
    with pytest.raises(Refused) as caught:
        resolve(world, *ids)
    return caught.value


def as_sample(choice: dict[str, Any]) -> TrajectorySample:
    return TrajectorySample(
        prompt_token_ids=choice["prompt_token_ids"],
        output_token_ids=choice["token_ids"],
        output_logprobs=[one["logprob"] for one in choice["logprobs"]["content"]],
    )


async def test_a_trace_is_its_turns_in_order_and_the_reward_of_its_exit(world: World) -> None:
    turns = [as_sample(await chat(world, text)) for text in ("one", "two", "three")]
    await leave(world, DASHED, reward=0.25)
    found = resolve(world, TRACE, DASHED)
    assert found[TRACE] == found[DASHED] == TrajectoryPayload(samples=turns, reward=0.25, trace_id=TRACE)


async def test_a_request_that_is_repeated_replaces_the_earlier_reply(world: World) -> None:
    first = as_sample(await chat(world, "one"))
    lost = as_sample(await chat(world, "two"))
    kept = as_sample(await chat(world, "two", retry=1))
    assert lost != kept
    await leave(world)
    assert resolve(world, TRACE)[TRACE].samples == [first, kept]


async def test_ids_are_known_although_the_client_did_not_ask_for_them(world: World) -> None:
    choice = await chat(world, seed=3)
    assert "token_ids" not in await chat(world, seed=3, logprobs=False, return_token_ids=False)
    await chat(world, seed=3, stream=True)
    await leave(world)
    expected = as_sample(choice)
    assert resolve(world, TRACE)[TRACE].samples == [expected, expected, expected]


async def test_of_several_choices_the_first_is_the_turn(world: World) -> None:
    choice = await chat(world, n=3)
    await leave(world)
    assert resolve(world, TRACE)[TRACE].samples == [as_sample(choice)]


async def test_a_refused_request_is_no_turn(world: World) -> None:
    choice = await chat(world)
    bad = {"model": world.base, "messages": []}
    await world.http.post("/chat/completions", json=bad, headers={"Trace-Id": TRACE})
    await leave(world)
    assert resolve(world, TRACE)[TRACE].samples == [as_sample(choice)]


async def test_every_id_that_cannot_be_used_is_named_with_its_reason(world: World) -> None:
    await chat(world)
    await leave(world)
    await chat(world, trace="running")
    await leave(world, "silent")
    await chat(world, trace="failed")
    await leave(world, "failed", status="error", reward=0.0, evaluation_result=None)
    await chat(world, trace="unrewarded")
    await leave(world, "unrewarded", reward=None)
    refused = refusal(world, TRACE, "running", "silent", "failed", "unrewarded")
    assert refused.status == 422
    assert TRACE not in refused.detail
    for reason in (
        "trace running has no reward yet",
        "trace silent has no tokens",
        "trace failed has no reward: it ended with status error",
        "trace unrewarded has no reward",
    ):
        assert reason in refused.detail
    refused = refusal(world, "never", "running", "nowhere")
    assert refused.status == 404
    for reason in ("trace never is unknown", "trace running has no", "trace nowhere is unknown"):
        assert reason in refused.detail


async def test_a_crash_that_was_graded_has_its_reward(world: World) -> None:
    await chat(world)
    await leave(world, status="error", reward=1.0)
    assert resolve(world, TRACE)[TRACE].reward == 1


def upload(*steps: tuple[int, Any]) -> dict[str, Any]:
    return {
        "telemetry": [
            {
                "span_id": f"{number:016x}",
                "attributes": {"hud.payload": {"step_id": number, "sample": sample}},
            }
            for number, sample in steps
        ]
    }


async def test_what_telemetry_told_is_shown_as_events_in_order_with_the_whole_exit(world: World) -> None:
    call = {"id": "c", "name": "look", "arguments": {"where": "left"}}
    payloads: list[Any] = [
        {"source": "tool", "step_id": 3, "call": call,
         "result": {"content": [{"type": "text", "text": "tea"}]}},
        {"source": "agent", "content": "hm", "tool_calls": [{**call, "arguments": "[1"}], "step_id": 2,
         "raw": {"huge": 1}, "sample": {"prompt_token_ids": [1]}},
        {"source": "user", "messages": [{"role": "user", "content": "go"}], "step_id": 1},
        {"source": "task", "task_call": {"phase": "evaluate", "result": {"score": 0.5}}, "step_id": 4},
    ]  # fmt: skip
    spans = [{"span_id": f"{n:016x}", "attributes": {"hud.payload": one}} for n, one in enumerate(payloads)]
    for upload in (spans[:3], spans[2:], [7]):
        path = f"/v3/api/trace/{TRACE}/telemetry-upload"
        assert (await world.http.post(path, json={"telemetry": upload})).json() == {}
    await leave(world, stop_reason="done", metadata={"outcome": "finished"})

    events = (await world.http.get(f"/v2/trace/{DASHED}/events")).json()["events"]
    told = (await world.http.get(f"/v2/trace/{TRACE}")).json()
    assert [event["kind"] for event in events] == [
        "user_message", "agent_message", "tool_call", "task_call"
    ]  # fmt: skip
    assert "raw" not in str(events)
    assert events[1]["tool_calls"][0]["arguments"] == {"unparsed": "[1"}
    assert (events[2]["tool_name"], events[2]["result_text"], events[2]["error"]) == ("look", "tea", None)
    assert (told["stop_reason"], told["metadata"]) == ("done", {"outcome": "finished"})


def test_when_there_is_too_much_the_oldest_traces_lose_their_events() -> None:
    events = TraceEvents(kept_bytes=1000)
    for number in range(30):
        events.keep(f"t{number}", [("s", {"source": "agent", "content": "a" * 100})])

    kept = [number for number in range(30) if events.of(f"t{number}")]
    assert kept == list(range(30 - len(kept), 30))
    assert 5 < len(kept) < 10


async def test_samples_of_telemetry_serve_where_the_gateway_saw_nothing(world: World) -> None:
    one, two = ({"prompt_token_ids": [1], "output_token_ids": [n], "output_logprobs": [-1.0]} for n in (5, 6))
    path = f"/v3/api/trace/{TRACE}/telemetry-upload"
    for body in (upload((4, two)), upload((2, one), (3, None)), upload((2, one))):
        assert (await world.http.post(path, json=body)).json() == {}
    await leave(world)
    assert [sample.output_token_ids for sample in resolve(world, TRACE)[TRACE].samples] == [[5], [6]]
    # What was sampled here is known better here.
    choice = await chat(world)
    await world.http.post(path, json=upload((4, two)))
    assert resolve(world, TRACE)[TRACE].samples == [as_sample(choice)]


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"telemetry": 3}', '{"telemetry": [{"attributes": {"hud.payload": "x"}}, 7]}']
)
async def test_telemetry_that_is_not_understood_is_accepted(world: World, body: str) -> None:
    reply = await world.http.post(f"/v3/api/trace/{TRACE}/telemetry-upload", content=body)
    assert (reply.status_code, reply.json()) == (200, {})


def test_the_oldest_traces_go_when_there_are_too_many_tokens_or_traces() -> None:
    traces = Traces(kept_tokens=100, kept_traces=3)
    sample = TrajectorySample(
        prompt_token_ids=[1] * 30, output_token_ids=[2] * 10, output_logprobs=[0.0] * 10
    )
    done = TraceExit(status="completed", reward=1.0)
    for name in ("first", "second", "third"):
        traces.record(name, sample)
        traces.exit(name, done)
    with pytest.raises(Refused, match="trace first is no longer kept"):
        traces.resolve(["first", "second"])
    assert list(traces.resolve(["second", "third"])) == ["second", "third"]
    for name in ("a", "b"):
        traces.exit(name, done)
    with pytest.raises(Refused, match="trace second is no longer kept"):
        traces.resolve(["second"])
    assert traces.resolve(["third"])["third"].samples == [sample]


async def test_what_was_reported_can_be_read(world: World) -> None:
    job = uuid.uuid4()
    await world.http.post(f"/v2/trace/job/{job.hex}/enter", json={"name": "a job", "group": 2})
    entered = {"job_id": job.hex, "task_slug": "task", "model": "m"}
    await world.http.post(f"/v2/trace/{TRACE}/enter", json=entered)
    trace = (await world.http.get(f"/v2/trace/{DASHED}")).json()
    assert (trace["status"], trace["reward"]) == ("running", None)
    result = '{"status": "error", "reward": 0.5, "error": "boom", "evaluation_result": {"score": NaN}}'
    await world.http.post(f"/v2/trace/{TRACE}/exit", content=result)
    trace = (await world.http.get(f"/v2/trace/{DASHED}")).json()
    assert trace | {
        "id": TRACE, "status": "error", "reward": 0.5, "error": "boom", "evaluation_result": {"score": None}
    } == trace  # fmt: skip
    listed = (await world.http.get("/v2/jobs", params={"limit": 1})).json()
    assert (listed["total"], listed["items"][0]["name"]) == (1, "a job")
    members = (await world.http.get(f"/v2/jobs/{job}/traces")).json()
    assert [one["id"] for one in members["items"]] == [TRACE]
    assert (await world.http.get(f"/v2/trace/{TRACE}/events")).json() == {"events": []}
    assert (await world.http.get("/v2/auth/me")).status_code == 200
    unknown = await world.http.get("/v2/trace/unheard-of")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "trace unheard-of is unknown"})


async def test_a_training_request_may_name_traces(world: World) -> None:
    model = await world.fork("fork")
    other = "f" * 32
    for trace, reward in ((TRACE, 1.0), (other, 0.0)):
        for text in ("one", "two"):
            await chat(world, text, trace=trace, model="fork")
        await leave(world, trace, reward=reward)
    reply = await world.train(model, inputs=[DASHED, other], group_size=2)
    assert reply.status_code == 200, reply.text
    assert reply.json()["num_datums"] == 4
    refused = await world.train(model, inputs=[TRACE, "who"], group_size=2)
    assert (refused.status_code, refused.json()) == (404, {"detail": "trace who is unknown"})
