"""A few of the requests that ``make fuzz`` sends, always the same ones."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.__main__ import fuzz
from tests.fuzz.service import serving


def test_a_few_made_up_requests_find_nothing(
    environ: dict[str, str], cache_home: Path, tmp_path: Path
) -> None:
    options = ["--phases", "fuzzing", "--max-examples", "12", "--generation-deterministic", "--no-shrink"]

    with serving(tmp_path, cache=cache_home, environ=environ) as service:
        code, tally = fuzz(service, options)

    assert code == 0, "the failures are in the captured output, each with a command that repeats it"
    assert [operation for operation, replies in tally.items() if "200" not in replies] == []
