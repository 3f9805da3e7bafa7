"""``tasksets list``: what the platform has."""

from __future__ import annotations

from hud_orchestrator.cli.models.asking import ask_service, print_json, print_table
from hud_orchestrator.cli.models.options import AsJson, EnvFile


def listing(*, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """List the tasksets of the embedded service by name."""
    from hud_orchestrator.clients.tasksets import Tasksets
    from hud_orchestrator.clients.transport import Transport

    async def question(transport: Transport, _gateway_url: str) -> None:
        found = (await Tasksets(transport).all()).items
        if as_json:
            print_json([record.model_dump(mode="json", exclude_none=True) for record in found])
        else:
            rows = [(record.name, str(record.num_tasks or "-"), record.id) for record in found]
            print_table(("Name", "Tasks", "ID"), rows)

    ask_service(question, env_file=env_file, as_json=as_json)
