"""Games of TextArena and Gymnasium, played by replies that are written down."""

from __future__ import annotations

import random
import re
from typing import Any

import anyio
import pytest

from hud_orchestrator.adapters.chance import Chance
from hud_orchestrator.adapters.moves import last_named
from tests.adapters.driving import played


def arena() -> Any:
    pytest.importorskip("textarena", reason="needs the extra textarena")
    from hud_orchestrator.adapters import textarena

    return textarena


def gym() -> Any:
    pytest.importorskip("gymnasium", reason="needs the extra gymnasium")
    from hud_orchestrator.adapters import gymnasium

    return gymnasium


async def test_a_game_is_won_by_the_moves_that_win_it() -> None:
    textarena = arena()
    row = textarena.game("GuessTheNumber-v0", extract=r"\d+", action="[{move}]").train[0]
    low, high, replies = 1, 20, []
    for _ in range(6):
        guess = (low + high) // 2
        replies.append(f"maybe {guess}?")
        heard, grade = await played(textarena.environment.__file__, row, *replies)
        if grade["info"]["finished"]:
            break
        low, high = (guess + 1, high) if "higher" in heard[-1] else (low, guess - 1)

    assert grade["score"] == 1
    assert grade["info"]["turns"] == len(replies)
    assert grade["info"]["illegal_moves"] == 0
    assert "You are playing Guess The Number" in heard[0]
    assert all("Guess The Number" not in said for said in heard[1:]), "only what is new is said"


async def test_illegal_moves_are_counted_and_a_game_forgives_as_many_as_it_is_told_to() -> None:
    textarena = arena()
    row = textarena.game("GuessTheNumber-v0", illegal_moves=2).train[0]
    heard, grade = await played(textarena.environment.__file__, row, "[1]", "hm", "[1]", "[99]", "[2]")

    assert "invalid move" in heard[2]
    assert grade["info"]["finished"]
    assert (grade["info"]["turns"], grade["info"]["illegal_moves"]) == (4, 3)
    assert grade["subscores"][1] == {"name": "legal", "value": 0.25, "weight": 0, "info": None}


async def test_an_opponent_moves_legally_and_the_same_way_for_every_member_of_a_group() -> None:
    textarena = arena()
    for seat in (0, 1):
        adapted = textarena.game("TicTacToe-v0", opponent="random", seat=seat, prompt="Three in a row.")
        for row in adapted.train[:5]:
            heard, replies = ["[0]"], []
            grade: dict[str, Any] = {"info": {"finished": False}}
            while not grade["info"]["finished"]:
                heard, grade = await played(textarena.environment.__file__, row, *replies)
                free = re.findall(r"'(\[\d\])'", heard[-1].rpartition("Available Moves")[2])
                replies.append(free[0] if free else "")
            again = await played(textarena.environment.__file__, row, *replies)

            assert again == (heard, grade)
            assert heard[0].startswith("Three in a row.")
            assert grade["info"]["illegal_moves"] == 0
            assert "invalid" not in grade["info"]["reason"]
            assert grade["subscores"][0]["value"] == (grade["score"] + 1) / 2


async def test_a_game_that_was_not_finished_is_worth_nothing() -> None:
    textarena = arena()
    row = textarena.game("TicTacToe-v0", opponent="random").train[0]
    _, grade = await played(textarena.environment.__file__, row, "[4]")

    assert (grade["score"], grade["info"]["finished"]) == (0, False)


async def test_games_in_one_process_do_not_take_random_numbers_from_one_another() -> None:
    one, other = Chance(1), Chance(2)
    drawn = []
    state = random.getstate()
    for chance in (one, other, one, other):
        with chance.lent():
            drawn.append(random.random())
    assert random.getstate() == state

    alone = random.Random(1)
    assert [drawn[0], drawn[2]] == [alone.random(), alone.random()]


async def test_a_way_across_the_lake_is_walked_in_words() -> None:
    gymnasium = gym()
    row = gymnasium.game(
        "FrozenLake-v1",
        actions=["left", "down", "right", "up"],
        prompt="Reach G.",
        options={"is_slippery": False, "map_name": "4x4"},
    ).train[0]
    replies = ("hm", "Down!", "I go right, no: down", "right", "right", "down", "right")
    with anyio.fail_after(20):
        heard, grade = await played(gymnasium.environment.__file__, row, *replies)

    assert heard[0] == "Reach G.\n[S]FFF\nFHFH\nFFFH\nHFFG"
    assert heard[1] == "That is no action. Say one of: left, down, right, up."
    assert heard[2].splitlines()[2] == "[F]HFH"
    assert grade["score"] == 1
    assert grade["info"] == {"turns": 7, "illegal_moves": 1, "finished": True, "reason": None}


async def test_an_observation_without_a_picture_is_text_and_rewards_add_up() -> None:
    gymnasium = gym()
    adapted = gymnasium.game("Taxi-v4", max_moves=3)
    heard, grade = await played(gymnasium.environment.__file__, adapted.train[0], "0", "1", "5")
    assert heard[0].startswith("Say one of: 0, 1, 2, 3, 4, 5.\n+---------+")
    assert "\x1b" not in "".join(heard)
    assert (grade["score"], grade["info"]["finished"]) == (-12, False)

    cards = gymnasium.game("Blackjack-v1", actions=["stick", "hit"])
    heard, grade = await played(gymnasium.environment.__file__, cards.train[0], "stick")
    assert re.fullmatch(r"Say one of: stick, hit\.\n\(\d+, \d+, [01]\)", heard[0])
    assert grade["info"]["finished"]


async def test_too_many_replies_without_an_action_end_an_episode() -> None:
    gymnasium = gym()
    row = gymnasium.game("Blackjack-v1", illegal_moves=1, illegal_penalty=0.25).train[0]
    _, grade = await played(gymnasium.environment.__file__, row, "x", "y", "z")

    assert grade["info"] == {"turns": 2, "illegal_moves": 2, "finished": False, "reason": None}
    assert grade["score"] == -0.5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Nope-v1", {}, "Nope"),
        ("FrozenLake-v1", {"actions": ["left"]}, "not 1"),
        ("FrozenLake-v1", {"options": {"colour": "red"}}, "colour"),
        ("Pendulum-v1", {}, "a finite number"),
        ("FrozenLake-v1", {"max_moves": 0}, "max_moves 0"),
    ],
)
def test_an_environment_that_cannot_be_played_in_text_is_said(
    name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gym().game(name, **options)


def test_a_game_that_there_is_not_is_said() -> None:
    with pytest.raises(ValueError, match="no game 'Chess'"):
        arena().game("Chess")


def test_the_action_that_is_named_last_counts() -> None:
    names = ("up", "up-left", "Down")
    assert last_named("UP, then down", names) == "Down"
    assert last_named("go up-left.", names) == "up-left"
    assert last_named("cup, upward", names) is None
