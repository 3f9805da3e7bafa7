"""A language model as a grader, with an endpoint that says what the test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.errors import EnvironmentFailed, JudgeFailed
from hud_orchestrator.graders import Criterion, Judge
from hud_orchestrator.ladder import Limits
from hud_orchestrator.records import Outcome, Task, Ticket
from tests.torture.world import attempter

RUBRIC = (
    Criterion(name="right", description="names the capital", weight=3),
    Criterion(name="brief", description="is one word"),
)
GOOD = '{"scores": {"right": 1, "brief": 0.5}, "reason": "as asked"}'


class Endpoint:
    """Answers chat completions with what it was given to say: text, or a status."""

    def __init__(self) -> None:
        self.says: list[str | int] = [GOOD]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.takes_s = 0.0
        self.now = self.most = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = outer.answer(body, self.headers.get("Authorization"))
                text = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked.append(body)
            self.keys.append(key)
            says = self.says.pop(0) if len(self.says) > 1 else self.says[0]
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.takes_s)
        with self._lock:
            self.now -= 1
        if isinstance(says, int):
            return says, {"error": {"message": f"not with {key}"}}
        return 200, {"choices": [{"message": {"role": "assistant", "content": says}}]}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("JUDGE_API_KEY", "judge-secret")
    served = Endpoint()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def judge(endpoint: Endpoint, **more: Any) -> Judge:
    return Judge(**{"model": "judge-1", "base_url": endpoint.url, "rubric": RUBRIC, "deadline_s": 20, **more})


async def test_each_criterion_is_a_subscore_and_the_reward_their_weighted_mean(endpoint: Endpoint) -> None:
    with anyio.fail_after(20):
        grade = await judge(endpoint).grade('Paris"}', task="capital of France?")

    assert grade.reward == pytest.approx((3 * 1 + 0.5) / 4)
    assert [(s.name, s.value, s.weight) for s in grade.subscores or []] == [
        ("right", 1, 3),
        ("brief", 0.5, 1),
    ]
    assert grade.content == "as asked"
    (asked,) = endpoint.asked
    assert asked["model"] == "judge-1"
    system, user = asked["messages"]
    assert "right: names the capital" in system["content"]
    assert json.loads(user["content"]) == {"task": "capital of France?", "answer": 'Paris"}'}
    assert endpoint.keys == ["Bearer judge-secret"]


async def test_no_answer_is_worth_nothing_and_the_judge_is_not_asked(endpoint: Endpoint) -> None:
    grade = await judge(endpoint).grade(None, task="t")

    assert (grade.reward, endpoint.asked) == (0.0, [])


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("I would say 1.", "not JSON"),
        (f"```json\n{GOOD}\n```", "not JSON"),
        ("[1]", 'object called "scores"'),
        ('{"scores": {"right": 1}}', "must have"),
        ('{"scores": {"right": 1, "brief": 1, "kind": 1}}', "must have"),
        ('{"scores": {"right": 1.1, "brief": 1}}', "score of right is 1.1"),
        ('{"scores": {"right": true, "brief": 1}}', "score of right is true"),
        ('{"scores": {"right": NaN, "brief": 1}}', "score of right is NaN"),
        ("", "not JSON"),
    ],
)
async def test_a_reply_that_is_no_verdict_is_asked_for_again_and_told_why(
    endpoint: Endpoint, reply: str, problem: str
) -> None:
    endpoint.says = [reply, GOOD]
    with anyio.fail_after(20):
        assert (await judge(endpoint).grade("x", task="t")).reward == 0.875

    *_, said, again = endpoint.asked[1]["messages"]
    assert said == {"role": "assistant", "content": reply}
    assert problem in again["content"]


async def test_a_judge_that_never_gives_a_verdict_is_given_up(endpoint: Endpoint) -> None:
    endpoint.says = ["hm"]
    with pytest.raises(JudgeFailed, match="no verdict in 2 replies; of the last one: it is not JSON"):
        await judge(endpoint, re_asks=1).grade("x", task="t")

    assert len(endpoint.asked) == 2


async def test_a_busy_judge_is_asked_again_within_its_budget(endpoint: Endpoint) -> None:
    endpoint.says = [503, 429, GOOD]
    with anyio.fail_after(20):
        assert (await judge(endpoint, attempts=3).grade("x", task="t")).reward == 0.875

    endpoint.says = [503]
    with pytest.raises(JudgeFailed, match="503"):
        await judge(endpoint, attempts=2).grade("x", task="t")
    assert len(endpoint.asked) == 5


async def test_a_judge_that_is_slow_or_away_is_a_failure_by_its_deadline(endpoint: Endpoint) -> None:
    endpoint.takes_s = 1
    with pytest.raises(JudgeFailed, match=r"no verdict in 0\.2 s"):
        await judge(endpoint, deadline_s=0.2).grade("x", task="t")

    nobody = Judge(model="m", base_url="http://127.0.0.1:9/v1", rubric=RUBRIC, attempts=1)
    with pytest.raises(JudgeFailed, match="cannot connect"):
        await nobody.grade("x", task="t")


async def test_a_refused_key_names_its_variable_and_is_not_repeated(endpoint: Endpoint) -> None:
    endpoint.says = [401]
    with pytest.raises(JudgeFailed, match="set JUDGE_API_KEY") as failure:
        await judge(endpoint).grade("x", task="t")

    assert "judge-secret" not in str(failure.value)


async def test_an_endpoint_without_a_key_gets_no_header(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_API_KEY")
    await judge(endpoint).grade("x", task="t")

    assert endpoint.keys == [None]


async def test_no_more_verdicts_are_in_the_making_than_allowed(endpoint: Endpoint) -> None:
    endpoint.takes_s = 0.05
    with anyio.fail_after(30):
        async with anyio.create_task_group() as together:
            for _ in range(8):  # a judge each, as processes have
                together.start_soon(_grade, judge(endpoint, concurrency=2))

    assert len(endpoint.asked) == 8
    assert endpoint.most <= 2


async def _grade(one: Judge) -> None:
    await one.grade("x", task="t")


@pytest.mark.parametrize("where", ["process", "in-process"])
async def test_in_an_environment_a_dead_judge_is_a_grader_failure_and_no_reward(
    endpoint: Endpoint, tmp_path: Path, where: str
) -> None:
    source = tmp_path / "judged.py"
    source.write_text(
        "from hud_orchestrator import Environment\n"
        "from hud_orchestrator.graders import Criterion, Judge\n"
        "env = Environment('judged')\n"
        f"judge = Judge(model='m', base_url={endpoint.url!r}, attempts=1,\n"
        "    rubric=[Criterion(name='right', description='x'), Criterion(name='brief', description='y')])\n"
        "@env.template()\n"
        "async def capital():\n"
        "    yield await judge.grade((yield 'capital?'), task='capital?')\n"
    )
    task = Task(env="judged", id="capital", args={}, slug="capital")
    with (tmp_path / "log").open("wb") as log, anyio.fail_after(30):
        async with ProcessPool(source, log_file=log, recycle_after=9, teardown_s=1) as pool:
            placement = pool if where == "process" else InProcess(source, teardown_s=1)
            async with placement.episode(task) as episode:
                assert (await episode.grade("Paris"))["score"] == 0.75
            endpoint.says = [503]
            with pytest.raises(EnvironmentFailed, match="JudgeFailed: the judge m gave no verdict"):
                async with placement.episode(task) as episode:
                    await episode.grade("Paris")
            # An agent hands its answer over as a turn, and it is still the grader that failed.
            limits = Limits(deadline_s=20, grading_reserve_s=5, infrastructure_retries=0)
            async with attempter(placement, limits) as attempts:
                done = await attempts.attempt(Ticket(group=0, member=0, task=task), temperature=1)
    assert (done.outcome, done.reward) == (Outcome.GRADER_FAILED, None)
    assert "JudgeFailed: the judge m gave no verdict" in str(done.detail)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rubric": []}, "needs criteria"),
        ({"rubric": [RUBRIC[0], RUBRIC[0]]}, "needs criteria"),
        ({"key_variable": "HUD_API_KEY"}, "not given to environments"),
        ({"attempts": 0}, "attempts is 0"),
        ({"deadline_s": 0}, "deadline_s is 0"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_at_once(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Judge(**{"model": "m", "base_url": "http://127.0.0.1/v1", "rubric": RUBRIC, **wrong})
