"""The JSON Schema of the run file, Draft 2020-12."""

from __future__ import annotations

from typing import Any

from hud_orchestrator.config.run import RunFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Describe every key with its docstring, default and bounds."""
    schema = RunFile.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        section["properties"] = {name: _or_nothing(part) for name, part in section["properties"].items()}
    return {"$schema": DIALECT, **schema, "title": "hud-orchestrate run file"}


def _or_nothing(part: dict[str, Any]) -> dict[str, Any]:
    """Let an optional section be empty, as ``load`` does; the default repeats what its keys say."""
    if "$ref" not in part or "default" not in part:
        return part
    kept = {key: value for key, value in part.items() if key not in ("$ref", "default")}
    return {"anyOf": [{"$ref": part["$ref"]}, {"type": "null"}], **kept}
