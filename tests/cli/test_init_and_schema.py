"""``init`` writes a run file that works as it is and explains itself; ``schema`` describes every key."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hud_orchestrator.config.fields import leaves
from hud_orchestrator.config.load import load
from hud_orchestrator.config.run import RunFile

Shell = Callable[..., "subprocess.CompletedProcess[str]"]

KEYS = dict(leaves(RunFile))


def test_what_init_writes_is_valid_as_it_is(hud_orchestrate: Shell) -> None:
    assert hud_orchestrate("init").returncode == 0

    done = hud_orchestrate("validate", "run.yaml")

    assert (done.returncode, done.stderr) == (0, "")


def test_init_writes_tasks_that_can_be_loaded(hud_orchestrate: Shell, work: Path) -> None:
    from hud_orchestrator.tasksets.files import load_path

    hud_orchestrate("init", "deep/er/my.yaml")
    train, heldout = (load_path(work / "deep/er/tasks.py", member=name) for name in ("train", "heldout"))

    assert len(train) + len(heldout) == 900
    assert not {task.slug for task in train} & {task.slug for task in heldout}
    assert hud_orchestrate("validate", "deep/er/my.yaml").returncode == 0


def test_every_key_is_in_the_run_file_with_its_default_and_its_meaning(
    hud_orchestrate: Shell, work: Path
) -> None:
    hud_orchestrate("init")
    text = (work / "run.yaml").read_text()
    (work / "run.yaml").write_text(re.sub(r"(?m)^( *)#(\w)", r"\1\2", text))

    loaded = load(work / "run.yaml")

    assert {key for key, origin in loaded.origins.items() if origin == "default"} == set()
    words = " ".join(re.sub(r"(?m)^ *# ", "", text).split())
    assert [key for key, info in KEYS.items() if meaning(info.description) not in words] == []


def meaning(description: str | None) -> str:
    assert description, "every key has a docstring"
    return " ".join(description.replace("``", "`").split())


def test_taking_the_comments_away_changes_nothing(hud_orchestrate: Shell, work: Path) -> None:
    hud_orchestrate("init")
    text = (work / "run.yaml").read_text()
    before = load(work / "run.yaml").run
    (work / "run.yaml").write_text(re.sub(r"(?m)^( *)#(\w)", r"\1\2", text))

    assert load(work / "run.yaml").run == before


def test_init_replaces_a_run_file_only_with_force(hud_orchestrate: Shell, work: Path) -> None:
    (work / "run.yaml").write_text("mine")

    done = hud_orchestrate("init")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "run.yaml: is there already; choose another name, or replace it with --force\n"
    assert (work / "run.yaml").read_text() == "mine"
    assert not (work / "tasks.py").exists()
    assert hud_orchestrate("init", "--force").returncode == 0
    assert (work / "run.yaml").read_text() != "mine"


def test_init_never_replaces_tasks(hud_orchestrate: Shell, work: Path) -> None:
    (work / "tasks.py").write_text("mine")

    done = hud_orchestrate("init")

    assert done.returncode == 2
    assert done.stderr.startswith("tasks.py: is there already")
    assert not (work / "run.yaml").exists()
    assert hud_orchestrate("init", "--force").returncode == 0
    assert (work / "tasks.py").read_text() == "mine"


def test_init_may_write_a_second_run_file_for_the_same_tasks(hud_orchestrate: Shell) -> None:
    assert [hud_orchestrate("init", name).returncode for name in ("a.yaml", "b.yaml")] == [0, 0]


@pytest.mark.parametrize(("path", "code"), [(".", 2), ("tasks.py", 2), ("file/run.yaml", 74)])
def test_init_says_in_one_line_why_it_cannot_write(
    hud_orchestrate: Shell, work: Path, path: str, code: int
) -> None:
    (work / "file").write_text("")

    done = hud_orchestrate("init", path)

    assert done.returncode == code
    assert done.stderr.count("\n") == 1


def properties(schema: dict[str, Any], part: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Dotted keys of a schema, with what it says about each."""
    found = {}
    for name, inner in part["properties"].items():
        choices = [inner, *inner.get("anyOf", [])]
        reference = next((choice["$ref"] for choice in choices if "$ref" in choice), None)
        if reference is None:
            found[prefix + name] = inner
        else:
            found |= properties(schema, schema["$defs"][reference.rpartition("/")[2]], f"{prefix}{name}.")
    return found


def test_the_schema_describes_every_key_and_no_other(hud_orchestrate: Shell) -> None:
    schema = json.loads(hud_orchestrate("schema").stdout)
    found = properties(schema, schema)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found.keys() == KEYS.keys()
    assert [key for key, part in found.items() if not part.get("description")] == []
    assert [part for part in (schema, *schema["$defs"].values()) if part["additionalProperties"]] == []
