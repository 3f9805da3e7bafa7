"""Combinations of values with which a run cannot work, or cannot learn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from hud_orchestrator.config.findings import Check, Finding, Resolve
from hud_orchestrator.config.losses import (
    CLIENT,
    CLIENT_LOSS_KEYS,
    COMMON_KEYS,
    LOSS_KEYS,
    client_loss,
    is_group_relative,
)
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.spelling import suggestion


def _clock(run: RunFile, _: Resolve) -> Iterator[Finding]:
    reserve, deadline = run.rollout.grading_reserve_s, run.rollout.deadline_s
    if reserve >= deadline:
        yield Finding(
            ("rollout.grading_reserve_s", "rollout.deadline_s"),
            f"{reserve:g} s must be less than rollout.deadline_s ({deadline:g} s), "
            f"or the agent has no time to act",
        )
    start, group = run.rollout.start_s, run.rollout.group_s
    if start is not None and start >= deadline - reserve:
        yield Finding(
            ("rollout.start_s", "rollout.deadline_s", "rollout.grading_reserve_s"),
            f"{start:g} s must be less than the {deadline - reserve:g} s between rollout.deadline_s and "
            f"rollout.grading_reserve_s, or the agent has no time to act",
        )
    if group is not None and group < deadline:
        yield Finding(
            ("rollout.group_s", "rollout.deadline_s"),
            f"{group:g} s must not be less than rollout.deadline_s ({deadline:g} s), the time of one rollout",
        )


def _groups(run: RunFile, _: Resolve) -> Iterator[Finding]:
    size, loss = run.rollout.group_size, run.trainer.loss
    relative = is_group_relative(loss, run.trainer.loss_config)
    if run.rollout.concurrency < size:
        yield Finding(
            ("rollout.concurrency", "rollout.group_size"),
            f"{run.rollout.concurrency} is less than rollout.group_size ({size}), so a group is never "
            f"in flight together; allowed: {size} or more",
        )
    if size == 1 and relative:
        yield Finding(
            ("rollout.group_size", "trainer.loss"),
            f'a group of 1 has nothing to be compared with, so "{loss}" never has a gradient; allowed: 2 '
            f"or more, or trainer.loss: cross_entropy",
        )
    if run.agent.temperature == 0 and relative and size > 1:
        yield Finding(
            ("agent.temperature", "trainer.loss"),
            f'0 makes all {size} attempts of a group the same, so "{loss}" never has a gradient; allowed: '
            f"above 0; 1 samples the policy itself",
        )


def _determinism(run: RunFile, _: Resolve) -> Iterator[Finding]:
    if not run.run.deterministic:
        return
    if run.pipeline.staleness:
        yield Finding(
            ("pipeline.staleness", "run.deterministic"),
            f"{run.pipeline.staleness} lets the clock decide which policy samples a group; "
            f"run.deterministic needs 0",
        )
    if run.service == "hud":
        yield Finding(
            ("run.deterministic", "service"),
            "true needs service: local; HUD's service samples many requests at once; set it to false",
        )


def _learning_rate(run: RunFile, _: Resolve) -> Iterator[Finding]:
    rate = run.trainer.learning_rate
    if rate.final > rate.peak:
        yield Finding(
            ("trainer.learning_rate.final", "trainer.learning_rate.peak"),
            f"{rate.final:g} is above trainer.learning_rate.peak ({rate.peak:g}), the largest rate of a run",
        )


def _service(run: RunFile, _: Resolve) -> Iterator[Finding]:
    if run.service == "local" and run.model.base is None:
        yield Finding(
            ("model.base", "service"),
            "missing; the local service needs something to start from: tiny, smollm2-135m or a directory",
        )
    if run.service == "hud" and run.trainer.max_grad_norm is not None:
        yield Finding(
            ("trainer.max_grad_norm", "service"),
            f"{run.trainer.max_grad_norm:g} works with service: local only; HUD's optim-step has no such "
            f"field; remove it",
        )


def _loss(run: RunFile, _: Resolve) -> Iterator[Finding]:
    name, ours = run.trainer.loss, client_loss(run.trainer.loss)
    if ours is None:
        if run.service == "local":
            yield from _service_loss(run)
    elif ours in CLIENT_LOSS_KEYS:
        yield from _loss_keys(run, CLIENT_LOSS_KEYS[ours])
    elif ":" not in ours:
        text = f'"{name}" is none of our losses; allowed: {", ".join(sorted(CLIENT_LOSS_KEYS))}'
        yield Finding(("trainer.loss",), text + suggestion(ours, CLIENT_LOSS_KEYS))
    elif not all(part.isidentifier() for part in re.split(r"[.:]", ours)) or ours.count(":") > 1:
        text = f'"{name}" is not the name of a function; write it as package.module:function'
        yield Finding(("trainer.loss",), text)


def _service_loss(run: RunFile) -> Iterator[Finding]:
    name = run.trainer.loss
    if name not in LOSS_KEYS:
        known = [*LOSS_KEYS, *sorted(CLIENT_LOSS_KEYS.keys() - LOSS_KEYS.keys())]
        text = f'"{name}" is not a known loss; allowed: {", ".join(known)}, or package.module:function'
        yield Finding(("trainer.loss", "service"), text + suggestion(name, known))
        return
    known_keys = LOSS_KEYS[name] | COMMON_KEYS
    yield from _loss_keys(run, known_keys)
    for key, value in run.trainer.loss_config.items():
        if key in known_keys and isinstance(value, bool | str):
            text = f'{value!r} is not a number, and the service takes numbers only; "{CLIENT}{name}" may'
            yield Finding((f"trainer.loss_config.{key}", "trainer.loss", "service"), text)


def _loss_keys(run: RunFile, known: Collection[str]) -> Iterator[Finding]:
    keys = sorted(known)
    for key in run.trainer.loss_config:
        if key not in keys:
            text = f'"{run.trainer.loss}" takes no such value; allowed: {", ".join(keys)}'
            yield Finding(
                (f"trainer.loss_config.{key}", "trainer.loss", "service"), text + suggestion(key, keys)
            )


def _loss_numbers(run: RunFile, _: Resolve) -> Iterator[Finding]:
    if run.service == "hud" or run.trainer.loss not in LOSS_KEYS:
        return
    config = {key: value for key, value in run.trainer.loss_config.items() if isinstance(value, int | float)}
    if config.get("beta", 1) <= 0:
        yield Finding(
            ("trainer.loss_config.beta", "service"), f"{config['beta']:g} is out of range; allowed: above 0"
        )
    low, high = config.get("clip_low_threshold"), config.get("clip_high_threshold")
    if low is not None and high is not None and low >= high:
        yield Finding(
            (
                "trainer.loss_config.clip_low_threshold",
                "trainer.loss_config.clip_high_threshold",
                "service",
            ),
            f"{low:g} must be less than clip_high_threshold ({high:g}); both bound the "
            f"ratio itself, as in 0.8 and 1.2",
        )


def _taskset(run: RunFile, _: Resolve) -> Iterator[Finding]:
    taskset = run.taskset
    weighted = [entry.weight is not None for entry in taskset.train]
    if any(weighted) and not all(weighted):
        yield Finding(
            (f"taskset.train.{weighted.index(False)}.weight", "taskset.train"),
            "missing: other entries have a weight; give every entry one, or none",
        )
    if taskset.heldout is not None and taskset.heldout_split is not None:
        yield Finding(
            ("taskset.heldout_split", "taskset.heldout"),
            "cannot stand beside taskset.heldout, which names the held-out tasks; remove one of them",
        )
    skip, retire = taskset.curriculum.skip_solved, taskset.curriculum.retire_hopeless
    if skip is not None and retire is not None and retire >= skip:
        yield Finding(
            ("taskset.curriculum.retire_hopeless", "taskset.curriculum.skip_solved"),
            f"{retire:g} must be less than taskset.curriculum.skip_solved ({skip:g})",
        )


CHECKS: tuple[Check, ...] = (
    _clock,
    _groups,
    _taskset,
    _determinism,
    _learning_rate,
    _service,
    _loss,
    _loss_numbers,
)
"""Checks that need nothing but the run file."""
