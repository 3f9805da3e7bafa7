"""``python -m hud_orchestrator.local.bases NAME``: prepare a base model and print its directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases import default_cache_dir, prepare


def main() -> int:
    """Read the command line, prepare the model, print where it is."""
    parser = argparse.ArgumentParser(prog="python -m hud_orchestrator.local.bases", description=__doc__)
    parser.add_argument("name", help="tiny, smollm2-135m or a directory")
    parser.add_argument("--seed", type=int, default=0, help="seed of the warm start of tiny")
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    arguments = parser.parse_args()
    try:
        directory = prepare(arguments.name, cache_dir=arguments.cache_dir, seed=arguments.seed)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{directory}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
