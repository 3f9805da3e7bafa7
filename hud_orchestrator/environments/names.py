"""The names of the environments that a file defines: ``python -m hud_orchestrator.environments.names FILE``.

Importing somebody's file runs it, so a service that must not go down with it asks a process of its own.
Prints a JSON list, or ``{"mistake": ...}``. Standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hud_orchestrator.environments.source import SourceMistake, import_file
from hud_orchestrator.environments.template import Environment


def main() -> None:
    """Import the file that the command line names."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        found = vars(import_file(Path(sys.argv[1]))).values()
        said: object = sorted({one.name for one in found if isinstance(one, Environment)})
    except SourceMistake as mistake:
        said = {"mistake": str(mistake)}
    out.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
