"""Every example of the documentation does what it says, on a fresh fork of the embedded service."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import jsonschema_rs
import pytest
import yaml

from hud_orchestrator.config.json_schema import json_schema
from hud_orchestrator.config.load import load
from tests.docs.blocks import KINDS, Block, blocks, pages

ROOT = Path(__file__).parents[2]
SDK = ROOT / ".venv-interop" / "bin"
LOOPBACK = ROOT / "tests" / "interop" / "loopback"
EXECUTABLE = {page.name: page for page in pages() if any(block.kind for block in blocks(page))}

BESIDE = ("tasks.py", "adder.yaml", "my_losses.py")
"""Files of the guide that other pages rest on."""


class Reader:
    """Somebody who does what a page says, in a directory of their own."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self.environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self.namespace: dict[str, Any] = {}

    async def do(self, block: Block) -> None:
        if block.kind == "file":
            self.write(block)
        elif block.kind == "over":
            self.lay_over(block)
        elif block.kind in ("run", "continue", "run with") and block.language == "python":
            await self.python(block)
        elif block.kind in ("run", "run with"):
            await self.bash(block, Path(sys.executable).parent)
        elif block.kind == "sdk":
            await self.bash(block, SDK)

    def write(self, block: Block) -> None:
        path = self.directory / block.word
        path.write_text(block.text)
        if block.language == "yaml":
            check(path, block.where)

    def lay_over(self, block: Block) -> None:
        values = yaml.safe_load((self.directory / block.word).read_text())
        for name, part in yaml.safe_load(block.text).items():
            values[name] = {**values.get(name, {}), **part} if isinstance(part, dict) else part
        path = self.directory / f"over-{block.word}"
        path.write_text(yaml.safe_dump(values))
        check(path, block.where)

    async def python(self, block: Block) -> None:
        if block.kind == "run":
            self.namespace = {"__name__": "example"}
        code = compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, self.namespace)
        if inspect.iscoroutine(result):
            with anyio.fail_after(120):
                await result

    async def bash(self, block: Block, bin_directory: Path) -> None:
        script = block.text.rstrip() + (f" {block.word}" if block.kind == "run with" else "")
        environ = {**self.environ, "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}"}
        with anyio.fail_after(180):
            done = await anyio.run_process(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.directory, env=environ, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"{block.where}\n{done.stdout.decode()}"


def check(path: Path, where: str) -> None:
    """A run file is one to ``validate``, without a warning, and to the JSON Schema that editors use."""
    assert load(path).warnings == (), where
    validator = jsonschema_rs.validator_for(json_schema())
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == [], where


@pytest.fixture
def reader(tmp_path: Path, served: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader beside a service: its addresses are in ``local.env`` and in the environment."""
    addresses = {name: value for name, value in served.items() if name.startswith("HUD_")}
    (tmp_path / "local.env").write_text("".join(f"{name}={value}\n" for name, value in addresses.items()))
    for name, value in addresses.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Reader(tmp_path, served)
    # The next page's modules have the same names.
    for name in [Path(name).stem for name in BESIDE if name.endswith(".py")]:
        sys.modules.pop(name, None)


def beside() -> list[Block]:
    return [block for block in blocks(EXECUTABLE["train-on-rewards.md"]) if block.word in BESIDE]


@pytest.mark.parametrize("page", EXECUTABLE)
async def test_the_examples_of_a_page_work_in_their_order(page: str, reader: Reader) -> None:
    todo = blocks(EXECUTABLE[page])
    if any(block.kind == "sdk" for block in todo):
        if not (SDK / "hud").exists():
            pytest.skip("the hud SDK is not set up; make interop does it")
        guard = {"INTEROP_ESCAPES": str(reader.directory / "escapes"), "PYTHONPATH": str(LOOPBACK)}
        reader.environ |= guard | {"HUD_CLI_ANALYTICS_ENABLED": "false", "HUD_SKIP_VERSION_CHECK": "1"}
    for block in beside():
        await reader.do(block)

    for block in todo:
        await reader.do(block)

    assert not (reader.directory / "escapes").exists()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_block_says_how_it_is_run(page: Path) -> None:
    found = blocks(page)

    assert page.read_text().count("```") == 2 * len(found), "a fence is indented, or is not closed"
    assert [block.where for block in found if block.kind not in KINDS.get(block.language, set())] == []
    assert [block.where for block in found if block.kind == "file" and block.title != block.word] == []
    assert [block.where for block in found if block.kind in ("skip", "file", "over") and not block.word] == []
