"""Job and trace reporting: answered at once, for a slow answer delays every rollout."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.bodies import read_body, read_bytes
from hud_orchestrator.local.openapi import Endpoint, Query
from hud_orchestrator.local.openapi.replies import Accepted, Events, JobPage, ReportedTrace, TracePage, Who
from hud_orchestrator.local.query import whole_number
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.trace_events import TraceEvents
from hud_orchestrator.local.traces import Trace, Traces, plain_id
from hud_orchestrator.wire import JobEnter, TraceEnter, TraceExit, TrajectorySample

SDK_EVENTS_PATH = "/v3/api/sdk-events/cli"
"""The one route without a key: the SDK's command line sends none."""

NOBODY = "00000000-0000-0000-0000-000000000000"
"""The user and the team; the SDK wants the ids of somebody."""

REMEMBERED_JOBS = 1000

PAGE = 100
"""Items of a list, when the client does not say how many it wants."""

_LIMIT = (Query(name="limit", text=f"Items at most; default: {PAGE}."),)


def report_routes(service: Service) -> list[Endpoint]:
    """Routes of reporting and telemetry, and of reading what was reported."""
    jobs: OrderedDict[str, JobEnter] = OrderedDict()
    happened = TraceEvents()
    return [*_reporting(service.traces, jobs, happened), *_reading(service.traces, jobs, happened)]


def _reporting(traces: Traces, jobs: OrderedDict[str, JobEnter], happened: TraceEvents) -> list[Endpoint]:

    async def accept(_request: Request) -> Response:
        return JSONResponse({})

    async def enter_job(request: Request) -> Response:
        jobs[plain_id(request.path_params["id"])], _ = await read_body(request, JobEnter)
        while len(jobs) > REMEMBERED_JOBS:
            jobs.popitem(last=False)
        return JSONResponse({})

    async def enter(request: Request) -> Response:
        entered, _ = await read_body(request, TraceEnter)
        traces.enter(request.path_params["id"], entered)
        return JSONResponse({})

    async def leave(request: Request) -> Response:
        ended, _ = await read_body(request, TraceExit)
        traces.exit(request.path_params["id"], ended)
        return JSONResponse({})

    async def telemetry(request: Request) -> Response:
        trace_id, spans = request.path_params["id"], _spans(await read_bytes(request))
        traces.report(trace_id, (one for span, payload in spans if (one := _sample(span, payload))))
        happened.keep(plain_id(trace_id), spans)
        return JSONResponse({})

    return [
        Endpoint(
            "POST", "/v2/trace/job/{id}/enter", enter_job, "A job begins", body=JobEnter, reply=Accepted
        ),
        Endpoint("POST", "/v2/trace/{id}/enter", enter, "A rollout begins", body=TraceEnter, reply=Accepted),
        Endpoint("POST", "/v2/trace/{id}/exit", leave, "A rollout has ended", body=TraceExit, reply=Accepted),
        Endpoint(
            "POST",
            "/v3/api/trace/{id}/telemetry-upload",
            telemetry,
            "Spans of a rollout: what happened in it, and its samples",
            body=Any,
            reply=Accepted,
        ),
        Endpoint("POST", SDK_EVENTS_PATH, accept, "Ignored", reply=Accepted, keyed=False),
    ]


def _reading(traces: Traces, jobs: OrderedDict[str, JobEnter], happened: TraceEvents) -> list[Endpoint]:
    async def trace(request: Request) -> Response:
        return JSONResponse(_told(traces.get(request.path_params["id"])))

    async def events(request: Request) -> Response:
        known = traces.get(request.path_params["id"])
        return JSONResponse({"events": happened.of(known.id)})

    async def list_jobs(request: Request) -> Response:
        items = [{"id": key, **job.model_dump()} for key, job in reversed(jobs.items())]
        return _page(items, request)

    async def list_traces(request: Request) -> Response:
        job = plain_id(request.path_params["id"])
        items = [_told(one) for one in traces.all() if _job(one) == job]
        return _page(items, request)

    async def who(_request: Request) -> Response:
        return JSONResponse({"user_id": NOBODY, "team_id": NOBODY})

    return [
        Endpoint("GET", "/v2/trace/{id}", trace, "A rollout", reply=ReportedTrace, refusals=[404]),
        Endpoint("GET", "/v2/trace/{id}/events", events, "Its events", reply=Events, refusals=[404]),
        Endpoint("GET", "/v2/jobs", list_jobs, "The jobs of late, newest first", reply=JobPage, query=_LIMIT),
        Endpoint(
            "GET",
            "/v2/jobs/{id}/traces",
            list_traces,
            "The rollouts of a job, oldest first",
            reply=TracePage,
            query=_LIMIT,
        ),
        Endpoint("GET", "/v2/auth/me", who, "Whose key it is", reply=Who),
    ]


def _told(trace: Trace) -> dict[str, Any]:
    ended = trace.ended
    return {
        "id": trace.id,
        "job_id": _job(trace),
        "group_id": trace.entered.group_id if trace.entered else None,
        "task_slug": trace.entered.task_slug if trace.entered else None,
        "model": trace.entered.model if trace.entered else None,
        "status": ended.status if ended else "running",
        "reward": _finite(ended.reward) if ended else None,
        "error": ended.error if ended else None,
        "evaluation_result": _finite(ended.evaluation_result) if ended else None,
        "stop_reason": ended.stop_reason if ended else None,
        "metadata": _finite(ended.metadata) if ended else None,
        "num_turns": len(trace.samples()),
    }


def _finite(value: Any) -> Any:
    """*value* with ``None`` for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _job(trace: Trace) -> str | None:
    return plain_id(trace.entered.job_id) if trace.entered and trace.entered.job_id else None


def _page(items: list[dict[str, Any]], request: Request) -> Response:
    return JSONResponse({"items": items[: whole_number(request, "limit", PAGE)], "total": len(items)})


def _spans(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The payloads of an upload's spans, by their ids. What is not understood is passed over."""
    try:
        found = [_payload(span) for span in json.loads(body)["telemetry"]]
    except (*_NOT_UNDERSTOOD, RecursionError):
        return []
    return [one for one in found if one is not None]


def _payload(span: Any) -> tuple[str, dict[str, Any]] | None:
    try:
        payload = span["attributes"]["hud.payload"]
        return (str(span.get("span_id")), payload) if isinstance(payload, dict) else None
    except _NOT_UNDERSTOOD:
        return None


def _sample(span: str, payload: dict[str, Any]) -> tuple[int, str, TrajectorySample] | None:
    try:
        sample = TrajectorySample.model_validate(payload["sample"])
        ids = [*(sample.prompt_token_ids or ()), *sample.output_token_ids]
        if not all(0 <= one < _TOKEN_IDS for one in ids):
            return None
        return int(payload.get("step_id") or 0), span, sample
    except _NOT_UNDERSTOOD:
        return None


_TOKEN_IDS = 2**31
"""More than any vocabulary has."""

_NOT_UNDERSTOOD = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
