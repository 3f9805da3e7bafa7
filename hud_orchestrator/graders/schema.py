"""Answers that should be JSON of a given form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_schema(answer: str | None, schema: Mapping[str, Any]) -> float:
    """1.0 if *answer* is JSON, and nothing else, that fits *schema*; else 0.0.

    Needs the ``jsonschema`` package, which the extra ``graders`` brings.

    Raises:
        ModuleNotFoundError: there is no ``jsonschema``.
        jsonschema.SchemaError: *schema* is none.
    """
    try:
        import jsonschema
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "json_schema needs the jsonschema package: pip install 'hud-orchestrator[graders]'"
        ) from None
    wanted = dict(schema)
    kind = jsonschema.validators.validator_for(wanted, default=jsonschema.Draft202012Validator)
    kind.check_schema(wanted)
    try:
        # A number that JSON does not have would pass for one: NaN fits {"type": "number"}.
        found = json.loads(answer or "", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return float(kind(wanted).is_valid(found))


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
