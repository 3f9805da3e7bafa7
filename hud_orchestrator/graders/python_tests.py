"""Unit tests as a grader: what share of them passes, in a process of its own with limits."""

from __future__ import annotations

import ast
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hud_orchestrator.environments.template import EvaluationResult, SubScore
from hud_orchestrator.graders.confined import Ended, Limits, run_confined

PROCESS = Path(__file__).with_name("test_process.py")
FIRST_COLUMNS = 200
"""Of what a failing test says."""


@dataclass(frozen=True, slots=True)
class _Result:
    passed: bool
    said: str


async def unit_tests(
    tests: str,
    files: Mapping[str, str],
    *,
    limits: Limits | None = None,
    test_s: float = 5.0,
) -> EvaluationResult:
    """The share of *tests* that pass against *files*, a subscore for each test.

    The files are written into a directory that is gone afterwards, and are there to be imported; the tests
    are not in it. Every test runs in a process of its own, so that one which ends it, or hangs, fails alone.
    How many there are is read from the source of the tests: a test that says nothing has failed. Still, tests
    and tested code share an interpreter, and code that looks for it on purpose can find out how a pass is
    reported.

    Args:
        tests: Python source with functions called ``test_*``, and classes with such methods, of
            ``unittest.TestCase`` or plain ones.
        files: text by path, ``{"solution.py": answer}``.
        limits: what all tests together may use; left out, the defaults.
        test_s: seconds for one test.

    Returns:
        The grade; ``info`` has ``passed``, ``total``, ``timed_out``, and ``held``: what the kernel granted of
        the confinement, see :class:`~hud_orchestrator.graders.confined.Ended`.

    Raises:
        ValueError: *tests* is not Python or has no test, or a path leaves the directory.
        OSError: there is no process to be had.
    """
    names = list(_names(tests))
    if not names:
        raise ValueError("the tests have no test: a function called test_..., or a class with such a method")
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="hud-tests-", ignore_cleanup_errors=True) as place:
        directory = Path(place)
        _write(directory, files)
        given = {"tests": tests, "names": names, "token": token, "test_s": test_s}
        ended = await run_confined(
            [sys.executable, "-I", "-B", str(PROCESS)],
            directory=directory,
            limits=limits,
            stdin=json.dumps(given).encode(),
            readable=[PROCESS],
        )
    return _grade(names, _results(ended, token), ended)


def _names(tests: str) -> Iterator[str]:
    try:
        module = ast.parse(tests)
    except SyntaxError as error:
        raise ValueError(f"the tests are not Python: {error}") from error
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in module.body:
        if isinstance(node, functions) and node.name.startswith("test_"):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, functions) and inner.name.startswith("test_"):
                    yield f"{node.name}.{inner.name}"


def _write(directory: Path, files: Mapping[str, str]) -> None:
    directory = directory.resolve()
    for name, text in files.items():
        path = (directory / name).resolve()
        if directory not in path.parents:
            raise ValueError(f"{name!r} is not a path inside the directory of the tests")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")


def _results(ended: Ended, token: str) -> dict[str, _Result]:
    results: dict[str, _Result] = {}
    for line in ended.stdout.splitlines():
        if line.startswith(token):
            name, passed, said = json.loads(line.removeprefix(token))
            results[name] = _Result(passed, said)
    return results


def _grade(names: list[str], results: Mapping[str, _Result], ended: Ended) -> EvaluationResult:
    silence = _Result(False, "it did not end" if ended.timed_out else "it said nothing")
    scores = [
        SubScore(
            name=name,
            value=float(result.passed),
            info=None if result.passed else {"said": result.said[:FIRST_COLUMNS]},
        )
        for name, result in ((name, results.get(name, silence)) for name in names)
    ]
    passed = sum(score.value > 0 for score in scores)
    return EvaluationResult(
        reward=passed / len(names),
        content=f"{passed} of {len(names)} tests pass",
        info={
            "passed": passed,
            "total": len(names),
            "timed_out": ended.timed_out,
            "held": list(ended.held),
        },
        subscores=scores,
    )
