"""Which base models there are, and where each is found or built."""

from __future__ import annotations

import functools
from pathlib import Path

from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases.cache import built_once


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
    # The builders import torch and transformers, seconds of work that a cached model does not need.
    if base == "tiny":
        from hud_orchestrator.local.bases import tiny

        build = functools.partial(tiny.build_tiny, seed=seed)
        return built_once(cache_dir / f"tiny-{tiny.VERSION}-{seed}", build)
    if base == "smollm2-135m":
        from hud_orchestrator.local.bases import smollm2

        return built_once(cache_dir / f"smollm2-135m-{smollm2.VERSION}", smollm2.build_smollm2)
    directory = Path(base)
    if not (directory / "config.json").is_file():
        bundled = " or ".join(BUNDLED_CONTEXT)
        raise ConfigError(f"model.base {base!r} is neither {bundled} nor a directory with a config.json")
    return directory
