"""What somebody probably meant by a key or a word that does not exist."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from hud_orchestrator.config.fields import leaves
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.section import Section

_SECRET = re.compile(r"api_?key|token|secret|passw|credential|auth|private_?key|bearer", re.IGNORECASE)

_CALLED_ELSEWHERE = {
    "batch_size": "rollout.groups_per_step",
    "epochs": "run.steps",
    "lr": "trainer.learning_rate.peak",
    "max_concurrent": "rollout.concurrency",
    "max_new_tokens": "agent.max_tokens",
    "max_off_policy_steps": "pipeline.staleness",
    "max_steps": "run.steps",
    "num_generations": "rollout.group_size",
    "num_steps": "run.steps",
    "tasks": "taskset.train",
    "timeout": "rollout.deadline_s",
    "timeout_s": "rollout.deadline_s",
    "total_steps": "run.steps",
}
"""Names of other trainers for keys of this one."""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Find the one of *words* that is spelled most like *word*, if any is close."""
    found = difflib.get_close_matches(word.lower().replace("-", "_"), list(words), n=1, cutoff=0.7)
    return found[0] if found else None


def suggestion(word: str, words: Iterable[str]) -> str:
    """Write ``; did you mean "ppo"?`` or nothing."""
    found = nearest(word, words)
    return f'; did you mean "{found}"?' if found else ""


def unknown_key(key: str, section: type[Section]) -> str:
    """Write the whole text about *key*, which *section* does not have."""
    keys = list(section.model_fields)
    if found := nearest(key, keys):
        advice = f'did you mean "{found}"?'
    elif belongs := _elsewhere(key):
        advice = belongs
    elif _SECRET.search(key):
        return (
            "unknown key, and no secret belongs in a run file: HUD_API_KEY is read from the process "
            "environment, .env or ~/.hud/.env; remove it here"
        )
    else:
        advice = "remove it"
    return f"unknown key; the keys here are {', '.join(keys)}; {advice}"


def _elsewhere(key: str) -> str:
    every = [*_sections(RunFile), *(dotted for dotted, _ in leaves(RunFile))]
    exact = [dotted for dotted in every if dotted.rpartition(".")[2] == key]
    if exact:
        return "it belongs in " + " or ".join(
            dotted.rpartition(".")[0] or "the top of the file" for dotted in exact
        )
    if key in _CALLED_ELSEWHERE:
        return f'here it is called "{_CALLED_ELSEWHERE[key]}"'
    near = nearest(key, {dotted.rpartition(".")[2] for dotted in every})
    meant = [dotted for dotted in every if dotted.rpartition(".")[2] == near]
    return f'did you mean "{meant[0]}"?' if meant else ""


def _sections(section: type[Section], prefix: str = "") -> list[str]:
    """Dotted names of the sections inside *section*."""
    names: list[str] = []
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            names += [prefix + name, *_sections(info.annotation, f"{prefix}{name}.")]
    return names
