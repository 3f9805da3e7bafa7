"""Tasksets that clients have uploaded, a file for each: whole or not there, whenever the machine dies."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hud_orchestrator.local.atomic import remove_leftovers, write_file
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.wire import TasksetExport, TasksetRecord, TasksetUpload, TasksetUploaded, TaskUpload


class _Stored(BaseModel):
    """The content of a file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    name: str
    tasks: list[TaskUpload]


class Tasksets:
    """The tasksets of a state directory."""

    def __init__(self, directory: Path) -> None:
        """Read what there is; what a crash left unfinished is removed."""
        self.directory = directory
        self._turn = threading.Lock()
        self._by_id: dict[str, _Stored] = {}
        if self.directory.is_dir():
            remove_leftovers(self.directory)
            for path in sorted(self.directory.glob("*.json")):
                stored = _Stored.model_validate_json(path.read_bytes())
                self._by_id[stored.id] = stored

    def records(self) -> list[TasksetRecord]:
        """Every taskset, by name."""
        found = sorted(self._by_id.values(), key=lambda one: (one.name, one.id))
        return [_record(one) for one in found]

    def named(self, name: str) -> TasksetRecord:
        """The taskset of this name.

        Raises:
            Refused: 404, there is none.
        """
        found = self._named(name)
        if found is None:
            raise Refused(404, f"there is no taskset {name!r}; upload one with POST /v2/tasks/upload")
        return _record(found)

    def get(self, taskset_id: str) -> TasksetRecord:
        """The taskset with this id.

        Raises:
            Refused: 404, there is none.
        """
        return _record(self._known(taskset_id))

    def export(self, taskset_id: str) -> TasksetExport:
        """The taskset with this id, whole.

        Raises:
            Refused: 404, there is none.
        """
        stored = self._known(taskset_id)
        return TasksetExport(name=stored.name, tasks=[_exported(task) for task in stored.tasks])

    def upload(self, upload: TasksetUpload) -> TasksetUploaded:
        """Add tasks to a taskset, or replace those of the same slug; make it when there is none.

        Raises:
            Refused: 404, there is no taskset with the id that is given; 422, a slug is there twice, or a
                number is none; 507, it could not be written. Nothing has changed then.
        """
        given = {task.name: task for task in upload.tasks}
        if len(given) < len(upload.tasks):
            raise Refused(422, "tasks: a name is there twice; give every task a name of its own")
        with self._turn:
            before = self._target(upload)
            there = {task.name: task for task in before.tasks}
            after = before.model_copy(update={"tasks": list({**there, **given}.values())})
            self._write(after)
            self._by_id[after.id] = after
        created = len(given.keys() - there.keys())
        return TasksetUploaded(taskset_id=after.id, tasks_created=created, tasks_updated=len(given) - created)

    def _target(self, upload: TasksetUpload) -> _Stored:
        if upload.taskset_id is not None:
            return self._known(upload.taskset_id)
        found = self._named(upload.taskset_name)
        return found or _Stored(id=str(uuid.uuid4()), name=upload.taskset_name, tasks=[])

    def _named(self, name: str) -> _Stored | None:
        return next((one for one in self._by_id.values() if one.name == name), None)

    def _known(self, taskset_id: str) -> _Stored:
        try:
            return self._by_id[str(uuid.UUID(taskset_id))]
        except (ValueError, KeyError):
            raise Refused(404, f"there is no taskset with the id {taskset_id!r}") from None

    def _write(self, stored: _Stored) -> None:
        try:
            content = json.dumps(stored.model_dump(exclude_none=True), allow_nan=False, indent=1)
            self.directory.mkdir(exist_ok=True)
            write_file(self.directory / f"{stored.id}.json", content.encode())
        except ValueError:
            raise Refused(422, "tasks: there is a number that JSON has not, such as NaN") from None
        except OSError as error:
            raise Refused(507, f"the taskset could not be written: {error}") from error


def _record(stored: _Stored) -> TasksetRecord:
    return TasksetRecord(id=stored.id, name=stored.name, can_edit=True, num_tasks=len(stored.tasks))


def _exported(task: TaskUpload) -> dict[str, Any]:
    """A task under the keys of an export, which are others than those of an upload."""
    row = task.model_dump()
    return {"env": row.pop("env")["name"], "scenario": row.pop("task_id"), **row}
