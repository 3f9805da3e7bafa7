"""Tasksets that the platform keeps: find, read and write them."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

from hud_orchestrator.clients.retry import AT_START, READ
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import RequestRejected
from hud_orchestrator.wire import TasksetExport, TasksetName, TasksetPage, TasksetUpload, TasksetUploaded


class Tasksets:
    """Everything under ``/v2/tasksets``, and the upload."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def url(self) -> str:
        """Whose tasksets these are."""
        return self._transport.base_url

    async def all(self) -> TasksetPage:
        """Every taskset, by name. Only the embedded service is known to list them."""
        return await self._transport.read("GET", "/v2/tasksets", reply=TasksetPage, retry=AT_START)

    async def find(self, name: str) -> TasksetName | None:
        """The taskset of this name or id; an id is taken as it is, whether or not it is known there."""
        try:
            return TasksetName(taskset_id=str(UUID(name)), name=name)
        except ValueError:
            path = f"/v2/tasksets/by-name/{quote(name, safe='')}"
        try:
            return await self._transport.read("GET", path, reply=TasksetName, retry=AT_START)
        except RequestRejected as error:
            if error.status == 404:
                return None
            raise

    async def export(self, taskset_id: str) -> TasksetExport:
        """Its tasks. The platform says 404 both for a taskset without tasks and for none at all."""
        path = f"/v2/tasksets/{taskset_id}/export"
        try:
            return await self._transport.read("GET", path, reply=TasksetExport, retry=AT_START)
        except RequestRejected as error:
            if error.status == 404:
                return TasksetExport(name=None, tasks=[])
            raise

    async def upload(self, upload: TasksetUpload) -> TasksetUploaded:
        """Add tasks to a taskset, or replace those of the same slug; it is made when there is none."""
        body = upload.model_dump(exclude_none=True)
        return await self._transport.read(
            "POST", "/v2/tasks/upload", reply=TasksetUploaded, retry=READ, body=body
        )
