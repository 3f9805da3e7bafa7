"""Problems of a family, as tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from hud_orchestrator.adapters.adapted import Adapted, frozen, library
from hud_orchestrator.adapters.reasoning_gym.environment import env, problem
from hud_orchestrator.environments.template import TaskRow

Item = dict[str, Any]
Prompt = str | Callable[[Item], str]

TRIES = 5
"""Problems that are looked at for each one that is wanted, before a family is taken for exhausted."""


def family(
    name: str,
    *,
    size: int = 500,
    heldout: int = 96,
    seed: int = 0,
    prompt: Prompt | None = None,
    extract: str = "",
    **options: Any,
) -> Adapted:
    """The environment and the tasks of a family. No two tasks ask the same, so held-out ones stay unseen.

    Args:
        name: the family, as ``reasoning_gym.factory.DATASETS`` has it.
        size: tasks to train on.
        heldout: tasks kept for evaluation: the first ones of the seed, whatever *size* is.
        seed: of the problems.
        prompt: what is asked in place of the library's question: a function of the item, or a text with
            ``{question}`` and the names of the item's metadata in braces, ``"{expression}="``.
        extract: a pattern that finds the answer in what was said; the last match counts, and its group if it
            has one. Nothing found is worth nothing.
        options: of the family: what its ``Config`` class takes, ``max_terms=2``.

    Raises:
        ValueError: there is no such family or option, or not enough different problems.
        ModuleNotFoundError: Reasoning Gym is not installed.
    """
    if size < 1 or heldout < 0:
        raise ValueError(f"size is {size} and heldout is {heldout}; expected at least 1 and 0")
    re.compile(extract)
    wanted = size + heldout
    rows: list[TaskRow] = []
    asked: set[str] = set()
    for index, item in enumerate(_items(name, options, seed=seed, tries=TRIES * wanted)):
        text = _rendered(prompt, item)
        if text in asked:
            continue
        asked.add(text)
        rows.append(_row(name, item, text, extract, options, slug=f"{name}-{seed}-{index}"))
        if len(rows) == wanted:
            return Adapted(env, rows[heldout:], rows[:heldout])
    raise ValueError(
        f"{name} has only {len(rows)} different problems among {TRIES * wanted} with these options; "
        f"{size} and {heldout} held out are too many"
    )


def _items(name: str, options: Item, *, seed: int, tries: int) -> Iterator[Item]:
    gym = library("reasoning_gym", extra="reasoning-gym")
    families = sorted(library("reasoning_gym.factory", extra="reasoning-gym").DATASETS)
    if name not in families or name == "composite":
        close = get_close_matches(name, families, n=1)
        advice = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(families)}"
        raise ValueError(f"there is no family {name!r}{advice}")
    try:
        dataset = gym.create_dataset(name, seed=seed, size=tries, **options)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"{name} does not take these options: {error}") from error
    return (dataset[index] for index in range(tries))


def _rendered(prompt: Prompt | None, item: Item) -> str:
    if prompt is None:
        return str(item["question"])
    if not isinstance(prompt, str):
        return prompt(item)
    fields = {**item["metadata"], "question": item["question"]}
    try:
        return prompt.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"prompt {prompt!r}: {error!r}; there are: {', '.join(sorted(fields))}") from error


def _row(name: str, item: Item, text: str, extract: str, options: Item, *, slug: str) -> TaskRow:
    args: dict[str, Any] = {"family": name, "item": frozen(item)}
    # What is as it always is need not travel with every row.
    args |= {} if text == item["question"] else {"prompt": text}
    args |= {"extract": extract} if extract else {}
    args |= {"options": frozen(options)} if options else {}
    return TaskRow(env=env.name, id=problem.id, args=args, slug=slug, columns={"family": name})
