"""Tasksets over HTTP: list, find, export, upload."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.bodies import read_body
from hud_orchestrator.local.openapi import Endpoint
from hud_orchestrator.local.service import Service
from hud_orchestrator.wire import (
    TasksetExport,
    TasksetName,
    TasksetPage,
    TasksetRecord,
    TasksetUpload,
    TasksetUploaded,
)


def taskset_routes(service: Service) -> list[Endpoint]:
    """Routes under ``/v2/tasksets``, and the upload."""
    calls = _Calls(service)
    return [
        Endpoint("GET", "/v2/tasksets", calls.all, "Every taskset, by name", reply=TasksetPage),
        Endpoint(
            "GET",
            # A name may have slashes in it.
            "/v2/tasksets/by-name/{id:path}",
            calls.named,
            "The id of the taskset with a name",
            reply=TasksetName,
            refusals=[404],
        ),
        Endpoint(
            "GET",
            "/v2/tasksets/{id}",
            calls.get,
            "A taskset, without its tasks",
            reply=TasksetRecord,
            refusals=[404],
        ),
        Endpoint(
            "GET",
            "/v2/tasksets/{id}/export",
            calls.export,
            "A taskset, with its tasks",
            reply=TasksetExport,
            refusals=[404],
        ),
        Endpoint(
            "POST",
            "/v2/tasks/upload",
            calls.upload,
            "Add tasks to a taskset, or replace those of the same name; it is made when there is none",
            body=TasksetUpload,
            reply=TasksetUploaded,
            refusals=[404, 507],
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Calls:
    """The handlers."""

    service: Service

    async def all(self, _request: Request) -> Response:
        records = self.service.tasksets.records()
        return JSONResponse(TasksetPage(items=records, total=len(records)).model_dump())

    async def named(self, request: Request) -> Response:
        found = self.service.tasksets.named(request.path_params["id"])
        return JSONResponse(TasksetName(taskset_id=found.id, name=found.name).model_dump())

    async def get(self, request: Request) -> Response:
        return JSONResponse(self.service.tasksets.get(request.path_params["id"]).model_dump())

    async def export(self, request: Request) -> Response:
        return JSONResponse(self.service.tasksets.export(request.path_params["id"]).model_dump())

    async def upload(self, request: Request) -> Response:
        wanted, _ = await read_body(request, TasksetUpload)
        # A write under way is waited for, whoever has gone away meanwhile.
        done = await asyncio.shield(asyncio.to_thread(self.service.tasksets.upload, wanted))
        return JSONResponse(done.model_dump())
