"""Source texts of task libraries: ``reasoning-gym:chain_sum?size=500&max_terms=3``.

    LIBRARY : NAME ? OPTION=VALUE & ...

The options are the arguments of the adapter's function, with values in YAML; ``part=heldout`` chooses the
tasks that are kept for evaluation.
"""

from __future__ import annotations

import importlib
from typing import Any

import yaml

from hud_orchestrator.adapters.adapted import Adapted
from hud_orchestrator.config.sources import LIBRARIES
from hud_orchestrator.environments.template import TaskRow
from hud_orchestrator.errors import ConfigError

FUNCTIONS = {
    "reasoning-gym": "reasoning_gym:family",
    "textarena": "textarena:game",
    "gymnasium": "gymnasium:game",
    "verifiers": "verifiers:taskset",
}
"""The function of each library, by module and name."""

assert FUNCTIONS.keys() == LIBRARIES.keys()


def named_rows(text: str) -> list[TaskRow]:
    """The tasks that a source text names.

    Raises:
        ConfigError: the text is wrong, the library is not installed, or it has nothing of that name.
    """
    library, name, options = _parts(text)
    part = options.pop("part", "train")
    if part not in ("train", "heldout"):
        raise ConfigError(f"{text}: part is {part!r}, expected train or heldout")
    module, _, function = FUNCTIONS[library].partition(":")
    adapter = getattr(importlib.import_module(f"hud_orchestrator.adapters.{module}"), function)
    try:
        adapted: Adapted = adapter(name, **options)
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        raise ConfigError(f"{text}: {error}") from error
    return adapted.train if part == "train" else adapted.heldout


def _parts(text: str) -> tuple[str, str, dict[str, Any]]:
    library, _, rest = text.partition(":")
    name, _, query = rest.partition("?")
    options: dict[str, Any] = {}
    for option in query.split("&") if query else ():
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{text}: {option!r} is no option; options look like size=500&seed=1")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text}: the value of {key} is not YAML: {value!r}") from error
    return library, name, options
