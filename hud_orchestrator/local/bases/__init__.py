"""Base models that need no download, prepared once into a cache directory."""

from __future__ import annotations

from hud_orchestrator.local.bases.cache import default_cache_dir
from hud_orchestrator.local.bases.catalogue import prepare

__all__ = ["prepare", "default_cache_dir"]
