"""Families of Reasoning Gym as tasks, and their verifiers as graders."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")

from hud_orchestrator.adapters.reasoning_gym import environment, family
from hud_orchestrator.environments.template import TaskRow
from tests.adapters.driving import played

QUICK = ("chain_sum", "isomorphic_strings", "rearc", "propositional_logic", "prime_factorization", "maze")
"""Among them one whose problems depend on the hash seed, one that has tuples, one without an answer of its
own and one whose verifier raises on nonsense."""


async def graded(row: TaskRow, answer: str) -> dict[str, Any]:
    return (await played(environment.__file__, row, answer))[1]


@pytest.mark.parametrize("name", QUICK)
async def test_a_problem_that_travelled_as_json_is_graded_as_its_library_grades_it(name: str) -> None:
    import reasoning_gym

    adapted = family(name, size=2, heldout=1, seed=3)
    row = adapted.train[0]
    travelled = TaskRow(env=row.env, id=row.id, args=json.loads(json.dumps(row.args)), slug=row.slug)
    dataset = reasoning_gym.create_dataset(name, seed=3, size=15)
    item = dataset[int(row.slug.rpartition("-")[2])]

    answer = item["answer"] or "a | b"
    grade = await graded(travelled, answer)
    assert grade["score"] == dataset.score_answer(answer, item)
    assert grade["info"]["family"] == name
    if item["answer"] is not None:
        assert grade["score"] == 1
        assert [(s["name"], s["value"]) for s in grade["subscores"]] == [("verifier", 1), ("solved", 1)]


async def test_partial_scores_are_carried() -> None:
    (row,) = family("spell_backward", size=1, heldout=0, min_word_len=8).train
    answer = row.args["item"]["answer"]
    grade = await graded(row, answer[:4] + "####")

    assert 0 < grade["score"] < 1
    assert [s["value"] for s in grade["subscores"]] == [grade["score"], 0]


async def test_a_verifier_that_cannot_read_an_answer_gives_nothing_and_says_why() -> None:
    grade = await graded(family("prime_factorization", size=1, heldout=0).train[0], "no idea")

    assert grade["score"] == 0
    assert grade["info"]["verifier"].startswith("ValueError")


async def test_an_agent_that_was_cut_short_has_solved_nothing() -> None:
    # Some verifiers give a little for any answer, also for none.
    _, grade = await played(environment.__file__, family("countdown", size=1, heldout=0).train[0])

    assert grade["score"] == 0


def test_no_two_tasks_ask_the_same_and_held_out_ones_stay_when_there_are_more() -> None:
    _, train, heldout = family("gcd", size=40, heldout=10, seed=1, max_value=20)
    questions = [row.args["item"]["question"] for row in [*heldout, *train]]

    assert len(set(questions)) == 50
    assert family("gcd", size=60, heldout=10, seed=1, max_value=20).heldout == heldout
    assert family("gcd", size=40, heldout=10, seed=2, max_value=20).heldout != heldout


async def test_a_prompt_of_ones_own_is_asked_and_an_answer_is_looked_for() -> None:
    common: dict[str, Any] = {"size": 1, "heldout": 0, "max_terms": 2, "max_digits": 1}
    as_text = family("chain_sum", prompt="{expression} = ?", extract=r"<a>(.*?)</a>", **common).train[0]
    as_function = family("chain_sum", prompt=lambda item: item["question"].upper(), **common).train[0]

    answer = as_text.args["item"]["answer"]
    heard, grade = await played(environment.__file__, as_text, f"<a>1000</a> no: <a>{answer}</a>")
    assert heard == [f"{as_text.args['item']['metadata']['expression']} = ?"]
    assert grade["score"] == 1
    assert (await graded(as_text, answer))["score"] == 0
    heard, _ = await played(environment.__file__, as_function)
    assert heard[0].startswith("STATE THE FINAL ANSWER")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("chain_sm", {}, "did you mean 'chain_sum'"),
        ("composite", {}, "no family 'composite'"),
        ("chain_sum", {"max_trms": 3}, "max_trms"),
        ("chain_sum", {"min_terms": 9, "max_terms": 3}, "does not take these options"),
        ("chain_sum", {"prompt": "{nope}"}, "there are: difficulty, expression"),
        ("gcd", {"max_value": 2}, "has only 4 different problems"),
        ("chain_sum", {"size": 0}, "size is 0"),
    ],
)
def test_what_cannot_be_asked_for_is_said(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        family(name, **options)


def test_a_library_that_is_not_there_names_its_extra() -> None:
    code = (
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from hud_orchestrator.adapters.reasoning_gym import family\n"
        "family('chain_sum')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "pip install 'hud-orchestrator[reasoning-gym]'" in done.stderr
