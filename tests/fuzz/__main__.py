"""Send a real service what its OpenAPI document allows and forbids, and check every reply against it.

FUZZ_SECONDS=300 FUZZ_SEED=1 python -m tests.fuzz [options of `schemathesis run`]
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.service import serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main(options: list[str]) -> int:
    """0 when nothing was found, and every operation has succeeded at least once."""
    seconds = os.environ.get("FUZZ_SECONDS", "300")
    seed = os.environ.get("FUZZ_SEED") or str(random.randrange(2**31))
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as service:
        code, tally = fuzz(service, ["--max-time", seconds, "--seed", seed, *options])
        log = Path(service["log"]).read_text()
    for operation, replies in sorted(tally.items()):
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(replies.items()))
        print(f"{operation:50} {counts}")
    for line in (line for line in log.splitlines() if "Traceback" in line or "request.failed" in line):
        print("in the service's log:", line[:2000])
    unreached = [operation for operation, replies in tally.items() if "200" not in replies]
    if unreached:
        print("never answered 200, so hardly tested:", ", ".join(unreached))
    return code or int(bool(unreached) or "Traceback" in log)


def fuzz(service: dict[str, str], options: list[str]) -> tuple[int, dict[str, dict[str, int]]]:
    """Run Schemathesis on a service: its exit code, and its replies by operation and status."""
    command = [str(Path(sys.executable).with_name("schemathesis"))]
    command += ["--config-file", str(HERE / "schemathesis.toml"), "run", f"{service['url']}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {service['key']}", "--checks", "all"]
    # What a schema cannot say is said in a refusal: ids that exist, token ids of the vocabulary, lengths
    # that agree, a gradient to step on. So a body that fits the schema may be refused.
    command += ["--exclude-checks", "positive_data_acceptance", *options]
    tally = Path(service["log"]).with_name("tally.json")
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "FUZZ_URL": service["url"],
        "FUZZ_KEY": service["key"],
        "FUZZ_TALLY": str(tally),
    }
    # It leaves notes where it runs, which have no place in the project.
    code = subprocess.run(command, env=environ, cwd=tally.parent, check=False).returncode
    return code, json.loads(tally.read_text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
