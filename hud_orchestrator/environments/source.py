"""Import a user's ``.py`` file and find what it defines. Standard library only."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from hud_orchestrator.environments.template import Environment


class SourceMistake(Exception):
    """The file cannot be imported, or does not define what is asked for."""


def import_file(path: Path) -> ModuleType:
    """Import *path* once; modules beside it can be imported by their names.

    Raises:
        SourceMistake: importing it raised.
    """
    path = path.resolve()
    name = f"_user_{path.stem}_{hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SourceMistake(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SourceMistake(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module


def environments(path: Path) -> dict[str, Environment]:
    """Environments that the file defines at module level, by name."""
    found = {e.name: e for e in vars(import_file(path)).values() if isinstance(e, Environment)}
    if not found:
        raise SourceMistake(f"{path}: defines no Environment at module level")
    return found
