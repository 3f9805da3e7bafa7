"""Read a sentence about a person and reply with exactly the JSON object that was asked for.

The grade is the sum of its parts: a JSON object at all, the right keys, and each right value. People
in the held-out tasks have names and cities that no training task has.
"""

from __future__ import annotations

import json
import random
from typing import Any

from hud_orchestrator import Environment, EvaluationResult, SubScore, TaskRow

NAMES = (
    "Ana Ben Clara David Emma Felix Grace Hugo Iris Jack Karen Leo Maria Noah Olivia Paul Quinn Rosa Sam "
    "Tara Uma Victor Wendy Yara Zoe Adam Bella Carlos Diana Erik"
).split()
CITIES = (
    "Paris Rome Madrid Berlin Oslo Tokyo Lima Cairo London Vienna Dublin Athens Prague Lisbon Delhi Boston "
    "Chicago Denver Seattle Toronto Sydney Nairobi Havana Moscow Warsaw Geneva Milan Naples Austin Dallas"
).split()
NUM_HELD_OUT = 8
"""Names, and cities, that only held-out tasks have."""

PARTS = {"object": 0.25, "keys": 0.25, "name": 1 / 6, "age": 1 / 6, "city": 1 / 6}
"""What each part of the answer is worth."""

env = Environment("extraction")


@env.template()
async def person(name: str, age: int, city: str) -> Any:
    """Extract name, age and city."""
    facts = {"name": name, "age": age, "city": city}
    answer = yield (
        f"{name} is {age} years old and lives in {city}.\n"
        'Reply with only a JSON object with the keys "name", "age" and "city".'
    )
    right = parts(answer or "", facts)
    scores = [SubScore(name=part, value=float(right[part]), weight=PARTS[part]) for part in PARTS]
    yield EvaluationResult(reward=sum(PARTS[part] for part in PARTS if right[part]), subscores=scores)


def parts(answer: str, facts: dict[str, Any]) -> dict[str, bool]:
    """Which parts of *answer* are right."""
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return dict.fromkeys(PARTS, False)
    return {"object": True, "keys": found.keys() == facts.keys()} | {
        k: found.get(k) == facts[k] for k in facts
    }


def _people(names: list[str], cities: list[str], num: int, seed: int) -> list[TaskRow]:
    chance = random.Random(seed)
    rows = {
        row.slug: row
        for row in (
            person(name=chance.choice(names), age=chance.randint(18, 80), city=chance.choice(cities))
            for _ in range(num)
        )
    }
    return list(rows.values())


train = _people(NAMES[NUM_HELD_OUT:], CITIES[NUM_HELD_OUT:], 400, seed=0)
heldout = _people(NAMES[:NUM_HELD_OUT], CITIES[:NUM_HELD_OUT], 48, seed=1)
