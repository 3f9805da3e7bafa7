"""Which base models there are, and where each is found or built."""

from __future__ import annotations

from pathlib import Path

from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases.cache import built_once

TINY_VERSION, SMOLLM2_VERSION = 4, 1
"""Go up with every change of the weights, so that a cache does not serve the old ones."""


def prepare(base: str, *, cache_dir: Path, seed: int) -> Path:
    """Return a directory that transformers loads with plain ``from_pretrained``.

    Args:
        base: a bundled model, built into *cache_dir* when it is asked for the first time (``tiny``
            and ``smollm2-135m``: 10 to 20 s), or a directory with a ``config.json``.
        cache_dir: where bundled models are kept; see :func:`default_cache_dir`.
        seed: seed of the warm start of ``tiny``; the other bases have none.

    Raises:
        ConfigError: *base* is none of these, or the package that carries it is not installed.
    """
    if base == "tiny":
        return built_once(cache_dir / f"tiny-{TINY_VERSION}-{seed}", lambda at: _build_tiny(at, seed))
    if base == "smollm2-135m":
        return built_once(cache_dir / f"smollm2-135m-{SMOLLM2_VERSION}", _build_smollm2)
    directory = Path(base)
    if not (directory / "config.json").is_file():
        bundled = " or ".join(BUNDLED_CONTEXT)
        raise ConfigError(f"model.base {base!r} is neither {bundled} nor a directory with a config.json")
    return directory


# The builders import torch and transformers, seconds of work that a model which is there does not need.


def _build_tiny(directory: Path, seed: int) -> None:
    from hud_orchestrator.local.bases.tiny import build_tiny

    build_tiny(directory, seed=seed)


def _build_smollm2(directory: Path) -> None:
    from hud_orchestrator.local.bases.smollm2 import build_smollm2

    build_smollm2(directory)
