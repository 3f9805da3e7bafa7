"""Agents of one's own, in the daemon."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Runner

AGENTS = '''
class Twice:
    """Asks, and asks again; the second answer counts."""

    def __init__(self, *, word="again"):
        self.word = word

    async def act(self, episode, policy):
        first = await policy.sample(episode.prompt)
        more = [*episode.prompt, first.message, {"role": "user", "content": self.word}]
        return (await policy.sample(more)).text

class Broken:
    async def act(self, episode, policy):
        await policy.sample(episode.prompt)
        raise KeyError("lost my notes")
'''


def with_agent(run: Runner, agent: str, **options: str) -> Runner:
    run.write(run={"steps": 1}, agent={"use": agent, "options": options}, taskset={"heldout": None})
    (run.directory / "my_agents.py").write_text(AGENTS)
    return run


def test_an_agent_of_ones_own_trains_and_its_turns_extend_token_for_token(remote_run: Runner) -> None:
    import json

    done = with_agent(remote_run, "my_agents:Twice", word="more").run()

    assert done.returncode == 0, done.stderr
    for (text,) in remote_run.query("SELECT samples FROM rollouts"):
        first, second = json.loads(text)
        said = first["prompt_token_ids"] + first["output_token_ids"]
        assert second["prompt_token_ids"][: len(said)] == said


def test_an_agent_that_always_raises_drops_its_groups_and_is_given_up(
    remote_run: Runner,
) -> None:
    done = with_agent(remote_run, "my_agents:Broken").run()

    assert done.returncode == 1, done.stderr
    assert "the agent: 8 of 8 attempts failed" in done.stderr.splitlines()[-1]
    assert "KeyError: 'lost my notes'; mend it and run again" in done.stderr.splitlines()[-1]
    (row,) = remote_run.query("SELECT DISTINCT outcome, phase, detail FROM rollouts")
    assert row == ("agent_error", "act", "KeyError: 'lost my notes'")
    assert remote_run.query("SELECT DISTINCT ending FROM groups WHERE ending IS NOT NULL") == [("partial",)]


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("my_agents:Thrice", "no class 'Thrice'"),
        ("nobody:Twice", "ModuleNotFoundError"),
        ("my_agents:Twice", "unexpected keyword argument 'colour'"),
    ],
)
def test_an_agent_that_cannot_be_made_is_said_before_anything_is_sampled(
    remote_run: Runner, agent: str, words: str
) -> None:
    done = with_agent(remote_run, agent, colour="red").run()

    assert done.returncode == 2
    assert words in done.stderr
