"""Which placement a run has, and what it needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from hud_orchestrator.config.findings import Check, Finding, Resolve
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.sources import environment_file, training_sources
from hud_orchestrator.config.spelling import suggestion

FROM_SOURCE = ("local", "in-process", "subprocess")
"""Placements that run a source file of this machine."""

HOSTED = "hosted"
"""The placement of the whole rollout, not only of its environment."""

SANDBOXES = ("modal", "daytona")
"""Placements that HUD's SDK provides."""

PLACEMENTS = (*FROM_SOURCE, "docker", "hud", HOSTED, *SANDBOXES, "tcp://host:port")
"""Every placement, as somebody writes it."""

_TCP = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[^\s:/?#\[\]]+):([0-9]{1,5})")


def placement_of(run: RunFile, resolve: Resolve) -> str:
    """The placement: the one that is written, or ``local`` for a taskset on disk and ``hud`` for a name."""
    if run.runtime.placement is not None:
        return run.runtime.placement
    return "local" if all(source.is_path for source in training_sources(run, resolve)) else "hud"


def hosted_here(run: RunFile, placement: str) -> bool:
    """Whether the run's own embedded service hosts its rollouts, and so needs their source."""
    return placement == HOSTED and run.service == "local"


def tcp_address(placement: str) -> tuple[str, int] | None:
    """Host and port of ``tcp://host:port``; ``None`` for anything else."""
    found = _TCP.fullmatch(placement)
    if found is None or not 0 < int(found[2]) < 2**16:
        return None
    return found[1].strip("[]"), int(found[2])


def _placement(run: RunFile, _: Resolve) -> Iterator[Finding]:
    placement = run.runtime.placement
    if placement is None or placement in PLACEMENTS[:-1] or tcp_address(placement):
        return
    text = f'"{placement}" is no placement; allowed: {", ".join(PLACEMENTS)}'
    yield Finding(("runtime.placement",), text + suggestion(placement, PLACEMENTS))


def _source(run: RunFile, resolve: Resolve) -> Iterator[Finding]:
    placement = placement_of(run, resolve)
    if placement not in FROM_SOURCE and not hosted_here(run, placement):
        return
    source, train = run.runtime.source, training_sources(run, resolve)
    if source is None:
        modules = list(dict.fromkeys(named.name for named in train if named.is_module))
        held = f"{', '.join(modules)} are several files" if modules else f"{train[0].name} holds tasks only"
        if environment_file(run, resolve) is None and (modules or all(named.is_data for named in train)):
            text = f"missing; {held}, so name the .py file that defines their environments"
            yield Finding(("runtime.source", "taskset.train", "runtime.placement"), text)
        return
    # os.path says "no" where pathlib raises: on a name that is too long.
    path = resolve(source)
    if run.runtime.command is None and not source.endswith(".py"):
        yield Finding(("runtime.source",), f'"{source}" is not a .py file that defines environments')
    elif run.runtime.command is None and os.path.isdir(path):  # noqa: PTH112
        yield Finding(("runtime.source",), f'"{source}" is a directory, not a file')
    elif not os.path.exists(path):  # noqa: PTH110
        text = f'there is no file {path}; "{source}" is relative to the run file'
        yield Finding(("runtime.source",), text)


def _command(run: RunFile, resolve: Resolve) -> Iterator[Finding]:
    placement = placement_of(run, resolve)
    if run.runtime.command is not None and placement != "subprocess":
        text = f"works with placement: subprocess only, and the placement is {placement}; remove it"
        yield Finding(("runtime.command", "runtime.placement"), text)


def _foreign_keys(run: RunFile, resolve: Resolve) -> Iterator[Finding]:
    """Keys that mean nothing with this placement."""
    placement, runtime = placement_of(run, resolve), run.runtime
    wanted = {"image": ("docker",), "environ": ("docker",), "options": SANDBOXES}
    for key, placements in wanted.items():
        if getattr(runtime, key) and placement not in placements:
            text = f"works with placement: {' or '.join(placements)} only, and the placement is {placement}"
            yield Finding((f"runtime.{key}", "runtime.placement"), f"{text}; remove it")


def _hosted(run: RunFile, resolve: Resolve) -> Iterator[Finding]:
    """What a rollout that runs elsewhere cannot have."""
    if placement_of(run, resolve) != HOSTED:
        return
    for outcome, treatment in run.rollout.outcomes.model_dump().items():
        changes = treatment == "zero_advantage" or (treatment == "scale" and run.rollout.scale_by != 1)
        if changes:
            yield Finding(
                (f"rollout.outcomes.{outcome}", "runtime.placement"),
                f"{treatment} changes a reward, and a hosted rollout trains by its trace id, with the reward "
                "that the service knows; allowed: keep, drop_member, drop_group or retry",
            )
    if run.agent.use is not None:
        yield Finding(
            ("agent.use", "runtime.placement"),
            f"{run.agent.use} runs here, and a hosted rollout's agent runs elsewhere; remove it, or choose "
            "placement: hud",
        )


PLACEMENT_CHECKS: tuple[Check, ...] = (_placement, _source, _command, _foreign_keys, _hosted)
"""Checks about where environments run."""
