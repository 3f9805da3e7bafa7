"""Graders that look at an answer's text, and grades that are made of several."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from hud_orchestrator import EvaluationResult, SubScore
from hud_orchestrator.graders import exact, json_schema, numeric, regex, weighted


def test_exact_forgives_what_it_is_told_to_and_no_more() -> None:
    assert exact(" Paris\n", "Paris") == 1
    assert exact(" Paris\n", "Paris", strip=False) == 0
    assert exact("PARIS", "paris") == 0
    assert exact("STRASSE", "stra\u00dfe", ignore_case=True) == 1
    assert exact("", "") == 1
    assert exact(None, "") == 0


@pytest.mark.parametrize(
    ("answer", "expected", "worth"),
    [
        ("The answer is 1,234.5.", 1234.5, 1),
        ("first 3, then 4", 4, 1),
        ("first 3, then 4", 3, 0),
        ("3-5", 5, 1),
        ("x = -5", -5, 1),
        ("\u22125", -5, 1),
        ("(-5)", -5, 1),
        ("6.02e23 of them", 6.02e23, 1),
        ("$42, that is 7%", 7, 1),
        (".5", 0.5, 1),
        ("42kg", 42, 0),
        ("3.14", 3.14159, 0),
        ("nan", 0, 0),
        ("no idea", 0, 0),
        (None, 0, 0),
    ],
)
def test_a_number_is_found_in_its_sentence(answer: str | None, expected: float, worth: float) -> None:
    assert numeric(answer, expected) == worth


def test_a_number_may_be_off_by_as_much_as_is_allowed() -> None:
    assert numeric("3.14", 3.14159, absolute=0.01) == 1
    assert numeric("3.14", 3.14159, relative=1e-3) == 1
    assert numeric("3.14", 3.14159, relative=1e-4, absolute=1e-3) == 0
    assert numeric("0.3", "0.3", relative=0) == 1
    assert numeric(str(10**20 + 1), 10**20, relative=0) == 0
    assert numeric("1 or 2", 2, which="only") == 0
    assert numeric("1 or 2", 1, which="first") == 1
    with pytest.raises(ValueError, match="not a finite number"):
        numeric("1", float("inf"))


def test_a_pattern_is_searched_for_or_matches_whole() -> None:
    assert regex("well, YES.", r"(?i)\byes\b") == 1
    assert regex("well, yes.", "yes", whole=True) == 0
    assert regex(None, "") == 0


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"age": {"type": "number", "minimum": 0}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "worth"),
    [('{"age": 3}', 1), ('{"age": -3}', 0), ('{"age": NaN}', 0), ('{"age": 3} ok', 0), ("", 0), (None, 0)],
)
def test_an_answer_is_json_of_the_schema(answer: str | None, worth: float) -> None:
    assert json_schema(answer, SCHEMA) == worth


def test_a_schema_that_is_none_is_the_authors_mistake_and_no_score() -> None:
    import jsonschema

    with pytest.raises(jsonschema.SchemaError):
        json_schema("{}", {"type": "thing"})


def test_parts_make_a_weighted_mean_with_a_subscore_each() -> None:
    inner = EvaluationResult(reward=0.5, subscores=[SubScore(name="a", value=0.5)], info={"k": 1})
    grade = weighted({"right": 1.0, "style": inner, "length": 0.0}, {"right": 2, "length": 0})

    assert grade.reward == pytest.approx(2.5 / 3)
    assert grade.subscores == [
        SubScore(name="right", value=1.0, weight=2.0),
        SubScore(name="style", value=0.5, weight=1.0, info={"k": 1, "subscores": {"a": 0.5}}),
        SubScore(name="length", value=0.0, weight=0.0),
    ]
    assert weighted(dict.fromkeys("abc", 1.0), {"a": 0.1, "b": 0.2, "c": 0.7}).reward == 1.0


def test_a_part_that_reports_an_error_makes_the_grade_report_one() -> None:
    grade = weighted({"right": 1.0, "judge": EvaluationResult(isError=True)})

    assert grade.isError
    assert grade.content == "graders failed: judge"


@pytest.mark.parametrize(
    ("parts", "weights", "words"),
    [
        ({"a": 1.5}, None, "score of a is 1.5"),
        ({"a": float("nan")}, None, "score of a is nan"),
        ({"a": 1.0}, {"a": -1}, "weight of a is -1"),
        ({"a": 1.0}, {"b": 1}, r"weights for \['b'\]"),
        ({"a": 1.0}, {"a": 0}, "no part"),
        ({}, None, "no part"),
    ],
)
def test_scores_and_weights_that_make_no_grade_are_refused(
    parts: dict[str, float], weights: dict[str, float] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        weighted(parts, weights)


def test_an_environment_that_uses_graders_starts_without_heavy_imports() -> None:
    code = "import sys, hud_orchestrator.graders; print(*(m.split('.')[0] for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"pydantic", "httpx", "anyio", "aiohttp", "jsonschema", "structlog"} & set(loaded)
