"""2048: its rules, its grades, and the tiny model's turns at it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.agents.protocol import Message, ToolCall, Transcript, Turn
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.records import Outcome, Task
from hud_orchestrator.toolbox import ToolSpec

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "examples" / "game2048" / "tasks.py"
TURNS = 8


def load_rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rules_of_2048", SOURCE.with_name("board.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = load_rules()


def task(seed: int = 0, **args: Any) -> Task:
    return Task(env="game2048", id="game2048", args={"seed": seed, "size": 3, "goal": 32, **args}, slug="s")


class Player:
    """A policy that makes the moves it was told to, and keeps what it was answered."""

    def __init__(self, moves: Sequence[str]) -> None:
        self._moves = iter(moves)
        self.boards: list[str] = []

    async def sample(self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = ()) -> Turn:
        [tool] = tools
        self.boards.append(messages[-1]["content"])
        direction = next(self._moves)
        arguments = json.dumps({"direction": direction})
        call = ToolCall(id=str(len(self.boards)), name=tool.name, arguments=arguments)
        return Turn(text="", tool_calls=(call,), message={"role": "assistant", "content": direction})


async def play(game: Task, moves: Sequence[str]) -> tuple[dict[str, Any], list[str], Transcript]:
    player, transcript = Player(moves), Transcript()
    agent = ChatAgent(system_prompt=None, max_turns=len(moves))
    async with InProcess(SOURCE, teardown_s=1).episode(game) as episode:
        await agent.act(episode, player, transcript)
        return dict(await episode.grade(transcript.answer)), player.boards, transcript


def parts(grade: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["name"]: {**part["info"], "value": part["value"]} for part in grade["subscores"]}


@pytest.mark.parametrize(
    ("line", "slid", "gained"),
    [
        ([2, 2, 0, 0], [4, 0, 0, 0], 4),
        ([2, 2, 2, 0], [4, 2, 0, 0], 4),
        ([2, 2, 2, 2], [4, 4, 0, 0], 8),
        ([4, 0, 2, 2], [4, 4, 0, 0], 4),
        ([2, 0, 0, 4], [2, 4, 0, 0], 0),
        ([8, 4, 4, 8], [8, 8, 8, 0], 8),
    ],
)
def test_tiles_slide_and_each_merges_once_the_foremost_pair_first(
    line: list[int], slid: list[int], gained: int
) -> None:
    mirrored = line[::-1]
    for direction, rows in (("left", [line]), ("right", [mirrored])):
        upright = [list(column) for column in zip(*rows, strict=True)]
        wanted = slid if direction == "left" else slid[::-1]
        assert RULES.slid(rows, direction) == ([wanted], gained)
        turned = "up" if direction == "left" else "down"
        assert RULES.slid(upright, turned) == ([[tile] for tile in wanted], gained)


def test_a_legal_move_adds_one_tile_and_an_illegal_one_changes_nothing() -> None:
    for seed in range(30):
        board, chance = RULES.Board(seed=seed, size=4), random.Random(seed)
        while not board.over:
            before = [row[:] for row in board.rows]
            direction = chance.choice(RULES.DIRECTIONS)
            slid, gained = RULES.slid(before, direction)
            score = board.score
            if not board.move(direction):
                assert board.rows == before == slid
                continue
            new = [
                (old, new)
                for o, n in zip(slid, board.rows, strict=True)
                for old, new in zip(o, n, strict=True)
            ]
            assert [pair for pair in new if pair[0] != pair[1]] in ([(0, 2)], [(0, 4)])
            assert board.score == score + gained
        assert not any(board.move(direction) for direction in RULES.DIRECTIONS)


async def test_a_seed_is_a_game_and_a_direction_has_three_names() -> None:
    spelt = await play(task(3), ["left", "up", "right", "down"])
    short = await play(task(3), ["l", "u", "r", "d"])
    keys = await play(task(3), ["4", "8", "6", "2"])
    other, *_ = await play(task(4), ["left", "up", "right", "down"])

    assert spelt[:2] == short[:2] == keys[:2]
    assert other["info"]["board"] != spelt[0]["info"]["board"]


async def test_the_board_is_answered_in_a_character_for_each_cell_and_an_illegal_move_as_such() -> None:
    grade, boards, transcript = await play(task(1), ["left", "left", "nowhere", "down"] + ["left"] * 4)

    assert boards[:4] == ["2048\n.11\n...\n...", "2..\n...\n..1", "2..\n.1.\n1..", "illegal"]
    assert {len(board) for board in boards[1:] if board != "illegal"} == {len("...\n...\n...")}
    assert transcript.ended is Outcome.MAX_TURNS
    told = parts(grade)["legal_moves"]
    assert (told["moves"], told["illegal"], told["value"]) == (4, 4, 0.5)


async def test_a_game_with_no_move_left_says_that_it_is_over() -> None:
    grade, boards, _ = await play(task(size=2, goal=64), ["left", "down", "right", "up"] * 20)

    assert boards[-1] == "game over"
    assert grade["info"]["over"] is True
    assert 0 < grade["score"] < 1


async def test_the_grade_rises_with_tile_and_score_and_with_legal_moves() -> None:
    nothing, *_ = await play(task(1), ["nowhere"])
    some, *_ = await play(task(1), ["left", "down"] * 4)
    more, *_ = await play(task(1), ["left", "down", "right", "down"] * 6)
    far, *_ = await play(task(1, goal=2048), ["left", "down", "right", "down"] * 6)

    assert nothing["score"] == 0
    assert 0 < some["score"] < more["score"] <= 1
    assert far["score"] < more["score"]
    assert parts(more)["highest_tile"]["tile"] == max(map(max, more["info"]["board"]))
    worth = {name: part["value"] for name, part in parts(more).items()}
    wanted = worth["highest_tile"] / 2 + worth["score"] / 4 + worth["legal_moves"] / 4
    assert more["score"] == pytest.approx(wanted)


async def test_a_call_that_says_nothing_is_a_wrong_move_like_any_other() -> None:
    async with InProcess(SOURCE, teardown_s=1).episode(task(1)) as episode:
        [answer] = (await episode.call_tool("move", {})).content
        grade = await episode.grade(None)

    assert answer["text"] == "illegal"
    assert parts(dict(grade))["legal_moves"]["illegal"] == 1


async def test_a_goal_without_a_merge_is_refused() -> None:
    with pytest.raises(EnvironmentFailed, match="4 or more, not 2"):
        async with InProcess(SOURCE, teardown_s=1).episode(task(goal=2)):
            pass


async def test_a_game_that_is_cut_short_is_graded_on_its_board() -> None:
    async with InProcess(SOURCE, teardown_s=1).episode(task()) as episode:
        for direction in ("left", "down", "right", "down", "left"):
            await episode.call_tool("move", {"direction": direction})
        grade = await episode.grade(None)

    assert grade["score"] > 0
    assert parts(dict(grade))["legal_moves"]["moves"] >= 3


def test_the_tiny_model_learns_from_games_whose_turns_extend_token_for_token(
    served: dict[str, str], tmp_path: Path
) -> None:
    changes = [
        "run.steps=3", "run.name=it", f"model.slug=game-{uuid4().hex[:8]}", "service=hud", "local={}",
        f"agent.max_turns={TURNS}", "rollout.groups_per_step=4", "evaluation.limit=1",
        "trainer.learning_rate.peak=2e-3",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "hud_orchestrator", "run", str(ROOT / "configs" / "game2048.yaml"),
         *(word for change in changes for word in ("--set", change))],
        env=served, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    lines = map(json.loads, (tmp_path / "runs" / "it" / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if line["kind"] == "step"]
    for step in steps:
        # What is forced is in the prompt: every sampled token has the probability that the policy gave it.
        assert step["ratio_mean"] == pytest.approx(1, abs=1e-3)
        assert step["kl_k3"] == pytest.approx(0, abs=1e-5)
    rewards = [step["reward_mean"] for step in steps]
    assert rewards[-1] > rewards[0] + 0.1

    with sqlite3.connect(tmp_path / "runs" / "it" / "store.db") as store:
        played = store.execute("SELECT outcome, samples FROM rollouts").fetchall()
    assert len(played) >= 3 * 4 * 8
    assert {outcome for outcome, _ in played} == {"max_turns"}
    for _, text in played:
        samples = json.loads(text)
        assert len(samples) == TURNS
        for before, after in itertools.pairwise(samples):
            so_far = before["prompt_token_ids"] + before["output_token_ids"]
            assert after["prompt_token_ids"][: len(so_far)] == so_far
            assert len(after["prompt_token_ids"]) > len(so_far)
