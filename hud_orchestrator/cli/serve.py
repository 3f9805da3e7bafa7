"""``hud-orchestrate serve``: the embedded service alone, for any client that speaks the contract."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    *,
    state: Annotated[Path, typer.Option(help="Where models and checkpoints are kept.")] = Path("service"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 takes a free one.")] = 8642,
    base: Annotated[
        list[str] | None,
        typer.Option(help="A model directory to offer as a base, besides tiny and smollm2-135m."),
    ] = None,
    environments: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file that defines environments, or a directory of such files: what hosted rollouts "
            "and leases may run."
        ),
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(help="Write the HUD_* addresses and the key here once it is ready.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of adapters and of completions without one.")] = 0,
    deterministic: Annotated[bool, typer.Option(help="Sample one request at a time, repeatably.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads that torch computes with.")] = 1,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="Where prepared base models are kept.")] = None,
) -> None:
    """Run the embedded training service until SIGINT or SIGTERM.

    The key is HUD_API_KEY from the environment when it is set, and a new random one otherwise.
    """
    import anyio

    from hud_orchestrator import logs
    from hud_orchestrator.cli.served import announce, service_key
    from hud_orchestrator.config.local import LocalSection
    from hud_orchestrator.embedded import check_installed
    from hud_orchestrator.heap import quiet_heap

    check_installed()
    from hud_orchestrator.local.serve import serve_until_told
    from hud_orchestrator.local.settings import ServiceSettings

    logs.configure(stream=sys.stderr, as_json=not sys.stderr.isatty(), level="info")
    key, made = service_key()
    settings = ServiceSettings(
        state_dir=state.absolute(),
        host=host,
        port=port,
        api_key=key,
        bases=[str(Path(directory).absolute()) for directory in base or ()],
        environments=[place.absolute() for place in environments or ()],
        seed=seed,
        deterministic=deterministic,
        local=LocalSection(device=device, threads=threads, cache_dir=cache),
    )

    async def main() -> None:
        await serve_until_told(settings, ready=lambda url: announce(url, key, made=made, env_file=env_file))

    with quiet_heap():
        anyio.run(main, backend_options={"use_uvloop": True})
