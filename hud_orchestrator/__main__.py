"""``python -m hud_orchestrator`` is ``hud-orchestrate``."""

from __future__ import annotations

import sys

from hud_orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
