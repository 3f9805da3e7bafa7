"""Run the tests of this directory: ``python -m tests.interop [pytest's arguments]``.

::

    .venv          this launcher, and ``hud-orchestrate serve``
    .venv-interop  pytest with the released hud SDK, in a process of its own

The service runs in a process of its own because the SDK makes blocking calls on its event loop, and the
tests because the SDK reads its addresses once, when it is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
DROPPED = re.compile("^HUD_|_proxy$", re.IGNORECASE)
"""Variables that would lead the SDK elsewhere."""
SDK_PYTHON = HERE.parents[1] / ".venv-interop" / "bin" / "python"


def main(arguments: list[str]) -> int:
    """Serve, run pytest against it, and say whether anything left this machine."""
    with tempfile.TemporaryDirectory(prefix="interop-") as name:
        directory = Path(name)
        escapes = directory / "escapes"
        with served(directory) as environ:
            command = [str(SDK_PYTHON), "-m", "pytest", "-c", str(HERE / "pytest.ini")]
            # pytest runs elsewhere, so that no .env file of the developer's is near.
            given = [str(Path(one).resolve()) if one.startswith("tests/") else one for one in arguments]
            if not any(one.startswith("tests/") for one in arguments):
                given.append(str(HERE))
            tested = subprocess.run(
                [*command, "--basetemp", str(directory / "tests"), *given],
                env={
                    **environ,
                    "INTEROP_ESCAPES": str(escapes),
                    "INTEROP_OURS": sys.executable,
                    "PYTHONPATH": str(HERE / "loopback"),
                },
                cwd=directory,
                check=False,
            )
        if tested.returncode:
            print(
                "the service's log is in",
                shutil.copy(directory / "log", tempfile.gettempdir() + "/interop.log"),
            )
        if escapes.exists():
            print(f"addresses outside this machine were tried:\n{escapes.read_text()}")
            return 1
        return tested.returncode


@contextmanager
def served(directory: Path) -> Iterator[dict[str, str]]:
    """The embedded service; the environment in which the SDK finds it, and nothing of the developer's."""
    env_file = directory / "service.env"
    home = directory / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not DROPPED.search(name)}
    environ = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(directory / "cache")}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("hud-orchestrate"), "serve", "--port", "0",
             "--state", directory / "state", "--env-file", env_file, "--environments", HERE / "hosted"],
            env=environ, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        with process:
            try:
                if "listening" not in process.stdout.readline():
                    raise SystemExit((directory / "log").read_text())
                yield {
                    **environ,
                    **dict(line.split("=", 1) for line in env_file.read_text().splitlines()),
                    "HUD_CLI_ANALYTICS_ENABLED": "false",
                    "HUD_SKIP_VERSION_CHECK": "1",
                }
            finally:
                process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
