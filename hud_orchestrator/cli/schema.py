"""``schema``: the JSON Schema of the run file, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of the run file, so that an editor completes and checks it."""
    from hud_orchestrator.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
