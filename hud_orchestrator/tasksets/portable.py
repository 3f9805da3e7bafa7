"""Rows as files and the platform have them, to be written again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hud_orchestrator.wire import TasksetUpload

ROW_KEYS = (
    "env", "id", "args", "slug", "validation", "agent_config", "columns", "runtime_config", "verifier",
)  # fmt: skip
"""What a row says; other keys are ignored."""


def portable(row: Mapping[str, Any], slug: str) -> dict[str, Any]:
    """*row* as files and the platform have it: with its slug, and without what it does not say."""
    found = {key: row[key] for key in ROW_KEYS if row.get(key) is not None} | {"slug": slug}
    verifier = found.get("verifier")
    if verifier is not None:
        found["verifier"] = {key: verifier[key] for key in ROW_KEYS if verifier.get(key) is not None}
    return found


def upload_of(name: str, rows: Iterable[Mapping[str, Any]]) -> TasksetUpload:
    """What is uploaded to put portable *rows* into the platform's taskset *name*."""
    uploads = [
        {**row, "name": row["slug"], "env": {"name": row["env"]}, "task_id": row["id"]} for row in rows
    ]
    return TasksetUpload.model_validate({"taskset_name": name, "tasks": uploads})
